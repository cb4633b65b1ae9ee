"""The arm ``gsco_calibrated``: from the log alone, fitted on validation alone, and left out where due."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import lines_of

import gsco
from gsco.evaluation.calibrating import read_calibrations
from gsco.evaluation.config import RunConfig
from gsco.evaluation.pooling import fit_arbiter, read_arbiter, voices_in
from gsco.evaluation.run import rerender
from gsco.evaluation.runfolder import RunFolder
from gsco.specialists import load_specialist
from gsco.specialists.bagged import BaggedSpecialist

MADE = ("cases.jsonl", "metrics.json", "pool.json", "report.html")


def before_the_arm(run: Path, copy: Path) -> Path:
    """A copy of a run as it was made before the arm existed: no pool, no line, no class reliability."""
    shutil.copytree(run, copy)
    (copy / "pool.json").unlink()
    for name in ("cases.jsonl", "calibration.jsonl"):
        kept = []
        for text in (copy / name).read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if line["arm"] == "gsco_calibrated":
                continue
            for opinion in (line["evidence"] or {"opinions": ()})["opinions"]:
                del opinion["class_reliability"], opinion["abstains"]
            kept.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
        (copy / name).write_text("".join(kept), encoding="utf-8")
    return copy


def test_it_is_what_the_pool_makes_of_the_log(finished_run: Path) -> None:
    folder, lines = RunFolder(finished_run), lines_of(finished_run)
    options = json.loads((finished_run / "dataset.json").read_text())["task"]["options"]
    keys = tuple(option["key"] for option in options)
    asked = [json.loads(x) for x in folder.calibration_log.read_text(encoding="utf-8").splitlines()]
    validation = [line for line in asked if line["arm"] == "generalist"]
    arbiter = fit_arbiter(validation, keys, read_calibrations(folder)["generalist"])
    assert read_arbiter(folder) == (arbiter, "generalist")
    assert arbiter.pool.n == len(validation)
    assert {line["split"] for line in validation} == {"val"}
    assert arbiter.pool.voices == (
        "specialist:linear_probe",
        "specialist:knn",
        "neighbour_vote",
        "generalist",
    )
    heard = {line["case_id"]: line for line in lines if line["arm"] == "generalist"}
    pooled = [line for line in lines if line["arm"] == "gsco_calibrated"]
    assert len(pooled) == len(heard)
    for line in pooled:
        answer = arbiter.answer(line["case_id"], keys, voices_in(heard[line["case_id"]], keys))
        assert line["prediction"] == answer.prediction == line["label_set"][0]
        assert line["label_set"] == list(answer.label_set or ())
        assert line["abstains"] is answer.abstains
        assert line["probabilities"] == pytest.approx(answer.probabilities)
        assert (line["kind"], line["reference"]) == ("pool", heard[line["case_id"]]["reference"])


def test_the_figures_say_what_its_sets_and_its_abstention_did(finished_run: Path) -> None:
    metrics = json.loads((finished_run / "metrics.json").read_text())
    arm, lines = metrics["arms"]["gsco_calibrated"], lines_of(finished_run)
    pooled = [line for line in lines if line["arm"] == "gsco_calibrated"]
    held = np.mean([line["reference"] in line["label_set"] for line in pooled])
    assert arm["sets"]["coverage"] == pytest.approx(held, abs=1e-6)
    assert arm["abstained"]["share"] == pytest.approx(np.mean([x["abstains"] for x in pooled]), abs=1e-6)
    for name, figures in metrics["arms"].items():
        assert 0 <= figures["selective"]["aurc"] <= 1
        assert ("sets" in figures) == ("abstained" in figures) == (name == "gsco_calibrated")
    compared = {(row["a"], row["b"]) for row in metrics["comparisons"]}
    assert compared >= {("gsco_calibrated", "mean_probability"), ("gsco_calibrated", "gsco")}
    page = (finished_run / "report.html").read_text(encoding="utf-8")
    assert "How much each voice is worth here" in page
    assert "label sets, stated to hold the true option in 90\u00a0%" in page


def test_a_run_made_before_the_arm_is_shown_without_it(finished_run: Path, tmp_path: Path) -> None:
    old = before_the_arm(finished_run, tmp_path / "old")
    result = rerender(old)
    assert "gsco_calibrated" not in result.metrics["arms"]
    assert not (old / "pool.json").exists()
    assert "How much each voice is worth here" not in (old / "report.html").read_text(encoding="utf-8")


def test_a_run_made_before_the_arm_gets_it_when_resumed(
    finished_run: Path, feature_cache: Path, tmp_path: Path
) -> None:
    old = before_the_arm(finished_run, tmp_path / "old")
    result = gsco.resume(old, cache=feature_cache)
    whole = json.loads((finished_run / "metrics.json").read_text())
    assert result.metrics["arms"]["gsco_calibrated"] == whole["arms"]["gsco_calibrated"]
    assert (old / "pool.json").read_bytes() == (finished_run / "pool.json").read_bytes()


def test_cut_short_while_pooling_it_goes_on_to_the_same_bytes(
    finished_run: Path, feature_cache: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    whole = (run / "cases.jsonl").read_bytes()
    (run / "cases.jsonl").write_bytes(whole[: -len(whole.splitlines()[-1]) - 40])  # a torn line, one missing
    (run / "metrics.json").unlink()
    gsco.resume(run, cache=feature_cache)
    for name in MADE[:3]:
        assert (run / name).read_bytes() == (finished_run / name).read_bytes(), name


@pytest.mark.parametrize("changes", [{"calibration_cases": 0}, {"split": "val"}, {"mode": "generate"}])
def test_there_is_no_such_arm_where_no_answer_is_calibrated(
    changes: dict[str, Any], phantom_folder: Path, feature_cache: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    config = RunConfig.parse({"data": phantom_folder, **quick, **changes})
    result = gsco.run(config, tmp_path / "run", cache=feature_cache)
    assert "gsco_calibrated" not in result.metrics["arms"]
    assert not (tmp_path / "run" / "pool.json").exists()


def test_out_of_fold_opinions_enter_the_weights_alone(
    phantom_folder: Path, feature_cache: Path, finished_run: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    gsco.run(RunConfig(data=phantom_folder, **quick, folds=2), run, cache=feature_cache)
    made, plain = (json.loads((each / "pool.json").read_text()) for each in (run, finished_run))
    train = gsco.load_dataset(phantom_folder).split("train")
    assert (made["out_of_fold"], plain["out_of_fold"]) == (len(train), 0)
    assert made["n"] == plain["n"] + len(train)
    assert made["sets"]["n"] == plain["sets"]["n"]
    assert made["weights"] != plain["weights"]
    for name in quick["specialists"]:
        assert isinstance(load_specialist(run / "specialists" / name), BaggedSpecialist)
    pool = (run / "pool.json").read_bytes()
    (run / "pool.json").unlink()
    gsco.resume(run, cache=tmp_path / "fresh")  # from nothing, the same
    assert (run / "pool.json").read_bytes() == pool


def test_without_the_generalist_alone_the_arm_that_hears_least_is_heard(
    phantom_folder: Path, feature_cache: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    config = RunConfig.parse({"data": phantom_folder, **quick, "arms": ("gsco", "rad")})
    gsco.run(config, tmp_path / "run", cache=feature_cache)
    known = read_arbiter(RunFolder(tmp_path / "run"))
    assert known is not None
    assert known[1] == "rad"
