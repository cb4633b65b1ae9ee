"""From log lines to metrics.json: figures by hand, determinism, and contradictions refused."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from gsco.cases import Option
from gsco.errors import RunError
from gsco.evaluation import metrics as m
from gsco.evaluation.arm_words import arm_rank
from gsco.evaluation.summary import summarise

KEYS = ("benign", "malignant", "normal")
OPTIONS = [Option(key, key.title()) for key in KEYS]
KINDS = {"generalist": "generalist", "moed": "generalist", "rad": "generalist", "gsco": "generalist"}


def line(
    case: str, arm: str, reference: str, prediction: str | None, p: Any = None, **more: Any
) -> dict[str, Any]:
    kind = KINDS.get(arm, "specialist" if arm.startswith("specialist:") else "control")
    probabilities = None if p is None else dict(zip(KEYS, p, strict=True))
    return {
        "schema": 1,
        "case_id": case,
        "cluster": f"patient-{case[-1]}",
        "arm": arm,
        "kind": kind,
        "split": "test",
        "reference": reference,
        "prediction": prediction,
        "probabilities": probabilities,
        **more,
    }


def made_up(n: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(n):
        truth = int(rng.integers(3))
        for arm, skill in (
            ("generalist", 1.0),
            ("moed", 2.0),
            ("rad", 2.0),
            ("gsco", 4.0),
            ("best_specialist", 3.0),
            ("majority_vote", 3.0),
            ("mean_probability", 3.0),
            ("neighbour_vote", 2.0),
            ("specialist:knn", 2.0),
        ):
            p = rng.dirichlet(0.5 + skill * (np.arange(3) == truth))
            scored = None if arm == "neighbour_vote" else p.tolist()
            lines.append(line(f"case-{i:03}", arm, KEYS[truth], KEYS[int(p.argmax())], scored))
    return lines


def summary(lines: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    settings = {"n_resamples": 200, "n_shuffles": 199, "seed": 5, **more}
    return summarise(lines, dataset="made-up", task="diagnosis", options=OPTIONS, **settings)


def test_the_shape_of_metrics_json() -> None:
    out = summary(made_up())
    assert {"schema", "dataset", "task", "split", "n", "options", "arms", "comparisons", "repairs"} <= set(
        out
    )
    assert (out["schema"], out["dataset"], out["task"], out["split"], out["n"]) == (
        1,
        "made-up",
        "diagnosis",
        "test",
        60,
    )
    assert out["n_clusters"] == 10
    assert out["options"][0] == {"key": "benign", "name": "Benign"}
    arm = out["arms"]["gsco"]
    assert 0 <= arm["ece"]["value"] <= 1
    assert arm["ece"]["low"] is arm["ece"]["high"] is None  # its bootstrap is biased
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auc", "brier", "nll"):
        assert arm[name]["low"] <= arm[name]["high"]
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auc"):
        assert 0 <= arm[name]["low"] <= arm[name]["value"] <= arm[name]["high"] <= 1
    assert set(arm["per_class"]) == set(KEYS)
    assert np.sum(arm["confusion"]) == arm["n"] == 60
    assert out["arms"]["neighbour_vote"]["auc"] is None
    assert out["arms"]["neighbour_vote"]["ece"] is None
    assert out["arms"]["neighbour_vote"]["brier"] is None
    pairs = {(c["a"], c["b"], c["metric"]) for c in out["comparisons"]}
    for b in ("best_specialist", "majority_vote", "mean_probability", "neighbour_vote", "generalist"):
        assert {("gsco", b, "macro_f1"), ("gsco", b, "accuracy")} <= pairs
    assert ("moed", "majority_vote", "macro_f1") in pairs
    assert ("rad", "neighbour_vote", "accuracy") in pairs
    for row in out["comparisons"]:
        assert row["low"] <= row["difference"] <= row["high"]
        assert 0 < row["p_value"] <= row["p_holm"] <= 1
        assert ("mcnemar_p" in row) == (row["metric"] == "accuracy")
    json.dumps(out, allow_nan=False)


def test_figures_are_those_of_the_metrics() -> None:
    lines = made_up(seed=3)
    mine = sorted((x for x in lines if x["arm"] == "gsco"), key=lambda x: x["case_id"])
    truth = [KEYS.index(x["reference"]) for x in mine]
    said = [KEYS.index(x["prediction"]) for x in mine]
    p = np.array([list(x["probabilities"].values()) for x in mine])
    arm = summary(lines)["arms"]["gsco"]
    assert arm["macro_f1"]["value"] == pytest.approx(m.macro_f1(truth, said, 3), abs=1e-6)
    assert arm["auc"]["value"] == pytest.approx(m.auc(truth, p), abs=1e-6)
    assert arm["ece"]["value"] == pytest.approx(m.ece(truth, p), abs=1e-6)
    assert arm["brier"]["value"] == pytest.approx(m.brier(truth, p), abs=1e-6)
    assert arm["nll"]["value"] == pytest.approx(m.nll(truth, p), abs=1e-6)
    assert arm["confusion"] == m.confusion_matrix(truth, said, 3)[:, :-1].tolist()


def test_order_of_lines_and_repeated_lines_change_no_byte() -> None:
    lines = made_up()
    once = json.dumps(summary(lines))
    shuffled = lines + lines[10:20]
    random.Random(1).shuffle(shuffled)
    assert json.dumps(summary(shuffled)) == once
    assert json.dumps(summary(lines, seed=6)) != once


def test_floats_have_at_most_six_digits() -> None:
    def floats(value: Any) -> list[float]:
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            return [f for item in value for f in floats(item)]
        return [value] if isinstance(value, float) else []

    found = floats(summary(made_up()))
    assert len(found) > 100
    assert all(f == round(f, 6) for f in found)


def test_repairs_by_hand() -> None:
    lines = [
        line("1", "majority_vote", "benign", "benign"),
        line("2", "majority_vote", "benign", "malignant"),
        line("3", "majority_vote", "normal", "benign"),
        line("4", "majority_vote", "normal", "normal"),
        line("1", "gsco", "benign", "normal"),  # broken
        line("2", "gsco", "benign", "benign"),  # repaired
        line("3", "gsco", "normal", None),  # wrong before, wrong after
        line("4", "gsco", "normal", None),  # broken by an unreadable answer
    ]
    out = summary(lines)
    assert out["repairs"] == {"gsco": {"wrong_majority": 2, "repaired": 1, "right_majority": 2, "broken": 2}}
    assert out["arms"]["gsco"]["unparsed"] == 2
    assert out["arms"]["gsco"]["unparsed_per_class"] == [0, 0, 2]
    assert out["arms"]["gsco"]["accuracy"]["value"] == 0.25
    assert out["arms"]["gsco"]["per_class"]["malignant"] == {
        "recall": None,
        "precision": None,
        "f1": None,
        "n": 0,
    }


def test_constant_by_hand() -> None:
    lines = [line(str(i), "gsco", "benign" if i < 6 else "normal", "benign") for i in range(8)]
    constant = summary(lines)["constant"]
    assert constant == {"key": "benign", "macro_f1": pytest.approx(0.5 * 12 / 14, abs=1e-6), "accuracy": 0.75}


def test_other_splits_are_left_out() -> None:
    lines = made_up()
    extra = [{**x, "split": "val", "case_id": "v" + x["case_id"]} for x in lines[:50]]
    assert summary(lines + extra) == summary(lines)


def test_comparison_is_on_shared_cases_and_says_how_many() -> None:
    lines = [x for x in made_up() if not (x["arm"] == "majority_vote" and x["case_id"] < "case-010")]
    rows = {(c["a"], c["b"], c["metric"]): c for c in summary(lines)["comparisons"]}
    assert rows["gsco", "majority_vote", "macro_f1"]["n"] == 50
    assert rows["gsco", "generalist", "macro_f1"]["n"] == 60


def test_one_missing_probability_means_no_probability_figures() -> None:
    lines = made_up()
    next(x for x in lines if x["arm"] == "gsco")["probabilities"] = None
    assert summary(lines)["arms"]["gsco"]["auc"] is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no case"),
        ([line("1", "gsco", "cyst", "benign")], "cyst"),
        ([line("1", "gsco", "benign", "cyst")], "cyst"),
        (
            [line("1", "gsco", "benign", "benign"), line("1", "gsco", "benign", "normal")],
            "two different answers",
        ),
    ],
)
def test_contradictions_are_refused(lines: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(RunError, match=message):
        summary(lines)


def test_arms_are_in_reading_order() -> None:
    arms = list(summary(made_up())["arms"])
    assert arms[:4] == ["gsco", "moed", "rad", "generalist"]
    assert arms == sorted(arms, key=arm_rank)
    assert arms[-1] == "specialist:knn"
