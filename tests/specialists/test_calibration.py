from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.utils.class_weight import compute_class_weight

from gsco.specialists.calibration import (
    class_reliability,
    class_weights,
    fit_temperature,
    judge,
    log_loss,
    softmax,
)


def _case(seed: int, n: int = 60, k: int = 4, scale: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, scale, (n, k))
    targets = np.array([rng.choice(k, p=row) for row in softmax(logits, 2.0)])
    return logits, targets


@pytest.mark.parametrize("seed", range(5))
def test_without_a_prior_it_is_the_maximum_likelihood_temperature(seed: int) -> None:
    logits, targets = _case(seed, n=400)
    found = fit_temperature(logits, targets, spread=np.inf)
    oracle = minimize_scalar(
        lambda t: sklearn_log_loss(targets, softmax(logits, t), labels=range(4)),
        bounds=(0.1, 10),
        method="bounded",
    )
    assert found == pytest.approx(oracle.x, rel=1e-3)
    assert 1.4 < found < 2.8  # the labels were drawn at temperature 2


def test_prior_keeps_doubt_where_validation_happens_to_be_answered_without_a_mistake() -> None:
    logits = np.eye(3)[np.arange(30) % 3] * 4.0
    targets = np.arange(30) % 3
    assert fit_temperature(logits, targets, spread=np.inf) < 0.11
    assert 0.3 < fit_temperature(logits, targets) < 1.0


def test_prior_matters_less_with_more_cases() -> None:
    logits, targets = _case(3, n=4000)
    free = fit_temperature(logits, targets, spread=np.inf)
    assert fit_temperature(logits, targets) == pytest.approx(free, rel=0.02)


def test_nothing_to_fit_on_leaves_the_logits_alone() -> None:
    assert fit_temperature(np.zeros((0, 3)), []) == 1.0


@given(st.integers(0, 10_000), st.floats(0.1, 10))
@settings(max_examples=50, deadline=None)
def test_temperature_never_changes_the_choice_and_rows_sum_to_one(seed: int, temperature: float) -> None:
    logits = np.random.default_rng(seed).normal(0, 50, (5, 6))
    cooled = softmax(logits, temperature)
    assert np.array_equal(cooled.argmax(1), logits.argmax(1))
    np.testing.assert_allclose(cooled.sum(1), 1, atol=1e-12)


def test_weights_are_scikit_learns_at_power_one_and_even_at_zero() -> None:
    targets = np.array([0] * 7 + [1] * 2 + [3] * 1)
    balanced = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=targets)
    np.testing.assert_allclose(
        class_weights(targets, 4, power=1.0), [balanced[0], balanced[1], 0, balanced[2]]
    )
    np.testing.assert_allclose(class_weights(targets, 4, power=0.0), [1, 1, 0, 1])


@pytest.mark.parametrize("k", [2, 4])
def test_figures_are_scikit_learns(k: int) -> None:
    logits, targets = _case(7, n=90, k=k)
    probabilities = softmax(logits)
    figures = judge(probabilities, targets)
    choice = probabilities.argmax(1)
    assert figures["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(targets, choice))
    assert figures["macro_f1"] == pytest.approx(f1_score(targets, choice, average="macro"))
    score = probabilities[:, 1] if k == 2 else probabilities
    assert figures["auc"] == pytest.approx(roc_auc_score(targets, score, multi_class="ovr"))
    assert figures["log_loss"] == pytest.approx(sklearn_log_loss(targets, probabilities, labels=range(k)))
    assert figures["n"] == 90


def test_a_class_that_does_not_occur_does_not_count() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.9, 0.05, 0.05]])
    figures = judge(probabilities, [0, 1, 0])
    assert figures["balanced_accuracy"] == figures["auc"] == figures["macro_f1"] == 1.0
    assert np.isnan(judge(probabilities[:1], [0])["auc"])
    wrong = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]])  # the last one as what nobody has
    assert judge(wrong, [0, 1, 0])["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)


def test_what_an_answer_is_worth_by_hand() -> None:
    """Said 3, 1 and 0 times, right 2, 0 and 0 times; overall (2 + 1) / (4 + 2)."""
    said = np.eye(3)[[0, 0, 0, 1]]
    found = class_reliability(said, [0, 0, 2, 0])
    assert found == pytest.approx(((2 + 2 * 0.5) / (3 + 2), (0 + 2 * 0.5) / (1 + 2), 0.5))


def test_log_loss_of_an_impossible_truth_is_finite() -> None:
    assert log_loss(np.array([[1.0, 0.0]]), [1]) == pytest.approx(-np.log(1e-12))
