"""Two CPU processes (gloo) that share a training take the steps of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from gsco.errors import ModelError
from gsco.generalist.finetune.run import PARALLEL, _arguments, finetune

from .conftest import SETTINGS
from .test_finetune import SCRIPT, log, recipe

ALIKE = {"lora": {"rank": 4, "alpha": 8, "dropout": 0.0}}  # each process draws its own dropout


@pytest.fixture(scope="module")
def alone(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finetune(recipe(**ALIKE), tmp_path_factory.mktemp("alone"), root=place)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp", "zero3"])
def test_two_processes_have_the_loss_curve_of_one(
    place: Path, alone: Path, tmp_path: Path, parallel: str
) -> None:
    if parallel == "zero3":
        pytest.importorskip("deepspeed")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    out = tmp_path / "out"
    plan = json.dumps({**SETTINGS, **ALIKE, "parallel": parallel})
    done = subprocess.run(
        [*launch, str(script), plan, str(out), str(place)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = log(alone), log(out)
    assert [entry["step"] for entry in two] == [entry["step"] for entry in one]
    assert len(one) == 6 + 3
    for key in ("loss", "held_out_loss", "grad_norm", "learning_rate"):
        curves = [[entry[key] for entry in entries if key in entry] for entries in (one, two)]
        np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5, atol=1e-5, err_msg=key)
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (alone, out))
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        np.testing.assert_allclose(theirs[key].float(), value, atol=1e-4, err_msg=key)
    assert json.loads((out / "training.json").read_text())["processes"] == 2


def test_zero3_asks_for_deepspeed(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install deepspeed"):
        _arguments(recipe(parallel="zero3"), tmp_path, 2, evaluate=False)


def test_what_zero3_is_told_to_find_out_the_recipe_says() -> None:
    """The Trainer fills in what is ``auto``; a figure beside the recipe's would go before it."""
    found = json.loads((PARALLEL / "zero3.json").read_text())
    assert found["zero_optimization"]["stage"] == 3
    assert set(found["optimizer"]["params"].values()) == {"auto", True}
    for key in ("gradient_accumulation_steps", "gradient_clipping", "train_micro_batch_size_per_gpu"):
        assert found[key] == "auto"
    assert found["bf16"] == {"enabled": "auto"}
