"""Images that are alike are one group, within a dataset and across datasets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsco.cases import Case, Dataset, ImageRef, Option, Task, load_dataset, units_of
from gsco.retrieval.likeness import group_alike
from gsco.teaching.held_back import held_back

TASK = Task("diagnosis", "x", (Option("a", "a"), Option("b", "b")))


def picture(path: Path, seed: int, *, noise: int = 0) -> ImageRef:
    coarse = np.random.default_rng(seed).integers(0, 200, (8, 8)).repeat(8, 0).repeat(8, 1)
    speck = np.random.default_rng([seed, noise]).integers(0, 1 + noise, coarse.shape)
    Image.fromarray((coarse + speck).astype(np.uint8)).save(path)
    return ImageRef(path)


def test_near_copies_twins_and_patients_are_joined(tmp_path: Path) -> None:
    def case(name: str, seed: int, *, noise: int = 0, **more: object) -> Case:
        image = picture(tmp_path / f"{name}.png", seed, noise=noise)
        return Case(name, (image,), ("a",), "train", **more)  # type: ignore[arg-type]

    one = Dataset(
        "one",
        TASK,
        (
            case("first", 1),
            case("again", 1, noise=6),  # nearly the first
            case("alone", 2),
            case("kin", 3, patient_id="p"),
            case("kin again", 4, patient_id="p"),
            case("said", 5, extra={"other_id": "cropped"}),
        ),
        tmp_path,
    )
    two = Dataset(
        "two", TASK, (case("cropped", 6), case("copy of alone", 2), case("kin of none", 7)), tmp_path
    )
    joined = group_alike([one, two], {"one": {"two": "other_id"}})
    unit = {
        c.id: u
        for d in joined
        for c, u in zip(d.cases, units_of([replace(c, patient_id=None) for c in d.cases]), strict=True)
    }
    assert unit["first"] == unit["again"]
    assert unit["kin"] == unit["kin again"]
    assert unit["alone"] == unit["copy of alone"]
    assert unit["said"] == unit["cropped"]
    assert len(set(unit.values())) == 5
    assert [c.group for c in group_alike([two])[0].cases] == [None, None, None]


@pytest.mark.real
def test_busi_and_breastmnist_are_held_back_together(shared_data: Path) -> None:
    sets = [load_dataset(shared_data / "busi"), load_dataset(shared_data / "medmnist" / "breastmnist.npz")]
    joined = group_alike(sets, {"busi": {"breastmnist": "breastmnist_index"}})
    looked, heard = zip(*(held_back(d.split("train")) for d in joined), strict=True)
    for one, other in ((0, 1), (1, 0)):
        shown = {case.group for case in looked[one] if case.group}
        assert shown.isdisjoint(case.group for case in heard[other])
        assert 0.25 < len(heard[one]) / len(joined[one].split("train")) < 0.45
