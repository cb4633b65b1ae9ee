"""`Evidence.disagreement`: parity with scipy, bounds, and what it does not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr

from gsco import Evidence, Opinion


def disagreement(*rows: list[float]) -> float:
    found = Evidence(tuple(Opinion(str(i), tuple(row)) for i, row in enumerate(rows))).disagreement()
    assert found is not None
    return found


probabilities = st.lists(st.floats(0.001, 1), min_size=3, max_size=3).map(
    lambda x: [float(v) for v in np.asarray(x) / np.sum(x)]
)


@given(probabilities, probabilities)
def test_of_two_it_is_the_jensen_shannon_divergence(a: list[float], b: list[float]) -> None:
    mean = (np.asarray(a) + np.asarray(b)) / 2
    expected = (rel_entr(a, mean).sum() + rel_entr(b, mean).sum()) / (2 * np.log(2))
    assert disagreement(a, b) == pytest.approx(expected, abs=1e-9)


@given(st.lists(probabilities, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_it_is_bounded_and_asks_nobody_first(rows: list[list[float]], random: object) -> None:
    found = disagreement(*rows)
    assert 0 <= found <= 1
    random.shuffle(rows)  # type: ignore[attr-defined]
    assert disagreement(*rows) == pytest.approx(found, abs=1e-12)


def test_its_ends() -> None:
    assert disagreement([0.2, 0.8], [0.2, 0.8], [0.2, 0.8]) == pytest.approx(0, abs=1e-12)
    assert disagreement([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]) == pytest.approx(1)
    assert disagreement([1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]) == pytest.approx(1)
    assert Evidence((Opinion("alone", (0.5, 0.5)),)).disagreement() is None
    assert Evidence().disagreement() is None
