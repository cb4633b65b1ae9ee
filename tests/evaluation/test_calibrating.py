"""Answers are calibrated on validation cases: what is asked, what is logged, and when it is left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gsco
from gsco.cases.phantoms import generate_phantoms
from gsco.collaboration import STANDARD_ARMS, Temperature
from gsco.evaluation.calibrating import read_calibrations
from gsco.evaluation.config import RunConfig
from gsco.evaluation.runfolder import RunFolder
from gsco.generalist import OptionScores, Request


class Biased:
    """Hears the evidence, but says the first option's name twice as gladly in log-odds."""

    name = "biased"
    fingerprint = "biased:1"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score_options(self, requests: Sequence[Request]) -> list[OptionScores]:
        out = []
        for request in requests:
            self.asked.append(str(request.image))
            last = request.prompt.splitlines()[-2]
            position = [last.find(f"{choice} ") for choice in request.choices]
            leader = min((p, i) for i, p in enumerate(position) if p >= 0)[1] if max(position) >= 0 else 0
            logits = np.zeros(len(request.choices))
            logits[leader] += 2.0
            logits[0] += 3.0
            out.append(OptionScores(tuple((logits - np.log(np.exp(logits).sum())).tolist())))
        return out

    def generate(self, requests: Sequence[Request], *, max_new_tokens: int = 64) -> list[str]:
        raise NotImplementedError


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def many_phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough validation cases to tell how sure it should be."""
    return generate_phantoms(tmp_path_factory.mktemp("many") / "phantoms", n=240, seed=8, size=64)


@pytest.fixture(scope="module")
def biased_run(
    tmp_path_factory: pytest.TempPathFactory, many_phantoms: Path, feature_cache: Path
) -> tuple[Path, Biased]:
    out, generalist = tmp_path_factory.mktemp("biased") / "run", Biased()
    settings: dict[str, Any] = {"specialists": ("linear_probe", "knn"), "neighbours": 3, "threads": 1}
    config = RunConfig(data=many_phantoms, resamples=200, **settings)
    gsco.run(config, out, generalist=generalist, cache=feature_cache)
    return out, generalist


def test_too_sure_an_arm_is_cooled_and_no_answer_changes(biased_run: tuple[Path, Biased]) -> None:
    arms = json.loads((biased_run[0] / "metrics.json").read_text())["arms"]
    assert arms["generalist"]["ece"]["value"] < arms["generalist"]["ece_uncalibrated"]
    assert read_calibrations(RunFolder(biased_run[0]))["generalist"].value > 1
    assert [arm for arm in arms if "calibrated" in arm] == ["gsco_calibrated"]


def test_validation_cases_are_asked_about_and_no_test_case_is_fitted_on(
    biased_run: tuple[Path, Biased], many_phantoms: Path
) -> None:
    dataset = gsco.load_dataset(many_phantoms)
    lines = _lines(biased_run[0] / "calibration.jsonl")
    asked = {line["case_id"] for line in lines}
    assert asked <= {case.id for case in dataset.split("val")}
    assert {line["arm"] for line in lines} == set(STANDARD_ARMS)
    assert {line["split"] for line in lines} == {"val"}
    fits = read_calibrations(RunFolder(biased_run[0]))
    assert {fit.n for fit in fits.values()} == {len(asked)}
    answered = {line["case_id"] for line in _lines(biased_run[0] / "cases.jsonl")}
    assert len(asked) == min(len(answered), len(dataset.split("val")))


def test_the_log_tells_both_and_how_to_get_from_one_to_the_other(biased_run: tuple[Path, Biased]) -> None:
    fits = read_calibrations(RunFolder(biased_run[0]))
    checked = 0
    for line in _lines(biased_run[0] / "cases.jsonl"):
        if line["kind"] != "generalist":
            assert line["uncalibrated"] is None
            continue
        p = fits[line["arm"]].apply(list(line["uncalibrated"].values()))
        assert list(line["probabilities"].values()) == pytest.approx(p.tolist(), abs=1e-6)
        assert line["prediction"] == max(line["uncalibrated"], key=line["uncalibrated"].__getitem__)
        checked += 1
    assert checked


def test_a_new_image_is_calibrated_by_the_run_unless_another_generalist_answers(
    biased_run: tuple[Path, Biased], many_phantoms: Path, feature_cache: Path
) -> None:
    out, _ = biased_run
    case = gsco.load_dataset(many_phantoms).split("test")[0]
    said = gsco.diagnose(case.image.path, run=out, generalist=Biased(), cache=feature_cache)
    assert said.uncalibrated is not None
    assert said.probabilities is not None
    fit = read_calibrations(RunFolder(out))["gsco"]
    expected = fit.apply(list(said.uncalibrated.values()))
    assert list(said.probabilities.values()) == pytest.approx(expected.tolist())
    other = Biased()
    other.fingerprint = "biased:2"
    plain = gsco.diagnose(case.image.path, run=out, generalist=other, cache=feature_cache)
    assert plain.uncalibrated is None
    assert plain.probabilities == pytest.approx(said.uncalibrated)


@pytest.mark.parametrize(
    "changes", [{"calibration_cases": 0}, {"split": "val"}, {"mode": "generate"}, {"arms": ()}]
)
def test_when_nothing_is_calibrated(
    changes: dict[str, Any], phantom_folder: Path, feature_cache: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    config = RunConfig.parse({"data": phantom_folder, **quick, **changes})
    gsco.run(config, tmp_path / "run", cache=feature_cache)
    assert not (tmp_path / "run" / "calibration.json").exists()
    assert not (tmp_path / "run" / "calibration.jsonl").exists()
    assert {str(line["uncalibrated"]) for line in _lines(tmp_path / "run" / "cases.jsonl")} == {"None"}
    assert read_calibrations(RunFolder(tmp_path / "run")) == {}


def test_a_limited_run_asks_about_no_more_cases_than_it_answers(
    phantom_folder: Path, feature_cache: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    gsco.run(RunConfig(data=phantom_folder, limit=4, **quick), tmp_path / "run", cache=feature_cache)
    fits = read_calibrations(RunFolder(tmp_path / "run"))
    assert {fit.n for fit in fits.values()} == {4}
    assert isinstance(fits["gsco"], Temperature)
