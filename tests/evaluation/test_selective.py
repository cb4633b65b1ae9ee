"""Answering only the surest: figures by hand, ties without order, and what label sets hold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsco.evaluation.selective import (
    abstention_figures,
    expected_errors,
    selective_figures,
    set_figures,
)


def test_by_hand() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    right = np.array([True, True, False, True, False])
    assert expected_errors(confidence, right).tolist() == [0, 0, 1, 1, 2]
    found = selective_figures(confidence, right)
    assert found["aurc"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 4 + 2 / 5) / 5)
    assert found["risk"] == pytest.approx(1 / 4)
    assert found["errors_removed"] == pytest.approx(1 / 2)
    assert found["curve"][-1] == [1.0, pytest.approx(2 / 5)]
    assert len(found["curve"]) == 20


@given(st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.9]), st.booleans()), min_size=1, max_size=5))
def test_ties_are_the_mean_over_their_orders(cases: list[tuple[float, bool]]) -> None:
    orders = []
    for order in itertools.permutations(cases):
        ranked = sorted(order, key=lambda case: -case[0])
        orders.append(np.cumsum([not right for _, right in ranked]))
    confidence, right = np.array([c for c, _ in cases]), np.array([r for _, r in cases])
    assert expected_errors(confidence, right) == pytest.approx(np.mean(orders, axis=0))


def test_a_confidence_that_says_nothing_removes_its_share_of_the_errors() -> None:
    found = selective_figures(np.full(10, 0.7), np.arange(10) < 6)
    assert found["errors_removed"] == pytest.approx(0.2)
    assert (found["risk"], found["aurc"]) == pytest.approx((0.4, 0.4))
    assert np.isnan(selective_figures(np.full(3, 0.7), np.ones(3, dtype=bool))["errors_removed"])


def test_sets_and_abstention() -> None:
    sets = np.array([[True, False, False], [True, True, False], [False, False, True]])
    found = set_figures(sets, np.array([0, 1, 1]))
    assert found["coverage"] == pytest.approx(2 / 3)
    assert found["mean_size"] == pytest.approx(4 / 3)
    assert found["single"] == pytest.approx(2 / 3)
    assert found["per_class"][:2] == [1.0, 0.5]
    assert np.isnan(found["per_class"][2])
    left = abstention_figures(np.array([True, False, False, True]), np.array([False, True, False, True]))
    assert left == {"share": 0.5, "accuracy": 0.5, "errors_removed": 0.5}
    none = abstention_figures(np.ones(2, dtype=bool), np.ones(2, dtype=bool))
    assert np.isnan(none["accuracy"])
    assert np.isnan(none["errors_removed"])
