"""Two CPU processes (gloo) that share a training take the steps of one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from gsco.errors import ModelError
from gsco.generalist.finetune.run import PARALLEL, _arguments, finetune

from .conftest import SETTINGS
from .test_finetune import SCRIPT, log, recipe

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
ALIKE = {"lora": {"rank": 4, "alpha": 8, "dropout": 0.0}}  # each process draws its own dropout


@pytest.fixture(scope="module")
def alone(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finetune(recipe(**ALIKE), tmp_path_factory.mktemp("alone"), root=place)


def command(script: Path, parallel: str, out: Path, place: Path) -> list[str]:
    """Two processes that train as `alone` does, shared in some way."""
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    plan = json.dumps({**SETTINGS, **ALIKE, "parallel": parallel})
    return [*launch, str(script), plan, str(out), str(place)]


def assert_alike(alone: Path, out: Path) -> None:
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


def train(asked: list[str]) -> None:
    done = subprocess.run(asked, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp", "zero3"])
def test_two_processes_have_the_loss_curve_of_one(
    place: Path, alone: Path, tmp_path: Path, parallel: str
) -> None:
    if parallel == "zero3":
        pytest.importorskip("deepspeed")
    out = tmp_path / "out"
    train(command(tmp_path / "train.py", parallel, out, place))
    assert_alike(alone, out)


@pytest.mark.parametrize("parallel", ["fsdp", "zero3"])
def test_two_processes_killed_go_on_to_the_same_curve(
    place: Path, alone: Path, tmp_path: Path, parallel: str
) -> None:
    """Model and optimiser are cut into pieces, and so are their checkpoints."""
    if parallel == "zero3":
        pytest.importorskip("deepspeed")
    out = tmp_path / "out"
    asked = command(tmp_path / "train.py", parallel, out, place)
    with (tmp_path / "stderr").open("w") as said:
        process = subprocess.Popen(
            asked, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
        )
        deadline = time.monotonic() + 300
        while process.poll() is None and not list((out / "work").glob("checkpoint-*/complete.json")):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert process.poll() is None, (tmp_path / "stderr").read_text()[-3000:]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pid in workers_of(tmp_path / "train.py"):  # torchrun gives each a session of its own
        os.kill(pid, signal.SIGKILL)
    assert not (out / "training.json").exists()
    train(asked)
    assert_alike(alone, out)


def workers_of(script: Path) -> list[int]:
    """Processes that run a script."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it may have ended
            if str(script).encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


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
