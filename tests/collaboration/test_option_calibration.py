"""A temperature and a bias per option: what they mend, and what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from gsco.collaboration import OptionCalibration, fit_option_calibration


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _said(
    n: int, n_options: int, *, sharpness: float = 1.0, bias: tuple[float, ...] | None = None, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities of a model that is too sure and prefers some options, and the truth."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, n_options))
    truth = np.asarray([rng.choice(n_options, p=row) for row in _softmax(logits)])
    return _softmax(logits * sharpness + np.asarray(bias or (0.0,) * n_options)), truth


def test_a_favourite_name_is_taken_down() -> None:
    p, truth = _said(400, 3, bias=(4.0, 0.0, 0.0))
    fit = fit_option_calibration(p, truth)
    before, after = (p.argmax(1) == truth).mean(), (fit.apply(p).argmax(1) == truth).mean()
    assert (p.argmax(1) == 0).mean() > 0.9
    assert after > before + 0.15
    assert fit.bias[0] < min(fit.bias[1:]) - 2
    assert sum(fit.bias) == pytest.approx(0, abs=1e-9)


def test_too_much_confidence_is_cooled() -> None:
    p, truth = _said(2000, 4, sharpness=3.0)
    fit = fit_option_calibration(p, truth)
    assert fit.temperature == pytest.approx(3.0, rel=0.15)
    assert np.abs(fit.bias).max() < 0.3


def test_what_is_right_already_is_left_alone() -> None:
    p, truth = _said(3000, 3)
    fit = fit_option_calibration(p, truth)
    assert np.abs(fit.apply(p) - p).max() < 0.06


def test_few_cases_move_little_and_none_nothing() -> None:
    p, truth = _said(4, 3, bias=(4.0, 0.0, 0.0))
    few, many = fit_option_calibration(p, truth), fit_option_calibration(*_said(400, 3, bias=(4.0, 0.0, 0.0)))
    assert abs(few.bias[0]) < abs(many.bias[0])
    none = fit_option_calibration(np.empty((0, 3)), [])
    assert none == OptionCalibration(1.0, (0.0, 0.0, 0.0), 0)
    np.testing.assert_allclose(none.apply(p), p, atol=1e-9)


def test_an_option_that_never_occurs_does_no_harm() -> None:
    p, truth = _said(200, 3, seed=3)
    kept = truth != 2
    fit = fit_option_calibration(p[kept], truth[kept])
    assert np.isfinite(fit.bias).all()
    assert abs(fit.bias[2]) < 4  # the prior holds it


def test_two_options_without_priors_are_a_logistic_regression() -> None:
    p, truth = _said(300, 2, sharpness=1.7, bias=(0.8, 0.0), seed=5)
    fit = fit_option_calibration(p, truth, temperature_spread=1e6, bias_spread=1e6)
    odds = (np.log(p[:, 1]) - np.log(p[:, 0]))[:, None]
    weight = 1 / np.sqrt(np.bincount(truth)[truth])
    reference = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(odds, truth, weight / weight.mean())
    assert 1 / fit.temperature == pytest.approx(float(reference.coef_[0, 0]), rel=1e-3)
    np.testing.assert_allclose(fit.apply(p), reference.predict_proba(odds), atol=1e-4)


@given(st.integers(0, 2**31), st.integers(2, 8), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_rows_stay_distributions_and_the_fit_never_loses_likelihood(
    seed: int, n_options: int, n: int
) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(n_options, 0.2), n)
    truth = rng.integers(n_options, size=n)
    fit = fit_option_calibration(p, truth)
    out = fit.apply(p)
    assert out.shape == p.shape
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-9)
    assert (out >= 0).all()
    rows = np.arange(n)
    held = np.maximum(p, 1e-12) / np.maximum(p, 1e-12).sum(axis=1, keepdims=True)
    weight = 1 / np.sqrt(np.bincount(truth, minlength=n_options)[truth])
    gain = np.log(out[rows, truth]) - np.log(held[rows, truth])
    assert (weight / weight.mean() * gain).sum() >= -1e-3


def test_how_frequent_a_class_is_counts_for_less() -> None:
    """Ten times as many cases of one class: an unweighted fit would lean to it by log 10."""
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], [500, 50])
    evidence = rng.normal(np.where(truth == 0, 1.0, -1.0), 1.0)  # log-odds of 2x for equal priors
    p = _softmax(np.stack([evidence, -evidence], axis=1))
    fit = fit_option_calibration(p, truth, temperature_spread=1e6, bias_spread=1e6)
    assert fit.bias[0] - fit.bias[1] == pytest.approx(np.log(10) / 2, abs=0.35)
