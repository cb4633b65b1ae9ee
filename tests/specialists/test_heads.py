from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from gsco.cases import Dataset
from gsco.errors import DatasetError, ModelError
from gsco.specialists.calibration import class_weights, log_loss, softmax
from gsco.specialists.folds import grouped_folds
from gsco.specialists.heads import standardise
from gsco.specialists.knn import NearestNeighbours
from gsco.specialists.linear import GRID, LinearProbe, choose_penalty, fit_logistic
from gsco.specialists.registry import train_specialist


def _blobs(counts: list[int], d: int = 5, apart: float = 1.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.repeat(np.arange(len(counts)), counts)
    return rng.normal(0, 1, (len(targets), d)) + apart * rng.normal(0, 1, (len(counts), d))[targets], targets


@pytest.mark.parametrize("counts", [[40, 30], [40, 10, 25]])
def test_logistic_is_scikit_learns_with_the_weights(counts: list[int]) -> None:
    features, targets = _blobs(counts)
    weight, bias = fit_logistic(features, targets, len(counts), 0.1)
    oracle = LogisticRegression(C=0.1, max_iter=300, tol=1e-3)
    oracle.fit(features, targets, sample_weight=class_weights(targets, len(counts))[targets])
    np.testing.assert_allclose(softmax(features @ weight.T + bias), oracle.predict_proba(features), atol=1e-6)


def test_an_option_without_training_cases_is_never_chosen_and_spoils_nothing() -> None:
    features, targets = _blobs([30, 30, 30])
    there = targets != 1
    weight, bias = fit_logistic(features[there], targets[there], 3, 0.1)
    probabilities = softmax(features @ weight.T + bias)
    assert probabilities[:, 1].max() < 1e-3
    assert (probabilities[there].argmax(1) == targets[there]).mean() > 0.9


def test_one_label_is_refused() -> None:
    with pytest.raises(DatasetError, match="same label"):
        fit_logistic(np.zeros((4, 2)), np.zeros(4, dtype=np.int64), 2, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_penalty_has_the_least_loss_over_the_folds(seed: int) -> None:
    features, targets = _blobs([60, 40], d=40, apart=0.25, seed=seed)
    groups = [str(i // 2) for i in range(100)]
    assigned = grouped_folds(targets, groups, folds=3, seed=seed)
    losses = []
    for penalty in GRID:
        answers = np.zeros((100, 2))
        for number in range(3):
            held = assigned == number
            model = LogisticRegression(C=penalty, max_iter=300, tol=1e-3)
            model.fit(
                features[~held],
                targets[~held],
                sample_weight=class_weights(targets[~held], 2)[targets[~held]],
            )
            answers[held] = model.predict_proba(features[held])
        losses.append(log_loss(answers, targets))
    falling = next((i for i in range(len(GRID) - 1) if losses[i + 1] >= losses[i]), len(GRID) - 1)
    assert choose_penalty(features, targets, groups, 2, seed) == GRID[falling]


def test_penalty_is_chosen_without_letting_a_patient_vote_for_herself() -> None:
    """Copies of a case in another fold would make any penalty look too strong."""
    noise = np.random.default_rng(0).normal(0, 1, (60, 200))
    targets = np.tile([0, 1], 30)
    copies, labels = np.concatenate([noise] * 3), np.concatenate([targets] * 3)
    apart = choose_penalty(copies, labels, [str(i) for i in range(180)], 2, 0)
    together = choose_penalty(copies, labels, [str(i % 60) for i in range(180)], 2, 0)
    assert together == GRID[0] < apart


def test_columns_that_never_vary_are_left_out() -> None:
    features = np.ones((10, 2), dtype=np.float32)
    features[:, 1] = np.arange(10)
    mean, inverse = standardise(features)
    np.testing.assert_allclose(
        (features - mean) * inverse, np.c_[np.zeros(10), (np.arange(10) - 4.5) / 2.8722813], atol=1e-5
    )


def _neighbours(bank: np.ndarray, labels: np.ndarray, options: int, k: int) -> NearestNeighbours:
    made = NearestNeighbours(
        name="knn",
        recipe="knn",
        options=tuple("abcdef"[:options]),
        features="pooled",
        backbone_name="x",
        size=None,
    )
    made.mean, made.labels, made.k = bank.mean(0).astype(np.float32), labels, k
    made.bank = made._normalise(bank.astype(np.float32))
    return made


def test_choice_is_scikit_learns_weighted_cosine_vote() -> None:
    features, targets = _blobs([30, 30, 30], apart=0.7)
    queries, _ = _blobs([20, 20, 20], apart=0.7, seed=3)
    made = _neighbours(features, targets, 3, 9)
    oracle = KNeighborsClassifier(
        9, metric="cosine", weights=lambda d: np.exp(-10 * (d - d.min(1, keepdims=True)))
    )
    oracle.fit(features - made.mean, targets)
    # the prior is even here, so it changes no choice
    np.testing.assert_array_equal(
        made.score(queries.astype(np.float32)).argmax(1), oracle.predict(queries - made.mean)
    )


def test_shares_are_probabilities_and_never_zero() -> None:
    features, targets = _blobs([40, 5])
    shares = np.exp(_neighbours(features, targets, 2, 5).score(features.astype(np.float32)))
    np.testing.assert_allclose(shares.sum(1), 1)
    assert shares.min() > 0


def test_count_is_chosen_without_the_case_or_its_patient() -> None:
    """With each case three times over, only a rule that looks past the copies sees that labels are noise."""
    rng = np.random.default_rng(0)
    features, labels = np.repeat(rng.normal(0, 1, (60, 8)), 4, axis=0), np.repeat(rng.integers(0, 2, 60), 4)
    made = _neighbours(features, labels, 2, 5)
    assert made._choose([str(i // 4) for i in range(240)]) == 40
    assert made._choose([str(i) for i in range(240)]) == 5


def test_fewer_cases_than_neighbours_is_fine() -> None:
    features, labels = _blobs([2, 1])
    assert _neighbours(features, labels, 2, 40).score(features.astype(np.float32)).shape == (3, 2)


@pytest.mark.parametrize("recipe", ["linear_probe", "texture_probe", "knn"])
def test_heads_learn_shapes_and_answer_alone_as_in_company(
    dataset: Dataset, backbone_folder: Path, feature_cache: Path, recipe: str
) -> None:
    made = train_specialist(f"{recipe}:{backbone_folder}", dataset, cache=feature_cache)
    test = dataset.split("test")
    together = made.predict([case.image for case in test])
    alone = np.concatenate([made.predict([case.image]) for case in test])
    np.testing.assert_array_equal(alone, together)
    assert (together.argmax(1) == dataset.targets(test)).mean() >= 0.75
    assert made.reliability == made.val_metrics["balanced_accuracy"] >= 0.75


def test_a_head_refuses_other_weights_than_its_own(
    dataset: Dataset, backbone_folder: Path, feature_cache: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(backbone_folder, tmp_path / "net")
    made = train_specialist(f"linear_probe:{copy}", dataset, cache=feature_cache, out=tmp_path / "saved")
    assert isinstance(made, LinearProbe)
    config = json.loads((tmp_path / "saved/config.json").read_text())
    config["model"]["fingerprint"] = "0" * 64
    (tmp_path / "saved/config.json").write_text(json.dumps(config))
    loaded = LinearProbe.from_pretrained(tmp_path / "saved")
    with pytest.raises(ModelError, match="other weights"):
        loaded.predict([dataset.cases[0].image])
