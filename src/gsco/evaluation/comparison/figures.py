"""The figures of one specialist or team, each ``{value, low, high}``."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.evaluation import metrics as m
from gsco.evaluation import statistics as s
from gsco.evaluation.metrics import Floats
from gsco.evaluation.summary import ArmAnswers, figures, rounded

METRICS: tuple[str, ...] = ("macro_f1", "accuracy", "balanced_accuracy", "auc", "ece", "brier", "nll")
LOWER_IS_BETTER: tuple[str, ...] = ("ece", "brier", "nll")


def judge(
    answers: ArmAnswers,
    keys: Sequence[str],
    *,
    ordinal: bool = False,
    n_resamples: int = s.RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, float | None]]:
    """All figures with 95 % intervals (bootstrap over patients).

    Args:
        answers: of one specialist.
        keys: option keys in order.
        ordinal: whether these are grades in ascending order.
        n_resamples, seed: of the bootstrap.

    Returns:
        By metric: `METRICS`, for grades ``quadratic_kappa``, and ``recall:<key>`` of each option. ECE has
        no interval (a resample's is biased upwards); a figure that cannot be had is None.
    """
    found = figures(answers, keys, n_resamples, seed)
    nothing = {"value": math.nan, "low": math.nan, "high": math.nan}
    out: dict[str, Any] = {name: found[name] or nothing for name in METRICS}

    def counted(statistic: s.Statistic) -> dict[str, float]:
        sums = answers.cluster_confusions
        return s.bootstrap_interval(sums, statistic, n_resamples=n_resamples, seed=seed)._asdict()

    if ordinal:
        out["quadratic_kappa"] = counted(m.quadratic_kappa_of)
    for i, key in enumerate(keys):

        def recall(confusions: Floats, i: int = i) -> Any:
            return m.recall_of(confusions)[..., i]

        out[f"recall:{key}"] = counted(recall)
    made: dict[str, dict[str, float | None]] = rounded(out)
    return made


def judge_labels(
    probabilities: Floats,
    truth: NDArray[np.int64],
    thresholds: Floats,
    clusters: Sequence[Hashable],
    keys: Sequence[str],
    *,
    n_resamples: int = s.RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, float | None]]:
    """The same where a case may have several labels, as `gsco.specialists.calibration.judge_labels` counts.

    Args:
        probabilities: (n, labels), each by itself.
        truth: 0/1, (n, labels).
        thresholds: (labels,); a label is said where its probability is above.
        clusters: n units of resampling.
        keys: labels in order.
        n_resamples, seed: of the bootstrap.

    Returns:
        `METRICS` and ``recall:<key>``. Accuracy, Brier and NLL (both of yes or no) are means over labels; so
        are, over labels that occur and are not everywhere, macro-F1, balanced accuracy, AUC and ECE (of the
        probability of yes against how often it is).
    """
    positions, n_clusters = s.cluster_positions(clusters)
    yes, said = truth > 0, probabilities > thresholds
    used = np.flatnonzero(yes.any(axis=0) & ~yes.all(axis=0))
    right = np.where(yes, probabilities, 1 - probabilities)
    # of each label: said and so, said and not so, not said though so, neither
    cells = np.stack([yes & said, ~yes & said, yes & ~said, ~yes & ~said], axis=-1).astype(np.float64)
    sums = s.per_cluster(cells, positions, n_clusters)

    def ratio(above: Any, below: Any, otherwise: float = np.nan) -> Any:
        return np.divide(above, below, out=np.full(np.shape(above), otherwise), where=below > 0)

    def recall(c: Floats) -> Any:
        return ratio(c[..., 0], c[..., 0] + c[..., 2])

    def over_used(values: Any) -> Any:
        known = values[..., used]
        return ratio(np.nansum(known, axis=-1), (~np.isnan(known)).sum(axis=-1).astype(np.float64))

    def balanced(c: Floats) -> Any:
        return over_used((recall(c) + ratio(c[..., 3], c[..., 3] + c[..., 1])) / 2)

    def f1(c: Floats) -> Any:
        return over_used(ratio(2 * c[..., 0], 2 * c[..., 0] + c[..., 1] + c[..., 2], 0.0))

    def accuracy(c: Floats) -> Any:
        return (c[..., 0] + c[..., 3]).sum(axis=-1) / c.sum(axis=(-2, -1))

    def counted(statistic: s.Statistic, of: Floats = sums) -> s.Interval:
        return s.bootstrap_interval(of, statistic, n_resamples=n_resamples, seed=seed)

    def mean_of(scores: Floats) -> s.Interval:
        pairs = np.stack([scores.mean(axis=1), np.ones(len(scores))], axis=1)
        return counted(lambda c: c[..., 0] / c[..., 1], s.per_cluster(pairs, positions, n_clusters))

    area = m.auc(truth, probabilities)
    weights = s.cluster_weights(n_clusters, n_resamples, seed)
    draws = np.concatenate([m.auc_of(truth, probabilities, w[:, positions]) for w in weights])
    gaps = [_binary_ece(yes[:, k], probabilities[:, k]) for k in used]
    found = {
        "macro_f1": counted(f1),
        "accuracy": counted(accuracy),
        "balanced_accuracy": counted(balanced),
        "auc": s.percentile_interval(area, draws),
        "ece": s.Interval(float(np.mean(gaps)) if gaps else math.nan, math.nan, math.nan),
        "brier": mean_of((probabilities - yes) ** 2),
        "nll": mean_of(-np.log(np.maximum(right, 1e-12))),
    }
    for k, key in enumerate(keys):

        def one(c: Floats, k: int = k) -> Any:
            return recall(c)[..., k]

        found[f"recall:{key}"] = counted(one)
    made: dict[str, dict[str, float | None]] = rounded(
        {name: interval._asdict() for name, interval in found.items()}
    )
    return made


def _binary_ece(yes: NDArray[np.bool_], score: Floats) -> float:
    """Mean gap between the stated probability of yes and how often it is, over 15 equal-width bins."""
    bins = np.minimum((score * m.ECE_BINS).astype(int), m.ECE_BINS - 1)
    gaps = np.bincount(bins, weights=score - yes, minlength=m.ECE_BINS)
    return float(np.abs(gaps).sum() / len(score))
