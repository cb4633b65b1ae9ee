"""Intervals that cover, tests that hold their level, and agreement with the libraries that define them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsco.evaluation import metrics as m
from gsco.evaluation import statistics as s

# A loaded machine is no failure.


def confusions(truth: np.ndarray, said: np.ndarray, clusters: np.ndarray, k: int) -> np.ndarray:
    positions, n = s.cluster_positions(clusters.tolist())
    cells = np.zeros((len(truth), k, k + 1))
    cells[np.arange(len(truth)), truth, np.where(said < 0, k, said)] = 1
    return s.per_cluster(cells, positions, n)


def simulated(rng: np.random.Generator, n_clusters: int, accuracy: float, size: int = 3):
    """Binary answers whose rightness is shared within a patient: the hard case for a naive interval."""
    truth = np.repeat(rng.integers(0, 2, n_clusters), size)
    right = np.repeat(rng.random(n_clusters) < accuracy, size)
    return truth, np.where(right, truth, 1 - truth), np.repeat(np.arange(n_clusters), size)


@pytest.mark.parametrize("n", [1, 4, 35, 600])
@pytest.mark.parametrize("right", [True, False])
def test_a_share_of_all_or_none_has_the_exact_limit(n: int, right: bool) -> None:
    from scipy.stats import binomtest

    found = s.bootstrap_interval(np.tile([float(right), 1.0], (n, 1)), lambda c: c[..., 0] / c[..., 1])
    assert found.low == found.high == found.value  # a bootstrap would call it certain
    exact = binomtest(n if right else 0, n).proportion_ci(0.95, method="exact")
    assert s.exact_at_ends(found, n) == pytest.approx((float(right), exact.low, exact.high))


def test_a_share_between_is_left_to_the_bootstrap() -> None:
    found = s.Interval(0.5, 0.2, 0.8)
    assert s.exact_at_ends(found, 10) == found
    certain = s.Interval(1.0, 1.0, 1.0)
    assert s.exact_at_ends(certain, 0) == certain


def test_bootstrap_equals_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 3, 40), rng.integers(-1, 3, 40)
    clusters = rng.integers(0, 12, 40)
    positions, n_clusters = s.cluster_positions(clusters.tolist())
    draws = s.bootstrap_draws(confusions(truth, said, clusters, 3), m.macro_f1_of, n_resamples=300, seed=7)
    weights = np.concatenate(list(s.cluster_weights(n_clusters, 300, 7)))
    assert weights.shape == (300, n_clusters)
    assert (weights.sum(axis=1) == n_clusters).all()
    for row, draw in zip(weights.astype(int), draws, strict=True):
        picked = np.repeat(np.arange(40), row[positions])
        assert m.macro_f1(truth[picked], said[picked], 3) == pytest.approx(draw, nan_ok=True)


def test_same_seed_same_draws_and_other_seed_other_draws() -> None:
    sums = confusions(*simulated(np.random.default_rng(1), 30, 0.7), 2)
    one = s.bootstrap_interval(sums, m.accuracy_of, n_resamples=200, seed=1)
    assert one == s.bootstrap_interval(sums, m.accuracy_of, n_resamples=200, seed=1)
    assert one != s.bootstrap_interval(sums, m.accuracy_of, n_resamples=200, seed=2)


def test_kept_and_streamed_draws_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = list(s.cluster_weights(9, 600, 3))
    monkeypatch.setattr(s, "_MOST_KEPT", 0)
    streamed = list(s.cluster_weights(9, 600, 3))
    assert [w.shape for w in kept] == [(250, 9), (250, 9), (100, 9)]
    assert all((a == b).all() for a, b in zip(kept, streamed, strict=True))


def test_clusters_widen_the_interval_and_make_it_cover() -> None:
    rng = np.random.default_rng(2)
    covered = naive_covered = 0
    trials = 150
    for trial in range(trials):
        truth, said, clusters = simulated(rng, 50, 0.7, size=4)
        by_patient = s.bootstrap_interval(
            confusions(truth, said, clusters, 2), m.accuracy_of, n_resamples=400, seed=trial
        )
        by_image = s.bootstrap_interval(
            confusions(truth, said, np.arange(len(truth)), 2), m.accuracy_of, n_resamples=400, seed=trial
        )
        covered += by_patient.low <= 0.7 <= by_patient.high
        naive_covered += by_image.low <= 0.7 <= by_image.high
    assert covered / trials >= 0.88  # 95 % nominal, percentile interval, 50 patients
    assert naive_covered / trials < 0.8  # images of one patient are not independent


def test_randomisation_holds_its_level_and_has_power() -> None:
    rng = np.random.default_rng(3)
    null, effect = [], []
    for trial in range(120):
        truth, a, clusters = simulated(rng, 40, 0.7)
        same = np.where(np.repeat(rng.random(40) < 0.7, 3), truth, 1 - truth)
        better = np.where(np.repeat(rng.random(40) < 0.97, 3), truth, 1 - truth)
        sums = confusions(truth, a, clusters, 2)
        for other, into in ((same, null), (better, effect)):
            p = s.randomisation_p(
                sums, confusions(truth, other, clusters, 2), m.macro_f1_of, n_shuffles=199, seed=trial
            )
            into.append(p)
    assert np.mean(np.array(null) <= 0.05) <= 0.12
    assert np.mean(np.array(effect) <= 0.05) >= 0.6


def test_randomisation_equals_the_exact_test_on_few_clusters() -> None:
    truth = np.array([0, 0, 1, 1, 0, 1, 1, 0])
    a = np.array([0, 0, 1, 1, 0, 1, 0, 0])
    b = np.array([1, 0, 0, 1, 1, 0, 1, 0])
    clusters = np.arange(8)
    sums_a, sums_b = confusions(truth, a, clusters, 2), confusions(truth, b, clusters, 2)
    observed = abs(m.macro_f1(truth, a, 2) - m.macro_f1(truth, b, 2))
    extreme = 0
    for bits in range(256):
        swap = (bits >> np.arange(8)) & 1 == 1
        x, y = np.where(swap, b, a), np.where(swap, a, b)
        extreme += abs(m.macro_f1(truth, x, 2) - m.macro_f1(truth, y, 2)) >= observed - 1e-12
    p = s.randomisation_p(sums_a, sums_b, m.macro_f1_of, n_shuffles=40_000)
    assert p == pytest.approx(extreme / 256, abs=0.012)


def test_equal_arms_do_not_differ() -> None:
    sums = confusions(*simulated(np.random.default_rng(4), 20, 0.6), 2)
    assert s.compare(sums, sums.copy(), m.macro_f1_of, n_resamples=100) == s.Comparison(0.0, 0.0, 0.0, 1.0)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_comparison_is_antisymmetric(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, a, b = rng.integers(0, 3, 30), rng.integers(-1, 3, 30), rng.integers(-1, 3, 30)
    clusters = rng.integers(0, 10, 30)
    sums_a, sums_b = confusions(truth, a, clusters, 3), confusions(truth, b, clusters, 3)
    one = s.compare(sums_a, sums_b, m.macro_f1_of, n_resamples=60, n_shuffles=99)
    other = s.compare(sums_b, sums_a, m.macro_f1_of, n_resamples=60, n_shuffles=99)
    assert one.difference == pytest.approx(-other.difference)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.p_value == pytest.approx(other.p_value)
    assert 0 < one.p_value <= 1
    assert one.low <= one.high


def test_compare_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="shape"):
        s.compare(np.zeros((3, 2, 3)), np.zeros((4, 2, 3)), m.accuracy_of)


def test_undefined_draws_are_left_out_and_all_undefined_is_nan() -> None:
    assert s.percentile_interval(0.5, np.array([np.nan, 0.4, 0.6])).low == pytest.approx(0.405)
    assert np.isnan(s.percentile_interval(0.5, np.array([np.nan])).low)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_mcnemar_equals_the_binomial_test(pairs: list[tuple[bool, bool]]) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    only_a = sum(x and not y for x, y in pairs)
    n = sum(x != y for x, y in pairs)
    expected = scipy_stats.binomtest(only_a, n, 0.5).pvalue if n else 1.0
    assert s.mcnemar_exact(a, b) == pytest.approx(expected)


def test_holm_by_hand() -> None:
    # Sorted .01, .02, .03, .5 → ×4, ×3, ×2, ×1, then made monotone.
    assert s.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert s.holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_order_and_only_raises(p_values: list[float]) -> None:
    adjusted = s.holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
