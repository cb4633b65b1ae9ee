"""Phantoms: the same seed is the same bytes, and the texts and pictures agree with the ground truth."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsco.cases import load_dataset, load_image
from gsco.cases.phantoms import (
    FINDINGS,
    SCANNERS,
    draw_phantom,
    generate_phantoms,
    readable_name,
    sample_spec,
)
from gsco.errors import DatasetError

SICK = [kind for kind in FINDINGS if kind != "no_finding"]


def _bytes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_phantoms(tmp_path_factory.mktemp("phantoms") / "set", n=240, size=48, seed=3)


def _labels(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _jsonl(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    first = generate_phantoms(tmp_path / "a", n=12, size=64, seed=5)
    again = generate_phantoms(tmp_path / "b", n=12, size=64, seed=5)
    other = generate_phantoms(tmp_path / "c", n=12, size=64, seed=6)
    assert _bytes(first) == _bytes(again)
    assert not {h for name, h in _bytes(first).items() if name.endswith(".png")} & set(_bytes(other).values())


def test_first_images_do_not_depend_on_n(tmp_path: Path) -> None:
    few = generate_phantoms(tmp_path / "few", n=7, size=40)
    many = generate_phantoms(tmp_path / "many", n=19, size=40)
    images = [name for name in _bytes(few) if name.endswith(".png")]
    assert len(images) == 7
    assert all(_bytes(many)[name] == _bytes(few)[name] for name in images)
    assert _labels(many)[:7] == _labels(few)
    reports = _jsonl(few / "reports.jsonl")
    assert _jsonl(many / "reports.jsonl")[:7] == reports
    questions = _jsonl(few / "vqa.jsonl")
    assert _jsonl(many / "vqa.jsonl")[: len(questions)] == questions


def test_scanner_changes_nothing_but_the_picture(tmp_path: Path) -> None:
    both = generate_phantoms(tmp_path / "both", n=12, size=40)
    only = generate_phantoms(tmp_path / "only", n=12, size=40, scanners=["B"])
    strip = [[{k: v for k, v in row.items() if k != "scanner"} for row in _labels(f)] for f in (both, only)]
    assert strip[0] == strip[1]
    assert (both / "vqa.jsonl").read_bytes() == (only / "vqa.jsonl").read_bytes()
    assert (both / "reports.jsonl").read_bytes() == (only / "reports.jsonl").read_bytes()
    assert {row["scanner"] for row in _labels(only)} == {"B"}


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(SICK),
    seed=st.integers(0, 2**20),
    patient=st.integers(0, 5000),
    scanner=st.sampled_from(sorted(SCANNERS)),
)
def test_finding_is_where_the_ground_truth_says(kind: str, seed: int, patient: int, scanner: str) -> None:
    """What differs from the healthy phantom is centred on the stated place, on the stated side."""
    size = 112
    spec = sample_spec(kind, seed=seed, patient=patient, scanner=scanner)  # type: ignore[arg-type]
    f = spec.finding
    sick = draw_phantom(spec, size=size).astype(float)
    change = np.abs(sick - draw_phantom(spec.without_finding(), size=size))
    # The noise is the same, but scales with the brightness: ignore what it moves.
    change[change < 5] = 0
    assert change.sum() > 0, "the finding does not show"
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    cx, cy = (x * change).sum() / change.sum(), (y * change).sum() / change.sum()
    if kind == "cardiomegaly":
        assert f.side == ""
        assert np.hypot(cx - f.x, cy - f.y) < 0.10
        return
    assert (cx > spec.pose.midline) == (f.side == "left"), "the patient's left is on the right of the image"
    assert (f.x > spec.pose.midline) == (f.side == "left")
    reach = {"nodule": 0.5 * f.size + 0.02, "consolidation": 0.9 * f.size}.get(kind, 0.5)
    near = np.hypot(x - f.x, y - f.y) < reach
    assert change[near].sum() > 0.9 * change.sum()
    # A large consolidation is cut off by the lung's edge, and its middle moves with its size.
    assert np.hypot(cx - f.x, cy - f.y) < {"nodule": 0.02, "consolidation": f.size / 3}.get(kind, 0.16)


def test_a_patient_keeps_the_body() -> None:
    first, second = (sample_spec("nodule", seed=1, patient=4, visit=visit) for visit in (0, 1))
    assert first.anatomy == second.anatomy
    assert first.pose != second.pose
    assert sample_spec("nodule", seed=1, patient=5).anatomy != first.anatomy


def test_spec_without_finding_is_the_no_finding_phantom() -> None:
    spec = sample_spec("effusion", patient=2)
    healthy = sample_spec("no_finding", patient=2)
    assert np.array_equal(
        draw_phantom(spec.without_finding(), size=64), draw_phantom(healthy, spec.seed, size=64)
    )
    assert not np.array_equal(draw_phantom(spec, 1, size=64), draw_phantom(spec, 2, size=64))


def test_scanners_are_statistically_separable() -> None:
    """One threshold on one number tells which scanner made a picture: its dark pixels, or its noise."""
    dark: dict[str, list[float]] = defaultdict(list)
    noise: dict[str, list[float]] = defaultdict(list)
    for patient in range(40):
        for scanner in "AB":
            spec = sample_spec(FINDINGS[patient % 6], patient=patient, scanner=scanner)
            one, two = (draw_phantom(spec, seed, size=96)[10:-10, 10:-10].astype(float) for seed in (1, 2))
            dark[scanner].append(float((one < 60).mean()))
            noise[scanner].append(float((one - two).std()))
    assert min(dark["A"]) > max(dark["B"])
    assert max(noise["A"]) < min(noise["B"])


def test_splits_are_by_patient_and_classes_balanced(phantoms: Path) -> None:
    rows = _labels(phantoms)
    split_of = {}
    for row in rows:
        assert split_of.setdefault(row["patient_id"], row["split"]) == row["split"]
        assert row["group"] == row["patient_id"]
    assert len(split_of) < len(rows), "some patients have several images"
    patients = Counter(split_of.values())
    assert patients["train"] / len(split_of) == pytest.approx(0.7, abs=0.03)
    assert patients["test"] / len(split_of) == pytest.approx(0.2, abs=0.03)
    for split in ("train", "val", "test"):
        counts = Counter(row["label"] for row in rows if row["split"] == split)
        assert max(counts.values()) - min(counts[kind] for kind in FINDINGS) <= 1
        for kind in FINDINGS:
            scanners = Counter(r["scanner"] for r in rows if r["split"] == split and r["label"] == kind)
            assert abs(scanners["A"] - scanners["B"]) <= 1


def test_sides_are_balanced_and_sizes_vary(phantoms: Path) -> None:
    sides = Counter(row["finding_side"] for row in _labels(phantoms) if row["finding_side"])
    assert 0.35 < sides["left"] / sides.total() < 0.65
    for kind in SICK:
        sizes = Counter(
            record["answer"]
            for record in _jsonl(phantoms / "vqa.jsonl")
            if record["question_type"] == "SIZE" and readable_name(kind) in record["question"]
        )
        assert len(sizes) == 3, kind
        assert min(sizes.values()) / sizes.total() > 0.1


def test_reports_agree_with_labels(phantoms: Path) -> None:
    rows = {row["image"]: row for row in _labels(phantoms)}
    reports = _jsonl(phantoms / "reports.jsonl")
    assert [record["image"] for record in reports] == list(rows)
    words = {
        "effusion": "pleural effusion",
        "pneumothorax": "pneumothorax",
        "nodule": "nodule",
        "consolidation": "consolidation",
        "cardiomegaly": "cardiomegaly",
    }
    for record in reports:
        row = rows[record["image"]]
        assert record["split"] == row["split"]
        assert record["report"] == f"FINDINGS: {record['findings']} IMPRESSION: {record['impression']}"
        impression = record["impression"].lower()
        assert {kind for kind, word in words.items() if word in impression} == {row["label"]} - {"no_finding"}
        if row["finding_side"]:
            wrong = {"left": "right", "right": "left"}[row["finding_side"]]
            assert row["finding_side"] in record["findings"]
            assert wrong not in record["findings"] + impression
        for kind in SICK:
            denied = {
                "effusion": "No pleural effusion",
                "pneumothorax": "no pneumothorax",
                "nodule": "No lung nodule",
                "consolidation": "no focal consolidation",
                "cardiomegaly": "heart size is within normal limits",
            }[kind]
            assert (denied in record["findings"]) == (kind != row["label"])


def test_questions_agree_with_labels(phantoms: Path) -> None:
    rows = {row["image"]: row for row in _labels(phantoms)}
    records = _jsonl(phantoms / "vqa.jsonl")
    assert len({record["qid"] for record in records}) == len(records)
    asked = Counter()
    for record in records:
        row, text, answer = rows[record["image"]], record["question"], record["answer"]
        label = row["label"]
        named = [kind for kind in SICK if readable_name(kind) in text]
        asked[record["question_type"], record["answer_type"], answer if answer in ("Yes", "No") else ""] += 1
        assert record["split"] == row["split"]
        assert (record["answer_type"] == "CLOSED") == (answer in ("Yes", "No"))
        if record["question_type"] == "PRES":
            assert answer == ("Yes" if named == [label] else "No")
        elif record["question_type"] == "ABN" and record["answer_type"] == "CLOSED":
            about_normal = " normal?" in text or "within normal limits" in text
            assert answer == ("Yes" if (label == "no_finding") == about_normal else "No")
        elif record["question_type"] == "ABN":
            assert answer == readable_name(label)
        elif record["question_type"] == "POS" and record["answer_type"] == "CLOSED":
            assert answer == ("Yes" if f" {row['finding_side']} " in text else "No")
        elif record["question_type"] == "POS" and "zone" not in text:
            assert answer == row["finding_side"]
    assert {kind for kind, _, _ in asked} == {"PRES", "ABN", "POS", "SIZE"}
    yes = sum(n for (_, _, answer), n in asked.items() if answer == "Yes")
    no = sum(n for (_, _, answer), n in asked.items() if answer == "No")
    assert 0.35 < yes / (yes + no) < 0.65, "a constant answer must not pay"


def test_read_as_a_dataset(phantoms: Path) -> None:
    dataset = load_dataset(phantoms, check_images=True)
    assert dataset.name == "phantom_cxr"
    assert dataset.task.kind == "diagnosis"
    assert dataset.task.modality == "synthetic chest radiograph (phantom)"
    assert dataset.task.keys == FINDINGS
    assert dataset.task.names == tuple(readable_name(kind) for kind in FINDINGS)
    assert dataset.card["synthetic"] is True
    assert dataset.card["licence"] == "CC0-1.0"
    assert len(dataset) == 240
    assert not dataset.skipped
    assert load_image(dataset.cases[0].image).size == (48, 48)
    assert "synthetic" in (phantoms / "README.md").read_text()
    assert len(load_dataset(phantoms, task="report")) == 240
    vqa = load_dataset(phantoms, task="vqa")
    assert vqa.cases[0].question
    assert vqa.cases[0].answer


def test_an_earlier_phantom_folder_is_replaced_and_other_content_refused(tmp_path: Path) -> None:
    folder = generate_phantoms(tmp_path / "p", n=5, size=32)
    generate_phantoms(folder, n=2, size=32)
    assert len(list((folder / "images").iterdir())) == 2
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(DatasetError, match="not a phantom folder"):
        generate_phantoms(mine, n=2, size=32)
    assert (mine / "thesis.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "p"], "no scratch is left behind"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "at least 1"),
        ({"n": 1, "size": 8}, "too small"),
        ({"n": 1, "scanners": ["A", "Z"]}, "unknown scanner 'Z'"),
        ({"n": 1, "scanners": []}, "no scanner"),
    ],
)
def test_bad_arguments_are_refused(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        generate_phantoms(tmp_path / "p", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "p").exists()
