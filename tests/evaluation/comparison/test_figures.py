"""Figures where a case may have several labels, against those that training takes down, and by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import average_precision_score, precision_score

from gsco.cases import load_dataset
from gsco.errors import ModelError
from gsco.evaluation.comparison import compare_specialists, evaluate_specialist
from gsco.evaluation.comparison.figures import METRICS, judge
from gsco.evaluation.comparison.multi_label import BY_LABEL, LabelAnswers, judge_labels
from gsco.evaluation.report.comparison import render_comparison
from gsco.evaluation.summary import ArmAnswers
from gsco.specialists import calibration, load_specialist, train_specialist


def answers(p: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> LabelAnswers:
    return LabelAnswers("it", tuple(map(str, range(len(p)))), truth > 0, p, thresholds)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 4))
def test_values_are_those_that_training_takes_down(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    truth, p = rng.integers(0, 2, (n, k)), rng.random((n, k)).round(2)
    thresholds = rng.uniform(0.2, 0.8, k)
    keys = [f"l{i}" for i in range(k)]
    found = judge_labels(answers(p, truth, thresholds), keys, n_resamples=20)
    wanted = calibration.judge_labels(p, truth, thresholds)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auc"):
        value = found[name]["value"]
        assert np.isnan(wanted[name]) if value is None else value == pytest.approx(wanted[name], abs=1e-6)
    assert found["nll"]["value"] == pytest.approx(wanted["log_loss"], abs=1e-5)
    assert set(found) == {*METRICS, "map", *(f"{name}:{key}" for name in BY_LABEL for key in keys)}
    for i, key in enumerate(keys):
        if truth[:, i].any():
            peer = average_precision_score(truth[:, i], p[:, i])
            area = found[f"ap:{key}"]["value"]
            assert area is None if truth[:, i].all() else area == pytest.approx(peer, abs=1e-5)
        said = p[:, i] > thresholds[i]
        if said.any():
            peer = precision_score(truth[:, i], said)
            assert found[f"precision:{key}"]["value"] == pytest.approx(peer, abs=1e-5)
    for figure in found.values():
        if figure["low"] is not None and figure["value"] is not None:
            assert 0 <= figure["low"] <= figure["high"]


def test_calibration_and_recall_by_hand() -> None:
    p = np.array([[0.9], [0.9], [0.9], [0.1]])
    found = judge_labels(answers(p, np.array([[1], [1], [0], [1]]), np.array([0.5])), ["x"], n_resamples=20)
    assert found["recall:x"]["value"] == pytest.approx(2 / 3, abs=1e-5)
    # three at .9 of which two are so, one at .1 that is so
    assert found["ece"]["value"] == pytest.approx((abs(2.7 - 2) + abs(0.1 - 1)) / 4)
    assert found["brier"]["value"] == pytest.approx((0.01 + 0.01 + 0.81 + 0.81) / 4)


def test_nothing_is_certain_because_all_of_a_few_were_right() -> None:
    ids, truth = tuple(map(str, range(12))), np.array([0] * 4 + [1] * 8)
    p = np.where(truth[:, None] == np.arange(2), 0.9, 0.1)
    patients = tuple(f"p{i // 2}" for i in range(12))  # two images each
    found = judge(ArmAnswers("it", "specialist", ids, patients, truth, truth, p, 2), "ab", n_resamples=20)
    lows = {name: found[name]["low"] for name in ("recall:a", "recall:b", "accuracy")}
    assert lows == pytest.approx({"recall:a": 0.158, "recall:b": 0.398, "accuracy": 0.541}, abs=1e-3)
    labels = judge_labels(answers(p, truth[:, None] == np.arange(2), np.full(2, 0.5)), "ab", n_resamples=20)
    assert labels["recall:a"]["low"] == labels["precision:a"]["low"] == pytest.approx(0.398, abs=1e-3)
    assert labels["accuracy"]["low"] == pytest.approx(0.735, abs=1e-3)


def test_a_specialist_of_several_labels(tmp_path: Path, feature_cache: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "marks" / "images").mkdir(parents=True)
    rows = []
    for i in range(48):
        left, top = i % 2 == 0, i % 4 < 2
        grey = rng.normal(60, 15, (32, 32))
        grey[:, :16] += 80 * left
        grey[:16] += 60 * top
        name = f"images/{i}.png"
        Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(tmp_path / "marks" / name)
        labels = "|".join([*(["Left"] if left else []), *(["Top"] if top else [])]) or "No Finding"
        rows.append([name, "any", ("train", "val", "test")[i // 16], labels])
    with (tmp_path / "marks" / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "label", "split", "findings"], *rows])
    dataset = load_dataset(tmp_path / "marks", label_column="findings")
    folder = tmp_path / "probe"
    train_specialist("linear_probe", dataset, cache=feature_cache, out=folder)
    found = evaluate_specialist(
        folder, tmp_path / "marks", label_column="findings", cache=feature_cache, n_resamples=50
    )
    test = dataset.split("test")
    made = load_specialist(folder, cache=feature_cache)
    p = made.predict([case.image for case in test])
    truth = np.asarray([[key in case.labels for key in made.options] for case in test], dtype=np.int64)
    wanted = calibration.judge_labels(p, truth, made.thresholds)
    assert found.about["n"] == 16, "cases without a label are answers, too"
    assert found.figures["macro_f1"]["value"] == pytest.approx(wanted["macro_f1"], abs=1e-5)
    assert json.dumps(found.to_json(), allow_nan=False)
    assert found.about["thresholds"] == pytest.approx(dict(zip(made.options, made.thresholds, strict=True)))

    other = tmp_path / "knn"
    train_specialist("knn", dataset, cache=feature_cache, out=other)
    compared = compare_specialists(
        tmp_path / "marks",
        [folder, other],
        label_column="findings",
        cache=feature_cache,
        n_resamples=50,
        timed=False,
    )
    result = json.loads(json.dumps(compared.to_json(), allow_nan=False))
    assert result["specialists"]["linear_probe"]["macro_f1"]["value"] == found.figures["macro_f1"]["value"]
    assert result["n"] == 16
    assert result["n_per_class"] == {key: int(truth[:, i].sum()) for i, key in enumerate(made.options)}
    members = result["team"]["members"]
    peers = {"linear_probe": made, "knn": load_specialist(other, cache=feature_cache)}
    for part in ("val", "test"):
        images = [case.image for case in dataset.split(part)]
        mean = np.mean([peers[name].predict(images) for name in members], axis=0)
        logit = np.log(mean / (1 - mean)) / result["choice"]["temperature"]
        together = 1 / (1 + np.exp(-logit))
        if part == "val":
            thresholds = calibration.fit_thresholds(together, dataset.truth(dataset.split("val")))
    assert list(result["thresholds"]["team"].values()) == pytest.approx(list(thresholds), abs=1e-5)
    assert result["team"]["macro_f1"]["value"] == pytest.approx(
        calibration.judge_labels(together, truth, thresholds)["macro_f1"], abs=1e-5
    )
    page = render_comparison(compared)
    for expected in ("several a case", "Average precision", "answers to each label", "stated probability"):
        assert expected in page, expected
    assert page.count('class="grid by-label"') == 6
    with pytest.raises(ModelError, match="has several labels a case"):
        evaluate_specialist(
            folder, tmp_path / "marks", label_column="findings", external=True, cache=feature_cache
        )
    with pytest.raises(ModelError, match="gives several labels a case, marks has one"):
        evaluate_specialist(folder, tmp_path / "marks", cache=feature_cache)
