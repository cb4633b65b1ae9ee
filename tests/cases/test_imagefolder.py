"""Folders of images by class."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from gsco.cases import load_dataset
from gsco.errors import NoLabelsError


def fill(folder: Path, n: int, suffix: str = "png") -> None:
    folder.mkdir(parents=True)
    for k in range(n):
        Image.new("L", (3, 3), k).save(folder / f"{k:02}.{suffix}")


def test_given_splits(tmp_path: Path) -> None:
    for split, n in [("train", 4), ("Valid", 2), ("test", 3)]:
        for label in ("no_finding", "pleural_effusion"):
            fill(tmp_path / "set" / split / label, n)
    dataset = load_dataset(tmp_path / "set")
    assert dataset.name == "set" and dataset.task.kind == "diagnosis"
    assert dataset.task.names == ("no finding", "pleural effusion")
    assert [len(dataset.split(s)) for s in ("train", "val", "test")] == [8, 4, 6]
    assert dataset.cases[0].id == "train/no_finding/00.png" and dataset.cases[0].label == "no_finding"
    assert dataset.card["split"] == "given"


def test_val_is_drawn_from_train_where_missing(tmp_path: Path) -> None:
    for split, n in [("train", 16), ("test", 3)]:
        for label in "ab":
            fill(tmp_path / split / label, n, "jpg")
    dataset = load_dataset(tmp_path)
    assert [len(dataset.split(s)) for s in ("train", "val", "test")] == [28, 4, 6]
    assert all(case.id.startswith("test/") for case in dataset.split("test"))
    assert "val drawn from train" in dataset.card["split"]


def test_a_split_is_drawn_by_class(tmp_path: Path) -> None:
    fill(tmp_path / "a", 20)
    fill(tmp_path / "b" / "deeper", 10)
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "a" / ".hidden.png").touch()
    (tmp_path / ".git").mkdir()
    dataset = load_dataset(tmp_path)
    assert len(dataset) == 30
    assert Counter((case.label, case.split) for case in dataset) == {
        ("a", "train"): 14, ("a", "val"): 2, ("a", "test"): 4,
        ("b", "train"): 7, ("b", "val"): 1, ("b", "test"): 2,
    }  # fmt: skip
    assert dataset.card["split"] == "drawn: 70/10/20, by class, seed 0"
    assert load_dataset(tmp_path) == dataset != load_dataset(tmp_path, seed=5)


@pytest.mark.parametrize("folders", [(), ("only",), ("images", "masks"), ("images", "a")])
def test_no_two_classes(tmp_path: Path, folders: tuple[str, ...]) -> None:
    for name in folders:
        fill(tmp_path / name, 2)
    with pytest.raises(NoLabelsError) as caught:
        load_dataset(tmp_path)
    assert "put the images into one folder per class" in str(caught.value)
