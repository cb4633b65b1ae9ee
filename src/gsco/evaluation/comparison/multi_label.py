"""Answers to cases that may have several labels or none, and their figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.evaluation import metrics as m
from gsco.evaluation import statistics as s
from gsco.evaluation.metrics import Floats
from gsco.evaluation.summary import rounded

BY_LABEL: tuple[str, ...] = ("recall", "precision", "auc", "ap", "ece", "brier")
"""Figures of each label, named ``recall:<key>`` and so on."""


@dataclass(frozen=True)
class LabelAnswers:
    """What one specialist says of each label of n cases.

    Attributes:
        name: who answered.
        clusters: unit of resampling of each case.
        truth: shape (n, labels).
        probabilities: of each label by itself, shape (n, labels).
        thresholds: shape (labels,); a label is said where its probability is above.
    """

    name: str
    clusters: tuple[str, ...]
    truth: NDArray[np.bool_]
    probabilities: Floats
    thresholds: Floats

    @cached_property
    def prediction(self) -> NDArray[np.bool_]:
        """Which labels are said, shape (n, labels)."""
        return self.probabilities > self.thresholds

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Which labels are rightly said or left unsaid, shape (n, labels)."""
        return np.equal(self.prediction, self.truth)

    @cached_property
    def cluster_positions(self) -> tuple[NDArray[np.int64], int]:
        """Cluster number of each case, and how many clusters there are."""
        return s.cluster_positions(self.clusters)

    @cached_property
    def cluster_cells(self) -> Floats:
        """Of each cluster and label: said and so, said and not so, not said though so, neither;
        shape (n_clusters, labels, 4).
        """
        said, so = self.prediction, self.truth
        cells = np.stack([so & said, ~so & said, so & ~said, ~so & ~said], axis=-1)
        return s.per_cluster(cells, *self.cluster_positions)

    @cached_property
    def bins(self) -> Floats:
        """Count, summed probability and how often it is so, by bin: shape (labels, bins, 3)."""
        n, k = self.truth.shape
        bins = np.minimum((self.probabilities * m.ECE_BINS).astype(int), m.ECE_BINS - 1)
        out = np.zeros((k, m.ECE_BINS, 3))
        parts = np.stack([np.ones((n, k)), self.probabilities, self.truth], axis=-1)
        np.add.at(out, (np.arange(k)[None, :], bins), parts)
        return out


def label_f1(cells: Floats) -> Any:
    """Mean F1, from summed cells (..., labels, 4), over labels that some cases have and others do not."""
    said_so, said, so = cells[..., 0], cells[..., 0] + cells[..., 1], cells[..., 0] + cells[..., 2]
    return _over_labels(2 * _ratio(said_so, said + so), cells)


def judge_labels(
    answers: LabelAnswers, keys: Sequence[str], *, n_resamples: int = s.RESAMPLES, seed: int = 0
) -> dict[str, dict[str, float | None]]:
    """All figures with 95 % intervals, counted as `gsco.specialists.calibration.judge_labels` counts them.

    Args:
        answers: of one specialist.
        keys: labels in order.
        n_resamples, seed: of the bootstrap.

    Returns:
        By metric: those of `gsco.evaluation.comparison.figures.METRICS`, ``map`` (mean average precision)
        and `BY_LABEL`. Accuracy, Brier (0 to 1) and NLL, all of yes or no, are means over labels; so are
        the others, over labels that some cases have and others do not. ECE is that of the probability of
        yes against how often it is so, and has no interval.
    """
    p, yes = answers.probabilities, answers.truth
    positions, n_clusters = answers.cluster_positions
    drawn: dict[str, Any] = {"n_resamples": n_resamples, "seed": seed}

    def counted(statistic: s.Statistic, cells: Floats = answers.cluster_cells) -> s.Interval:
        return s.bootstrap_interval(cells, statistic, **drawn)

    def mean_of(scores: Floats) -> s.Interval:
        sums = s.per_cluster(np.stack([scores, np.ones_like(scores)], axis=1), positions, n_clusters)
        return s.bootstrap_interval(sums, lambda c: c[..., 0] / c[..., 1], **drawn)

    def ranked(area: Callable[[NDArray[np.bool_], Floats, Floats], Floats]) -> list[s.Interval]:
        """The mean over labels, then each label."""
        whole = np.ones((1, len(p)))
        blocks = [w[:, positions] for w in s.cluster_weights(n_clusters, n_resamples, seed)]
        every = [[area(yes[:, k], p[:, k], w) for k in range(len(keys))] for w in (whole, *blocks)]
        table = np.concatenate([np.stack(columns, axis=1) for columns in every])
        table[:, ~(yes.any(axis=0) & ~yes.all(axis=0))] = np.nan
        known = ~np.isnan(table)
        mean = _ratio(np.where(known, table, 0).sum(axis=1), known.sum(axis=1))
        return [s.percentile_interval(float(x[0]), x[1:]) for x in (mean, *table.T)]

    brier = (p - yes) ** 2
    surprise = -np.log(np.maximum(np.where(yes, p, 1 - p), 1e-12))
    gaps = np.abs(answers.bins[..., 1] - answers.bins[..., 2]).sum(axis=1) / len(p)
    used = yes.any(axis=0) & ~yes.all(axis=0)
    areas, precisions = ranked(m.binary_auc_of), ranked(m.average_precision_of)
    found = {
        "macro_f1": counted(label_f1),
        "accuracy": s.exact_at_ends(counted(_accuracy), n_clusters),
        "balanced_accuracy": counted(_balanced),
        "auc": areas[0],
        "map": precisions[0],
        "ece": _value(gaps[used].mean() if used.any() else math.nan),
        "brier": mean_of(brier.mean(axis=1)),
        "nll": mean_of(surprise.mean(axis=1)),
    }
    for k, key in enumerate(keys):
        cells = answers.cluster_cells[:, k]
        of_label = (
            s.exact_at_ends(counted(_recall, cells), int(np.count_nonzero(cells[:, 0] + cells[:, 2]))),
            s.exact_at_ends(counted(_precision, cells), int(np.count_nonzero(cells[:, 0] + cells[:, 1]))),
            areas[k + 1],
            precisions[k + 1],
            _value(gaps[k]),
            mean_of(brier[:, k]),
        )
        found |= {f"{name}:{key}": figure for name, figure in zip(BY_LABEL, of_label, strict=True)}
    made: dict[str, dict[str, float | None]] = rounded({name: each._asdict() for name, each in found.items()})
    return made


def _accuracy(cells: Floats) -> Any:
    return (cells[..., 0] + cells[..., 3]).sum(axis=-1) / cells.sum(axis=(-2, -1))


def _recall(cells: Floats) -> Any:
    return _ratio(cells[..., 0], cells[..., 0] + cells[..., 2])


def _precision(cells: Floats) -> Any:
    return _ratio(cells[..., 0], cells[..., 0] + cells[..., 1])


def _balanced(cells: Floats) -> Any:
    passed = _ratio(cells[..., 3], cells[..., 3] + cells[..., 1])
    return _over_labels((_recall(cells) + passed) / 2, cells)


def _over_labels(values: Any, cells: Floats) -> Any:
    used = (cells[..., 0] + cells[..., 2] > 0) & (cells[..., 1] + cells[..., 3] > 0)
    return _ratio(np.where(used, values, 0).sum(axis=-1), used.sum(axis=-1))


def _ratio(above: Any, below: Any) -> Any:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) > 0)


def _value(value: float) -> s.Interval:
    return s.Interval(float(value), math.nan, math.nan)
