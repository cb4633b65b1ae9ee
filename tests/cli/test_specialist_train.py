"""``gsco specialist train`` as a person or a program meets it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from gsco.cli import main
from gsco.specialists import load_specialist
from gsco.specialists.bagged import BaggedSpecialist
from gsco.specialists.chosen import runtime_of


def called(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as left:
        main(["specialist", "train", *map(str, arguments)])
    return int(left.value.code or 0)


@pytest.fixture(autouse=True)
def own_cache(feature_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSCO_CACHE", str(feature_cache))


def test_in_folds_it_is_one_specialist_with_one_runtime(
    phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "folds"
    way = ("--recipe", "small_cnn", "--size", "16", "--quick", "--folds", "2")
    assert called("--data", phantom_folder, *way, "--out", out, "--json") == 0
    said, made = json.loads(capsys.readouterr().out), load_specialist(out)
    assert isinstance(made, BaggedSpecialist)
    assert len(made.members) == 3
    assert said["runtime"] == runtime_of(made)
    assert said["validation"]["macro_f1"] == pytest.approx(made.val_metrics["macro_f1"])


def test_a_preset_says_what_it_chose_and_why(
    phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--preset", "balanced", "--runtime", "pytorch", "--out", tmp_path / "out", "--json")
    assert called("--data", phantom_folder, *arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said["candidates"]) == {"linear_probe", "knn", "texture_probe"}
    assert said["reasons"] == ["Three heads share one pass of a frozen backbone."]
    best = max(said["candidates"].values(), key=lambda figures: figures["macro_f1"])
    assert said["validation"]["macro_f1"] == best["macro_f1"]
    assert load_specialist(tmp_path / "out").name == said["name"]


def test_one_fold_is_refused_before_anything_is_trained(
    phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    way = ("--recipe", "small_cnn", "--folds", "1", "--out", tmp_path / "out")
    assert called("--data", phantom_folder, *way) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == "gsco: one fold leaves nothing to train on. Ask for two folds or more."


def test_a_figure_that_cannot_be_had_is_null_for_a_program_and_a_dash_for_a_person(
    phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "one_label_in_validation"
    shutil.copytree(phantom_folder, data)
    with (data / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    only = next(row["label"] for row in rows if row["split"] == "val")
    for row in rows:
        if row["split"] == "val" and row["label"] != only:
            row["split"] = "train"
    with (data / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    way = ("--data", data, "--recipe", "linear_probe", "--runtime", "pytorch")
    assert called(*way, "--out", tmp_path / "a", "--json") == 0
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert said["validation"]["auc"] is None
    assert said["validation"]["accuracy"] is not None
    assert called(*way, "--out", tmp_path / "b") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "AUC" in line)
    assert line.split()[-2] == "–"
