"""What copies an image of another split is learned from in no form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from gsco.cases import Case, Dataset, ImageRef, Option, Task
from gsco.cases.case import Split
from gsco.generalist.records import Record
from gsco.teaching.copies import not_about, without_copies


def picture(folder: Path, name: str, seed: int) -> ImageRef:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(folder / name)
    return ImageRef(folder / name)


def test_a_copy_is_left_out_with_its_report_and_its_records(tmp_path: Path) -> None:
    seeds: list[tuple[str, int, Split]] = [
        ("a.png", 1, "train"), ("b.png", 2, "train"), ("again.png", 3, "train"), ("tested.png", 3, "test"),
    ]  # fmt: skip
    images = {name: picture(tmp_path, name, seed) for name, seed, _ in seeds}
    options = (Option("benign", "benign"), Option("malignant", "malignant"))
    cases = tuple(Case(name, (images[name],), ("benign",), split) for name, _, split in seeds)
    told = tuple(Case(f"report of {name}", (images[name],), (), split) for name, _, split in seeds)
    asked = tuple(Case(f"question about {name}", (images[name],), (), split) for name, _, split in seeds)
    sets = [
        Dataset("reported", Task("report", "ultrasound"), told, tmp_path),
        Dataset("diagnosed", Task("diagnosis", "ultrasound", options), cases, tmp_path),
        Dataset("asked", Task("vqa", "ultrasound"), asked, tmp_path),
    ]
    path = tmp_path / "stages" / "left_out.json"
    (reported, diagnosed, questions), left_out = without_copies(sets, path)
    assert [case.id for case in diagnosed] == ["a.png", "b.png", "tested.png"]
    assert [case.id for case in reported] == ["report of a.png", "report of b.png", "report of tested.png"]
    assert len(questions) == 4
    assert json.loads(path.read_text()) == {"diagnosed": ["again.png"]}
    assert {image.path.name for image in left_out} == {"again.png"}

    elsewhere = tmp_path / "stages" / ".." / "again.png"
    records = [
        Record(name, "given", "", image, "What?", "That.")
        for name, image in [("kept", images["a.png"]), ("copy", ImageRef(elsewhere)), ("text", None)]
    ]
    assert [record.id for record in not_about(records, left_out)] == ["kept", "text"]
    assert without_copies(sets, path) == ([reported, diagnosed, questions], left_out), "read from the file"
