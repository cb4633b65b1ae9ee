"""Label sets hold the truth as often as stated; abstention leaves the stated share answered."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gsco.specialists.conformal import ConformalSets, cut_of_share


def exchangeable(
    rng: np.random.Generator, n: int, options: int, sharpness: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities that are wrong about how sure they are, and what is true."""
    logits = rng.normal(0, 1, (n, options))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([rng.choice(options, p=row) for row in honest], dtype=np.int64)
    said = np.exp(sharpness * logits)
    return said / said.sum(axis=1, keepdims=True), truth


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(20, 300),
    options=st.integers(2, 7),
    coverage=st.sampled_from([0.5, 0.8, 0.9, 0.95]),
    sharpness=st.sampled_from([0.3, 1.0, 4.0]),
)
def test_exchangeable_cases_are_covered_as_often_as_stated(
    seed: int, n: int, options: int, coverage: float, sharpness: float
) -> None:
    p, truth = exchangeable(np.random.default_rng(seed), n + 2000, options, sharpness)
    rule = ConformalSets.fit(p[:n], truth[:n], coverage=coverage)
    sets = rule.sets(p[n:])
    held = sets[np.arange(2000), truth[n:]].mean()
    # given the threshold, coverage is Beta(rank, n + 1 - rank); then comes the draw of the 2000
    error = math.sqrt(coverage * (1 - coverage) * (1 / (n + 2) + 1 / 2000))
    assert held >= coverage - 5 * error - 1e-9
    assert sets.any(axis=1).all()


def test_coverage_is_exact_on_average() -> None:
    """Over many draws, between the stated coverage and 1 / (n + 1) above, where no set is a lone option."""
    rng, n = np.random.default_rng(1), 30
    held = []
    for _ in range(400):
        p, truth = exchangeable(rng, n + 50, 5, 1.0)
        members = p[n:] >= ConformalSets.fit(p[:n], truth[:n], coverage=0.9).threshold
        held.append(members[np.arange(50), truth[n:]].mean())
    assert np.mean(held) == pytest.approx(0.9 + 0.5 / (n + 1), abs=0.015)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(0, 60), options=st.integers(2, 5))
def test_more_coverage_never_makes_a_set_smaller(seed: int, n: int, options: int) -> None:
    p, truth = exchangeable(np.random.default_rng(seed), n + 20, options, 1.0)
    before = np.zeros((20, options), dtype=bool)
    for coverage in (0.1, 0.5, 0.8, 0.9, 0.99):
        sets = ConformalSets.fit(p[:n], truth[:n], coverage=coverage).sets(p[n:])
        assert (sets | ~before).all()
        before = sets


def test_where_the_first_option_is_mostly_right_more_is_stated_and_met() -> None:
    """Sets are never empty: they cannot hold the truth in 80 % of cases where 95 % of answers are right."""
    rng, n = np.random.default_rng(2), 100
    stated, held = [], []
    for _ in range(200):
        truth = rng.integers(3, size=n + 50)
        first = np.where(rng.random(n + 50) < 0.95, truth, (truth + 1) % 3)
        p = np.full((n + 50, 3), 0.02)
        p[np.arange(n + 50), first] = rng.uniform(0.9, 0.99, n + 50)
        rule = ConformalSets.fit(p[:n], truth[:n], coverage=0.8)
        stated.append(rule.coverage)
        held.append(rule.sets(p[n:])[np.arange(50), truth[n:]].mean())
    assert np.mean(stated) == pytest.approx(0.95 * n / (n + 1), abs=0.01)
    assert np.mean(held) == pytest.approx(np.mean(stated), abs=0.02)


def test_what_the_threshold_lets_in_is_stated_as_it_was_asked_for() -> None:
    p, truth = exchangeable(np.random.default_rng(3), 53, 7, 0.3)
    rule = ConformalSets.fit(p, truth, coverage=0.9)  # 49 of 53 hold the truth, which is more than 90 %
    assert rule.sets(p)[np.arange(53), truth].sum() == 49
    assert rule.coverage == 0.9


def test_too_few_cases_promise_nothing_but_every_option() -> None:
    p, truth = exchangeable(np.random.default_rng(0), 8, 3, 1.0)
    assert ConformalSets.fit(p, truth, coverage=0.9).sets(p).all()
    nine = ConformalSets.fit(np.vstack([p, p[:1]]), np.append(truth, truth[0]), coverage=0.9)
    assert nine.threshold == pytest.approx(p[np.arange(8), truth].min())


def test_the_threshold_by_hand() -> None:
    p = np.array([[x, 1 - x] for x in (0.9, 0.8, 0.7, 0.6, 0.55, 0.3, 0.95, 0.85, 0.75)])
    rule = ConformalSets.fit(p, [0] * 9, coverage=0.8)  # the 8th smallest of 1 - p: p = .55
    assert rule.threshold == pytest.approx(0.55)
    assert rule.sets([[0.54, 0.46], [0.2, 0.8]]).tolist() == [[True, False], [False, True]]
    assert ConformalSets.from_dict(rule.to_dict()) == rule


def test_an_option_just_at_the_threshold_belongs_to_the_set() -> None:
    rule = ConformalSets(0.9, 0.2, 10)
    assert rule.sets([[0.6, 0.2, 0.2], [0.61, 0.2, 0.19]]).tolist() == [[True] * 3, [True, True, False]]


@pytest.mark.parametrize("coverage", [0.0, 1.0, 1.5, -0.1])
def test_a_coverage_that_is_none_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        ConformalSets.fit(np.eye(2), [0, 1], coverage=coverage)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.sampled_from([0.1, 0.5, 0.8, 1.0]))
def test_the_cut_leaves_the_stated_share(confidence: list[float], share: float) -> None:
    cut, n = cut_of_share(confidence, share), len(confidence)
    answered = sum(c >= cut for c in confidence)
    assert answered >= share * n - 1e-9
    assert sum(c > cut for c in confidence) < share * n + 1e-9
    assert cut_of_share([], share) == 0.0
