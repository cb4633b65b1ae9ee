"""Device, precision, accumulation, and several processes that train together."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from gsco.cases import Dataset
from gsco.errors import ModelError
from gsco.specialists.machine import ONE_CPU, Machine
from gsco.specialists.registry import training_job
from gsco.specialists.schedule import Schedule
from gsco.specialists.training import Trained, train_network

HALF = np.full(3, 0.5, dtype=np.float32)
PLAIN = Schedule(
    size=32, images=0, least=2, batch=12, smoothing=0, average=0.0, balance=0.0, clip=None, optimiser="adam"
)


def _train(
    dataset: Dataset, cache: Path, schedule: Schedule, machine: Machine = ONE_CPU, *, small: bool = False
) -> Trained:
    """A network without batch norm, whose gradients do not depend on how a batch is cut."""
    job = training_job(dataset, cache=cache, machine=machine)
    torch.manual_seed(0)
    if small:
        model: nn.Module = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.GELU(), nn.Flatten(), nn.Linear(512, 3))
    else:
        model = timm.create_model("test_vit", num_classes=3, img_size=32)
    return train_network(model, job, schedule, None, mean=HALF, std=HALF, what="net")


def _far(a: Trained, b: Trained) -> float:
    return max(float((a.state[key] - b.state[key]).abs().max()) for key in a.state)


def test_a_batch_in_parts_is_the_batch(dataset: Dataset, tmp_path: Path) -> None:
    whole = _train(dataset, tmp_path, PLAIN)
    parts = _train(dataset, tmp_path, replace(PLAIN, accumulate=5))
    assert 0 < _far(whole, parts) < 2e-4  # other sums, the same gradients
    assert parts.figure == pytest.approx(whole.figure, abs=1e-3)


def test_half_precision_learns_alike_and_keeps_full_weights(dataset: Dataset, tmp_path: Path) -> None:
    full = _train(dataset, tmp_path, PLAIN)
    half = _train(dataset, tmp_path, PLAIN, Machine.choose("cpu", "bf16"))
    assert {value.dtype for value in half.state.values()} == {torch.float32}
    assert half.figure == pytest.approx(full.figure, abs=0.1)
    assert _far(full, half) > 0


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.filterwarnings("ignore")  # its compiler's own
def test_a_compiled_network_learns_the_same(dataset: Dataset, tmp_path: Path) -> None:
    plain = _train(dataset, tmp_path, PLAIN, small=True)
    compiled = _train(dataset, tmp_path, PLAIN, Machine(compile=True), small=True)
    assert 0 < _far(plain, compiled) < 2e-4
    assert compiled.figure == pytest.approx(plain.figure, abs=1e-3)


def test_two_processes_train_one_network(dataset: Dataset, tmp_path: Path) -> None:
    """Each takes half of every batch; the weights are those of one process up to rounding."""
    script = tmp_path / "train.py"
    script.write_text(
        f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import torch
torch.set_num_threads(1)
from gsco.cases import load_dataset
from gsco.specialists.machine import Machine
import test_machine as t
machine = Machine.choose("cpu", "fp32")
assert machine.processes == 2
dataset = load_dataset(Path({str(dataset.root)!r}))
trained = t._train(dataset, Path({str(tmp_path / "two")!r}), t.PLAIN, machine)
torch.save((trained.state, trained.figure), Path({str(tmp_path)!r}) / f"rank{{machine.rank}}.pt")
"""
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, str(script)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    alone = _train(dataset, tmp_path / "one", PLAIN)
    for rank in (0, 1):
        state, figure = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert figure == pytest.approx(alone.figure, abs=1e-3)
        assert _far(alone, replace(alone, state=state)) < 2e-4
    assert len(list((tmp_path / "two" / "training").glob("*.pt"))) == 1


def test_classes_come_as_often_where_sampling_is_balanced() -> None:
    targets = np.asarray([0] * 90 + [1] * 8 + [2] * 2)
    schedule = replace(PLAIN, sampling="balanced")
    drawn = torch.cat([schedule.order(targets, torch.Generator().manual_seed(i)) for i in range(20)])
    shares = np.bincount(targets[drawn.numpy()]) / len(drawn)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.05)
    labels = np.stack([targets > 0, targets > 1], axis=1).astype(np.int64)
    drawn = torch.cat([schedule.order(labels, torch.Generator().manual_seed(i)) for i in range(20)])
    assert np.bincount(targets[drawn.numpy()], minlength=3).min() / len(drawn) > 0.1


@pytest.mark.parametrize(
    ("device", "precision", "words"),
    [
        ("cuda", "auto", "device 'cuda' is not there"),
        ("cuda:7", "auto", "device 'cuda:7' is not there"),
        ("xla", "auto", "device 'xla' is not there"),
        ("toaster", "auto", "no device 'toaster'"),
        ("cpu", "fp16", "no precision 'fp16' on cpu"),
        ("cpu", "int4", "no precision 'int4' on cpu"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_what_is_not_there_is_one_line(device: str, precision: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        Machine.choose(device, precision)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_the_machine_without_a_gpu_is_one_cpu() -> None:
    assert Machine.choose() == ONE_CPU
