"""The whole of a fine-tuning: it learns, counts what it skips, survives kill -9, stops at NaN."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from gsco.cases import ImageRef
from gsco.cli.app import app
from gsco.errors import DatasetError, ModelError, RunError, UserError
from gsco.generalist import Request, load_generalist
from gsco.generalist.finetune.recipe import FinetuneRecipe
from gsco.generalist.finetune.run import finetune

from .conftest import BAD, GOOD, SETTINGS

SCRIPT = """
import json, sys, warnings; import torch
torch.set_num_threads(1)
from pathlib import Path
from gsco.generalist.finetune.recipe import FinetuneRecipe
from gsco.generalist.finetune.run import finetune
recipe, out, root = sys.argv[1:]
finetune(FinetuneRecipe(**json.loads(recipe)), Path(out), root=Path(root))
"""


def recipe(**changes: Any) -> FinetuneRecipe:
    return FinetuneRecipe(**{**SETTINGS, **changes})


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the command, the model named on the command line."""
    folder = tmp_path_factory.mktemp("trained")
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({**SETTINGS, "model": "another"}))
    out = folder / "out"
    command = ["generalist", "train", str(file), "--model", "model", "--root", str(place), "--out", str(out)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout == f"{out}\n"
    return out


def test_every_skipped_record_is_counted_with_its_reason(trained: Path) -> None:
    table = json.loads((trained / "data_statistics.json").read_text())["train"]["cases"]
    assert table["skipped"] == {"is not JSON": 1, **dict.fromkeys(BAD, 1)}
    assert (table["lines"], table["used"], table["read_each_epoch"]) == (GOOD + len(BAD) + 1, GOOD, GOOD)
    assert (table["text_only"], table["several_images"], table["one_image"]) == (4, 4, GOOD - 8)
    skipped = [json.loads(line) for line in (trained / "skipped.jsonl").read_text().splitlines()]
    assert [one["reason"] for one in skipped] == ["is not JSON", *BAD]
    assert [one["id"] for one in skipped] == ["cases:1", *(f"bad-{i}" for i in range(len(BAD)))]


def test_training_writes_an_adapter_and_its_curve(trained: Path) -> None:
    state = load_file(trained / "adapter_model.safetensors")
    assert all("language_model" in key and "lora" in key for key in state)
    assert {key.split(".")[-3] for key in state} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    assert any(t.abs().max() > 0 for key, t in state.items() if "lora_B" in key)
    steps = [entry for entry in log(trained) if "loss" in entry]
    assert [entry["step"] for entry in steps] == list(range(1, GOOD // 4 + 1))
    assert [entry["step"] for entry in log(trained) if "held_out_loss" in entry] == [2, 4, 6]
    assert not (trained / "work").exists()


def test_it_learns(trained: Path) -> None:
    """Six steps on a random model: only what the held-out records share with the others can be learnt."""
    held_out = [entry["held_out_loss"] for entry in log(trained) if "held_out_loss" in entry]
    assert held_out[-1] < 0.9 * held_out[0]


def test_the_adapter_is_a_generalist(trained: Path, place: Path) -> None:
    image = ImageRef(place / "images" / "0.png")
    request = Request("Options: A. benign B. malignant", image, ("benign", "malignant"))
    before = load_generalist(str(place / "model")).score_options([request])[0]
    adapted = load_generalist(str(trained))
    assert adapted.score_options([request])[0].log_probabilities != before.log_probabilities
    assert adapted.fingerprint != load_generalist(str(place / "model")).fingerprint
    with pytest.raises(ModelError, match="there is no such"):
        load_generalist(str(place / "nowhere"))


def test_killed_training_resumes_to_the_same_bytes(place: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", SCRIPT, json.dumps(SETTINGS), str(out), str(place)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while process.poll() is None and not list((out / "work").glob("checkpoint-*/complete.json")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert process.poll() is None, "training ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "training.json").exists()
    half = out / "work" / "checkpoint-99"  # one more checkpoint, killed half way
    half.mkdir()
    (half / "trainer_state.json").write_text('{"global_')
    with (out / "training_log.jsonl").open("a") as file:
        file.write('{"step": 999, "loss": 1.0}\n{"step": 1000, "lo')  # logged, then killed
    finetune(recipe(), out, root=place)
    for name in ("adapter_model.safetensors", "training_log.jsonl", "data_statistics.json", "skipped.jsonl"):
        assert (out / name).read_bytes() == (trained / name).read_bytes(), name


def test_an_unfinished_training_by_another_recipe_is_refused(
    place: Path, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "facts.json").write_text("{}")
    with pytest.raises(RunError, match="another recipe"):
        finetune(recipe(), tmp_path, root=place)
    with pytest.raises(RunError, match="finished training"):
        finetune(recipe(), trained, root=place)


def test_a_loss_that_is_no_number_stops_with_step_and_records(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gsco.generalist.finetune.loop import AnswerTrainer

    real = AnswerTrainer._sum

    def poisoned(self: Any, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        return real(self, model, inputs) * (float("nan") if self.state.global_step == 3 else 1.0)

    monkeypatch.setattr(AnswerTrainer, "_sum", poisoned)
    with pytest.raises(RunError, match=r"the loss is nan at step 4; records: good-\d+, good-\d+\.") as stop:
        finetune(recipe(held_out=None), tmp_path, root=place)
    assert str(tmp_path) in str(stop.value)
    assert (tmp_path / "work" / "checkpoint-2" / "complete.json").exists()


def test_an_infinite_gradient_stops_before_the_step(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer

    monkeypatch.setattr(Trainer, "_clip_grad_norm", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(RunError, match="the gradient is inf at step 1; records: good"):
        finetune(recipe(held_out=None), tmp_path, root=place)


def test_data_of_which_nothing_can_be_used(place: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"image": "x.png", "conversations": []}\n')
    (tmp_path / "m.json").write_text(json.dumps({"a": {"root": "", "annotation": str(tmp_path / "a.jsonl")}}))
    with pytest.raises(DatasetError, match="none of 1 records can be used; most often: has no conversations"):
        finetune(recipe(data=str(tmp_path / "m.json")), tmp_path / "out", root=place)


def test_a_batch_that_processes_cannot_share() -> None:
    assert recipe().accumulation(2) == 1
    with pytest.raises(UserError, match="cannot be shared by 3 processes"):
        recipe().accumulation(3)


def test_recipes_in_one_line(tmp_path: Path) -> None:
    def said(*more: str) -> str:
        with pytest.raises(UserError) as error:
            command = ["generalist", "train", *more, "--out", str(tmp_path)]
            CliRunner().invoke(app, command, catch_exceptions=False)
        return str(error.value)

    assert "names no model. Add `model:` to the recipe" in said("meddr")
    assert "no-meta.json: cannot be read" in said("meddr", "--model", "m", "--data", "no-meta.json")
    assert "there is no such recipe" in said(str(tmp_path / "none.yaml"))
    assert "--model and --data are for recipes of other models" in said("nano", "--model", "m")
