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
from gsco.collaboration import GENERALIST_ARMS, OptionCalibration
from gsco.evaluation.calibrating import fit_where_it_helps, read_calibrations
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
    """Enough validation cases to tell that a bias helps."""
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


def test_a_favoured_option_is_taken_down_on_test_cases(biased_run: tuple[Path, Biased]) -> None:
    arms = json.loads((biased_run[0] / "metrics.json").read_text())["arms"]
    assert arms["gsco"]["nll"]["value"] < arms["gsco_uncalibrated"]["nll"]["value"]
    assert arms["gsco"]["accuracy"]["value"] > arms["gsco_uncalibrated"]["accuracy"]["value"]


def test_validation_cases_are_asked_about_and_no_test_case_is_fitted_on(
    biased_run: tuple[Path, Biased], many_phantoms: Path
) -> None:
    dataset = gsco.load_dataset(many_phantoms)
    lines = _lines(biased_run[0] / "calibration.jsonl")
    asked = {line["case_id"] for line in lines}
    assert asked <= {case.id for case in dataset.split("val")}
    assert {line["arm"] for line in lines} == set(GENERALIST_ARMS)
    assert {line["split"] for line in lines} == {"val"}
    fits = read_calibrations(RunFolder(biased_run[0]))
    assert {fit.n for fit in fits.values()} == {len(asked)}
    answered = {line["case_id"] for line in _lines(biased_run[0] / "cases.jsonl")}
    assert len(asked) == min(len(answered), len(dataset.split("val")))


def test_the_log_tells_both_and_how_to_get_from_one_to_the_other(biased_run: tuple[Path, Biased]) -> None:
    fits = read_calibrations(RunFolder(biased_run[0]))
    by_arm: dict[tuple[str, str], dict[str, Any]] = {
        (line["case_id"], line["arm"]): line for line in _lines(biased_run[0] / "cases.jsonl")
    }
    checked = 0
    for (case_id, arm), line in by_arm.items():
        if line["kind"] != "generalist":
            continue
        before = by_arm[case_id, f"{arm}_uncalibrated"]
        assert before["kind"] == "uncalibrated"
        assert before["prompt"] is before["evidence"] is None
        p = fits[arm].apply(list(before["probabilities"].values()))
        assert list(line["probabilities"].values()) == pytest.approx(p.tolist(), abs=1e-6)
        assert line["prediction"] == max(line["probabilities"], key=line["probabilities"].__getitem__)
        checked += 1
    assert checked


def test_mean_probability_is_calibrated_likewise_but_its_own_arm_is_not(
    biased_run: tuple[Path, Biased],
) -> None:
    fit = read_calibrations(RunFolder(biased_run[0]))["mean_probability"]
    lines = _lines(biased_run[0] / "cases.jsonl")
    told = {line["case_id"]: line["evidence"]["opinions"] for line in lines if line["arm"] == "gsco"}
    for line in lines:
        mean = np.mean([o["probabilities"] for o in told[line["case_id"]]], axis=0)
        if line["arm"] == "mean_probability":
            assert list(line["probabilities"].values()) == pytest.approx(mean.tolist(), abs=1e-6)
        if line["arm"] == "mean_probability_calibrated":
            assert line["kind"] == "control"
            assert list(line["probabilities"].values()) == pytest.approx(fit.apply(mean).tolist(), abs=1e-6)


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
    kinds = {line["kind"] for line in _lines(tmp_path / "run" / "cases.jsonl")}
    assert "uncalibrated" not in kinds
    assert read_calibrations(RunFolder(tmp_path / "run")) == {}


def test_a_limited_run_asks_about_no_more_cases_than_it_answers(
    phantom_folder: Path, feature_cache: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    gsco.run(RunConfig(data=phantom_folder, limit=4, **quick), tmp_path / "run", cache=feature_cache)
    fits = read_calibrations(RunFolder(tmp_path / "run"))
    assert {fit.n for fit in fits.values()} == {4}
    assert isinstance(fits["gsco"], OptionCalibration)


def _spoken(n: int, favour: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """What a model says that is twice too sure and favours the first of three options, and the truth."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, 3))
    odds = np.exp(logits)
    truth = np.asarray([rng.choice(3, p=row / row.sum()) for row in odds])
    said = np.exp(2 * logits + np.asarray([favour, 0, 0]))
    return said / said.sum(axis=1, keepdims=True), truth, [f"patient {i // 2}" for i in range(n)]


def test_a_bias_that_does_not_help_is_not_kept() -> None:
    p, _, clusters = _spoken(150, 0.0)
    truth = p.argmax(axis=1)  # nothing to mend
    fit = fit_where_it_helps(p, truth, clusters)
    assert fit.bias == (0.0, 0.0, 0.0)
    assert fit.temperature < 1  # it may be surer
    assert (fit.apply(p).argmax(axis=1) == truth).all()


def test_without_a_favourite_hardly_any_answer_changes() -> None:
    for seed in range(5):
        p, truth, clusters = _spoken(150, 0.0, seed)
        fit = fit_where_it_helps(p, truth, clusters)
        assert np.abs(fit.bias).max() < 0.5
        assert (fit.apply(p).argmax(axis=1) == p.argmax(axis=1)).mean() > 0.9
        assert fit.temperature > 1.3


def test_a_bias_that_helps_is_kept() -> None:
    p, truth, clusters = _spoken(150, 5.0)
    fit = fit_where_it_helps(p, truth, clusters)
    assert fit.bias[0] < -1
    assert (fit.apply(p).argmax(axis=1) == truth).mean() > (p.argmax(axis=1) == truth).mean() + 0.1


@pytest.mark.parametrize("n", [1, 3])
def test_a_handful_of_cases_is_no_error(n: int) -> None:
    p, truth, clusters = _spoken(n, 5.0)
    fit = fit_where_it_helps(p, truth, clusters)
    assert fit.bias == (0.0, 0.0, 0.0)
    assert fit.n == n
