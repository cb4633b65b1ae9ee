"""A temperature makes a model as sure as it is right, and changes no answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gsco.collaboration import Temperature
from gsco.evaluation.metrics import ece


def _said(n: int, n_options: int, sharpness: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities of a model that is too sure (sharpness above 1), and the truth."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (n, n_options))
    truth = np.asarray([rng.choice(n_options, p=np.exp(row) / np.exp(row).sum()) for row in logits])
    sharp = np.exp(sharpness * logits)
    return sharp / sharp.sum(axis=1, keepdims=True), truth


def test_too_much_confidence_is_cooled() -> None:
    p, truth = _said(2000, 4, 3.0)
    fit = Temperature.fit(p, truth)
    assert fit.value == pytest.approx(3.0, rel=0.15)
    assert fit.n == 2000
    assert ece(truth, fit.apply(p)) < 0.05 < ece(truth, p)


def test_few_cases_move_little_and_none_nothing() -> None:
    p, truth = _said(2000, 3, 3.0)
    assert 1 < Temperature.fit(p[:4], truth[:4]).value < Temperature.fit(p, truth).value
    none = Temperature.fit(np.empty((0, 3)), [])
    assert none == Temperature(1.0, 0)
    np.testing.assert_allclose(none.apply(p), p, atol=1e-9)


@given(st.integers(0, 2**31), st.integers(2, 8), st.floats(0.1, 10))
def test_rows_stay_distributions_with_the_same_order(seed: int, n_options: int, value: float) -> None:
    p = np.random.default_rng(seed).dirichlet(np.full(n_options, 0.5), 20)
    out = Temperature(value, 1).apply(p)
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-9)
    assert (out.argmax(axis=1) == p.argmax(axis=1)).all()
