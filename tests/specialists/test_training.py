from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gsco.cases import Dataset
from gsco.errors import ModelError, StorageError
from gsco.specialists.augment import Augmentation, augment, augmentation_for
from gsco.specialists.cnn import SmallCNN
from gsco.specialists.registry import training_job
from gsco.specialists.schedule import Schedule
from gsco.specialists.training import Trained, train_network

SCHEDULE = Schedule(size=32, images=144, least=4, most=4, batch=16, lr=3e-3)
HALF = np.full(3, 0.5, dtype=np.float32)
STILL = Augmentation(mirror=False, turn=False, degrees=0, zoom=0, shift=0, light=0, tint=0)


def _train(dataset: Dataset, cache: Path, *, seed: int = 0, schedule: Schedule = SCHEDULE) -> Trained:
    job = training_job(dataset, cache=cache, seed=seed)
    torch.manual_seed(seed)
    return train_network(SmallCNN(3), job, schedule, Augmentation(), mean=HALF, std=HALF, what="net")


def _same(a: Trained, b: Trained) -> bool:
    return all(torch.equal(a.state[key], b.state[key]) for key in a.state)


def test_killed_after_an_epoch_it_ends_with_the_same_weights(dataset: Dataset, tmp_path: Path) -> None:
    unbroken = _train(dataset, tmp_path / "whole")
    script = f"""
import os, signal
from pathlib import Path
import numpy as np, torch
torch.set_num_threads(1)
from gsco.cases import load_dataset
from gsco.specialists.augment import Augmentation
from gsco.specialists.cnn import SmallCNN
from gsco.specialists.registry import training_job
from gsco.specialists.schedule import Schedule
from gsco.specialists.training import train_network
def step(what, done, total):
    if "epoch 3" in what:
        os.kill(os.getpid(), signal.SIGKILL)
dataset = load_dataset(Path({str(dataset.root)!r}))
job = training_job(dataset, cache=Path({str(tmp_path / "cut")!r}), progress=step)
torch.manual_seed(0)
half = np.full(3, 0.5, dtype=np.float32)
schedule = Schedule(size=32, images=144, least=4, most=4, batch=16, lr=3e-3)
train_network(SmallCNN(3), job, schedule, Augmentation(), mean=half, std=half, what="net")
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    epochs: list[str] = []

    def go_on(seed: int) -> Trained:
        epochs.clear()
        job = training_job(dataset, cache=tmp_path / "cut", progress=lambda what, *_: epochs.append(what))
        torch.manual_seed(seed)
        return train_network(SmallCNN(3), job, SCHEDULE, Augmentation(), mean=HALF, std=HALF, what="net")

    resumed = go_on(0)
    assert [line for line in epochs if "epoch" in line] == ["net: epoch 3", "net: epoch 4"]
    assert _same(resumed, unbroken)
    assert (resumed.best_epoch, resumed.figure) == (unbroken.best_epoch, unbroken.figure)
    go_on(99)  # other weights to start from are another training
    assert next(line for line in epochs if "epoch" in line) == "net: epoch 1"


@pytest.mark.parametrize("split", ["val", None])
def test_weights_that_run_away_are_one_line(split: str | None, dataset: Dataset, tmp_path: Path) -> None:
    cases = tuple(case for case in dataset if case.split in {"train", split})
    wild = replace(SCHEDULE, lr=1e30, clip=None, average=0.0)
    for _ in range(2):  # the second time from whatever the first one left
        with pytest.raises(ModelError, match="training of net diverged") as caught:
            _train(replace(dataset, cases=cases), tmp_path, schedule=wild)
        assert "\n" not in str(caught.value)


def test_seed_decides_and_nothing_else(dataset: Dataset, tmp_path: Path) -> None:
    first = _train(dataset, tmp_path / "a")
    torch.rand(100)
    assert _same(first, _train(dataset, tmp_path / "b"))
    assert not _same(first, _train(dataset, tmp_path / "c", seed=1))


def test_global_chance_is_given_back(dataset: Dataset, tmp_path: Path) -> None:
    job = training_job(dataset, cache=tmp_path)
    model = SmallCNN(3)
    torch.manual_seed(5)
    train_network(model, job, SCHEDULE, Augmentation(), mean=HALF, std=HALF, what="net")
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))


def test_damaged_checkpoint_starts_again(dataset: Dataset, tmp_path: Path) -> None:
    first = _train(dataset, tmp_path)
    (checkpoint,) = (tmp_path / "training").glob("*.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert _same(_train(dataset, tmp_path), first)


def test_a_checkpoint_that_cannot_be_written_is_one_line(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "training").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        _train(dataset, tmp_path)


def test_the_best_epoch_is_kept_and_patience_ends_it(dataset: Dataset, tmp_path: Path) -> None:
    """At a learning rate that only does harm, the first epochs are the best and training stops early."""
    wild = replace(SCHEDULE, least=12, most=12, lr=1.0, patience=2, average=0.0)
    trained = _train(dataset, tmp_path, schedule=wild)
    assert trained.epochs < 12
    assert trained.best_epoch <= trained.epochs - 2
    assert math.isfinite(trained.figure)


def test_epochs_follow_from_the_budget() -> None:
    schedule = Schedule(size=64, images=1000, least=4, most=20)
    assert [schedule.epochs(n) for n in (10, 100, 5000)] == [20, 10, 4]


def test_small_network_is_small() -> None:
    assert 3e5 < sum(p.numel() for p in SmallCNN(5).parameters()) < 1e6
    assert SmallCNN(5)(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


# augmentation --------------------------------------------------------------------------------------


def _picture() -> torch.Tensor:
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).repeat(64, 1, 1, 1)


def _found(batch: torch.Tensor, pictures: dict[str, torch.Tensor]) -> set[str]:
    return {n for n, picture in pictures.items() for row in batch if torch.allclose(row, picture, atol=1e-4)}


def test_nothing_allowed_changes_nothing() -> None:
    batch = _picture()
    torch.testing.assert_close(
        augment(batch, STILL, torch.Generator().manual_seed(0)), batch, atol=1e-5, rtol=0
    )


def test_mirror_and_turn_give_just_what_they_say() -> None:
    batch = _picture()
    turned = {f"{k}": torch.rot90(batch[0], k, (1, 2)) for k in range(4)}
    turned |= {f"{k}m": picture.flip(2) for k, picture in turned.items()}
    chance = torch.Generator().manual_seed(0)
    assert _found(augment(batch, replace(STILL, mirror=True), chance), turned) == {"0", "0m"}
    all_eight = augment(batch, replace(STILL, mirror=True, turn=True), chance)
    assert _found(all_eight, turned) == set(turned)


def test_light_stays_in_range_and_differs_by_picture() -> None:
    changed = augment(_picture(), replace(STILL, light=0.5), torch.Generator().manual_seed(0))
    assert changed.min() >= 0
    assert changed.max() <= 1
    means = changed.mean((1, 2, 3))
    assert means.std() > 0.03
    grey = augment(torch.full((8, 3, 4, 4), 0.5), replace(STILL, light=0.5), torch.Generator().manual_seed(0))
    torch.testing.assert_close(grey[:, 0], grey[:, 2])  # light alone gives grey pictures no colour


@pytest.mark.parametrize(
    ("modality", "mirror", "turn", "tint"),
    [
        ("chest X-ray", False, False, False),
        ("chest radiograph", False, False, False),
        ("synthetic chest radiograph (phantom)", False, False, False),
        ("breast ultrasound", True, False, False),
        ("dermatoscopy", True, True, True),
        ("histopathology", True, True, True),
        ("blood smear microscopy", True, True, True),
        ("colour fundus photograph", True, False, True),
        ("brain MRI", False, False, False),
        ("abdominal CT", False, False, False),
        ("", True, False, True),
    ],
)
def test_what_is_harmless_depends_on_the_modality(
    modality: str, mirror: bool, turn: bool, tint: bool
) -> None:
    how = augmentation_for(modality)
    assert (how.mirror, how.turn, how.tint > 0) == (mirror, turn, tint)
