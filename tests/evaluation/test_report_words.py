"""How the page puts figures and verdicts into words."""

from __future__ import annotations

from typing import Any

import pytest

from gsco.evaluation.report import wording
from gsco.evaluation.report.sureness import sureness

ROW = {"a": "gsco", "b": "best_specialist", "metric": "macro_f1"}


@pytest.mark.parametrize(
    ("difference", "low", "high", "p", "expected"),
    [
        (0.03, -0.02, 0.08, 0.21, "not distinguishable"),
        (0.0, 0.0, 0.0, 1.0, "no difference"),
        (0.05, 0.01, 0.09, 0.01, "better"),
        (-0.05, -0.09, -0.01, 0.01, "worse"),
        (0.05, 0.001, 0.09, 0.06, "not distinguishable"),  # interval and corrected p-value disagree
        (0.05, -0.001, 0.09, 0.04, "not distinguishable"),
        (0.05, None, None, 0.04, "not distinguishable"),
    ],
)
def test_the_verdict_claims_no_more_than_the_tests_allow(difference, low, high, p, expected) -> None:
    row = {**ROW, "difference": difference, "low": low, "high": high, "p_value": p / 3, "p_holm": p}
    assert wording.outcome_text(row) == expected


def test_what_the_bootstrap_drew_is_named() -> None:
    assert wording.drawn_units({"n": 60, "n_clusters": 10}) == "patients or groups"
    assert wording.drawn_units({"n": 60, "n_clusters": 60}) == "images"


def test_what_made_no_mistake_is_said_to_show_little() -> None:
    right = {"accuracy": {"value": 1.0, "low": 0.540742, "high": 1.0}}
    wrong = {"accuracy": {"value": 0.8, "low": 0.4, "high": 0.9}}
    assert wording.faultless({"gsco": wrong}, 6) == ""
    few = {"gsco": right, "mean_probability": right, "rad": wrong}
    assert wording.faultless(few, 6) == (
        "Without a wrong answer in 6 cases: GSCo (both) and the mean probability. There macro-F1's interval "
        "has no width and says nothing; the share of right answers is .541 or more (exact 95 % interval)."
    )
    many = dict.fromkeys(("gsco", "moed", "rad", "generalist"), right)
    assert wording.faultless(many, 6).startswith("Without a wrong answer in 6 cases: 4 arms. ")


def test_the_verdict_in_one_sentence() -> None:
    row = {**ROW, "difference": 0.03, "low": -0.02, "high": 0.08, "p_value": 0.21, "p_holm": 0.42}
    arms = {
        "gsco": {"macro_f1": {"value": 0.81, "low": 0.74, "high": 0.87}},
        "best_specialist": {"macro_f1": {"value": 0.78, "low": 0.7, "high": 0.85}},
    }
    assert wording.comparison_sentence(row, arms) == (
        "GSCo (both): macro-F1 .810 [.740, .870] against .780 [.700, .850] for the best specialist; "
        "difference +.030 [−.020, .080], p = .21 (Holm p = .42): not distinguishable."
    )
    assert wording.headline([row], "gsco") == (
        "By macro-F1, GSCo could not be told apart from the best specialist."
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.8123, ".812"), (1.0, "1.000"), (0.0, ".000"), (-0.02, "−.020"), (-0.0001, ".000"), (None, "–")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert wording.number(value) == text


def test_the_section_on_sure_answers_says_what_the_figures_say(given: dict[str, Any], page: str) -> None:
    arm = given["metrics"]["arms"]["gsco_calibrated"]
    found = sureness(given["metrics"], given["extras"]["pool"])
    assert found is not None
    assert [row["name"] for row in found["rows"]] == ["GSCo calibrated", "GSCo (both)", "mean probability"]
    removed = round(100 * arm["selective"]["errors_removed"])
    assert found["rows"][0]["removed"] == f"{removed}\u00a0%"
    held, left = 100 * arm["sets"]["coverage"], round(100 * arm["abstained"]["share"])
    assert f"hold it in {held:.1f}\u00a0% of these {arm['n']}" in found["sentences"][0]
    assert f"abstains on {left}\u00a0% of the cases" in found["sentences"][1]
    weights = [row["name"] for row in found["weights"]]
    assert weights[0] == "fine-tuned"
    assert weights[-1] == "the similar cases' vote"
    assert found["weights"][0]["percent"] == 100
    assert found["weights"][-1]["percent"] == 0
    assert 'id="sureness"' in page
    assert "What if only sure answers were given?" in page


def test_a_run_without_the_pooled_arm_still_shows_who_is_sure(given: dict[str, Any]) -> None:
    arms = {name: arm for name, arm in given["metrics"]["arms"].items() if name != "gsco_calibrated"}
    found = sureness({**given["metrics"], "arms": arms}, None)
    assert found is not None
    assert found["sentences"] == found["weights"] == []
    old = {name: {k: v for k, v in arm.items() if k != "selective"} for name, arm in arms.items()}
    assert sureness({**given["metrics"], "arms": old}, None) is None
