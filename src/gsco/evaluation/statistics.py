"""Intervals and tests that know that images of one patient are not independent.

- **Intervals**: percentile bootstrap over clusters (patients): clusters are drawn with replacement and all
  cases of a cluster go with it (Davison & Hinkley, *Bootstrap Methods*, 1997, ch. 2.4 and 3.8). A share of
  0 or 1 does not vary between resamples; its other limit is exact instead (`exact_at_ends`).
- **Paired comparison** of two arms on the same cases: the interval of the difference is the same bootstrap
  with the same draws for both arms; the p-value is a two-sided paired approximate randomisation test over
  clusters (Noreen 1989; Yeh, COLING 2000): in each shuffle every cluster's answers are swapped between the
  arms with probability ½, and p = (1 + shuffles at least as far from 0 as observed) / (1 + shuffles).
- **McNemar**, exact, for accuracy: the binomial test on discordant cases; it takes cases as independent.
- **Holm** for families of comparisons.

All of it is linear algebra on per-cluster counts: a resample is a vector of cluster weights, and the
confusion matrices of 2,000 resamples are one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import lru_cache
from math import comb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gsco.evaluation.metrics import Floats

LEVEL = 0.95
RESAMPLES = 2000
SHUFFLES = 10_000
_BLOCK = 250  # resamples held in memory at once
_MOST_KEPT = 8_000_000  # weights kept between calls (64 MB)
_STREAMS = {"bootstrap": 1, "randomisation": 2}

Statistic = Callable[[Floats], Any]


class Interval(NamedTuple):
    """A figure with its 95 % interval; `low` and `high` are nan where they cannot be had."""

    value: float
    low: float
    high: float


class Comparison(NamedTuple):
    """The difference a - b with its 95 % interval and two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def cluster_positions(clusters: Sequence[Hashable]) -> tuple[NDArray[np.int64], int]:
    """Number the clusters in order of first appearance: positions of shape (n,), and how many there are."""
    seen: dict[Hashable, int] = {}
    positions = np.fromiter(
        (seen.setdefault(c, len(seen)) for c in clusters), dtype=np.int64, count=len(clusters)
    )
    return positions, len(seen)


def per_cluster(contributions: ArrayLike, positions: NDArray[np.int64], n_clusters: int) -> Floats:
    """Sum what each case contributes within its cluster: (n, ...) → (n_clusters, ...)."""
    values = np.asarray(contributions, dtype=np.float64)
    out = np.zeros((n_clusters, *values.shape[1:]))
    np.add.at(out, positions, values)
    return out


def cluster_weights(n_clusters: int, n_resamples: int = RESAMPLES, seed: int = 0) -> Iterable[Floats]:
    """How often each cluster is drawn in each resample, in blocks of shape (≤ 250, n_clusters).

    The same arguments give the same draws, so that arms on the same cases are resampled together. Callers
    must not write to the blocks.
    """
    if n_clusters * n_resamples <= _MOST_KEPT:
        return _kept_weights(n_clusters, n_resamples, seed)
    return _drawn_weights(n_clusters, n_resamples, seed)


def _drawn_weights(n_clusters: int, n_resamples: int, seed: int) -> Iterator[Floats]:
    rng = np.random.default_rng([seed, _STREAMS["bootstrap"]])
    shares = np.full(n_clusters, 1.0 / n_clusters)
    for start in range(0, n_resamples, _BLOCK):
        yield rng.multinomial(n_clusters, shares, size=min(_BLOCK, n_resamples - start)).astype(np.float64)


@lru_cache(maxsize=2)
def _kept_weights(n_clusters: int, n_resamples: int, seed: int) -> tuple[Floats, ...]:
    return tuple(_drawn_weights(n_clusters, n_resamples, seed))


def _weighted(weights: Floats, sums: Floats) -> Floats:
    """(r, c) draws of per-cluster sums (c, ...) → sums of each resample (r, ...)."""
    flat = weights @ sums.reshape(len(sums), -1)
    return flat.reshape(len(weights), *sums.shape[1:])


def bootstrap_draws(
    sums: Floats, statistic: Statistic, *, n_resamples: int = RESAMPLES, seed: int = 0
) -> Floats:
    """The statistic of every resample.

    Args:
        sums: per-cluster sums, shape (n_clusters, ...), e.g. confusion matrices.
        statistic: maps summed resamples of shape (r, ...) to (r,).
        n_resamples: how many resamples.
        seed: the same seed gives the same draws.

    Returns:
        Shape (n_resamples,); nan where the statistic is undefined.
    """
    blocks = cluster_weights(len(sums), n_resamples, seed)
    return np.concatenate([np.asarray(statistic(_weighted(w, sums)), np.float64) for w in blocks])


def percentile_interval(value: float, draws: Floats, level: float = LEVEL) -> Interval:
    """Percentile interval of bootstrap draws; undefined draws (nan) are left out."""
    known = draws[~np.isnan(draws)]
    if len(known) == 0 or np.isnan(value):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def bootstrap_interval(
    sums: Floats, statistic: Statistic, *, n_resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Cluster bootstrap interval of any statistic of summed contributions (see `bootstrap_draws`)."""
    value = float(np.asarray(statistic(sums.sum(axis=0)[None]))[0])
    return percentile_interval(value, bootstrap_draws(sums, statistic, n_resamples=n_resamples, seed=seed))


def exact_at_ends(found: Interval, n: int, level: float = LEVEL) -> Interval:
    """The interval of a share, exact where the share is 0 or 1: n independent units that all agree.

    Every resample of such a share is the same, and the bootstrap would call it certain. The limit is that of
    Clopper and Pearson (Biometrika 1934): of 4 right answers of 4, [.40, 1].

    Args:
        found: a share with its bootstrap interval.
        n: clusters it is of; 0 leaves it as it is.
        level: of the interval.
    """
    if n == 0 or found.value not in (0.0, 1.0):
        return found
    all_agree = ((1 - level) / 2) ** (1 / n)
    return Interval(1.0, all_agree, 1.0) if found.value else Interval(0.0, 0.0, 1 - all_agree)


def randomisation_p(
    sums_a: Floats, sums_b: Floats, statistic: Statistic, *, n_shuffles: int = SHUFFLES, seed: int = 0
) -> float:
    """Two-sided paired approximate randomisation test over clusters.

    Args:
        sums_a, sums_b: per-cluster sums of both arms, shape (n_clusters, ...).
        statistic: maps summed samples of shape (r, ...) to (r,).
        n_shuffles: how many shuffles; the smallest p-value is 1 / (1 + n_shuffles).
        seed: the same seed gives the same shuffles.

    Returns:
        In (0, 1]; 1 where the arms' sums are equal in every cluster.
    """
    swap = (sums_a - sums_b).reshape(len(sums_a), -1)
    differs = np.any(swap != 0, axis=1)
    if not differs.any():
        return 1.0
    swap = swap[differs]
    total_a, total_b = sums_a.sum(axis=0), sums_b.sum(axis=0)
    observed = abs(_difference(total_a[None], total_b[None], statistic)[0])
    rng = np.random.default_rng([seed, _STREAMS["randomisation"]])
    extreme = 0
    for start in range(0, n_shuffles, 4 * _BLOCK):
        size = min(4 * _BLOCK, n_shuffles - start)
        moved = (rng.integers(0, 2, size=(size, len(swap))).astype(np.float64) @ swap).reshape(
            size, *total_a.shape
        )
        shuffled = np.abs(_difference(total_a - moved, total_b + moved, statistic))
        extreme += int(np.count_nonzero(shuffled >= observed - 1e-12))
    return (1 + extreme) / (1 + n_shuffles)


def _difference(a: Floats, b: Floats, statistic: Statistic) -> Floats:
    result: Floats = np.asarray(statistic(a), np.float64) - np.asarray(statistic(b), np.float64)
    return result


def compare(
    sums_a: Floats,
    sums_b: Floats,
    statistic: Statistic,
    *,
    n_resamples: int = RESAMPLES,
    n_shuffles: int = SHUFFLES,
    seed: int = 0,
) -> Comparison:
    """Compare two arms on the same clusters: difference, bootstrap interval, randomisation p-value.

    The interval and the p-value come from different procedures and may disagree near the border.

    Raises:
        ValueError: the arms do not have the same shape.
    """
    if sums_a.shape != sums_b.shape:
        raise ValueError(f"arms differ in shape: {sums_a.shape} and {sums_b.shape}")
    difference = float(_difference(sums_a.sum(axis=0)[None], sums_b.sum(axis=0)[None], statistic)[0])
    draws = bootstrap_draws(sums_a, statistic, n_resamples=n_resamples, seed=seed) - bootstrap_draws(
        sums_b, statistic, n_resamples=n_resamples, seed=seed
    )
    interval = percentile_interval(difference, draws)
    p_value = randomisation_p(sums_a, sums_b, statistic, n_shuffles=n_shuffles, seed=seed)
    return Comparison(difference, interval.low, interval.high, p_value)


def mcnemar_exact(right_a: ArrayLike, right_b: ArrayLike) -> float:
    """Exact two-sided McNemar test on paired rightness, shape (n,) each; 1 without discordant cases.

    Equals ``scipy.stats.binomtest(only_a, only_a + only_b, 0.5).pvalue``.
    """
    a, b = np.asarray(right_a, bool), np.asarray(right_b, bool)
    only_a, only_b = int(np.count_nonzero(a & ~b)), int(np.count_nonzero(b & ~a))
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(comb(n, k) for k in range(fewer + 1))
    return float(min(1.0, 2 * tail / 2**n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (1979), in the order given; the family is all that are passed."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted
