"""Figures of merit for closed questions, each equal to a library that defines it.

Predictions and references are option positions; a prediction of `UNPARSED` (-1) is an answer that could not
be read. It is wrong: a missed case of its true class, and a false alarm of none.

Everything that can be counted is computed from confusion matrices of shape (..., K, K + 1), whose last column
holds the unparsed, so that the bootstrap (`gsco.evaluation.statistics`) evaluates all resamples at once.

Classes that do not occur in the reference are left out of every mean over classes (balanced accuracy,
macro-F1, AUC): the set of classes averaged depends on the cases alone and is the same for all arms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
UNPARSED = -1
ECE_BINS = 15
_TINY = 1e-12
_MOST_PAIRS = 200_000  # above, ranks are quicker than all pairs


def confusion_matrix(reference: ArrayLike, prediction: ArrayLike, n_options: int) -> NDArray[np.int64]:
    """Counts of reference (rows) by prediction (columns).

    Args:
        reference: option positions, shape (n,), in [0, n_options).
        prediction: option positions or `UNPARSED`, shape (n,).
        n_options: number of options K.

    Returns:
        Shape (K, K + 1); the last column counts unparsed answers.

    Raises:
        ValueError: lengths differ, or a position is out of range.
    """
    truth, said = _positions(reference, n_options), _positions(prediction, n_options, unparsed=True)
    if len(truth) != len(said):
        raise ValueError(f"{len(truth)} references but {len(said)} predictions")
    said = np.where(said == UNPARSED, n_options, said)
    cells = np.bincount(truth * (n_options + 1) + said, minlength=n_options * (n_options + 1))
    return cells.reshape(n_options, n_options + 1).astype(np.int64)


def _positions(values: ArrayLike, n_options: int, *, unparsed: bool = False) -> NDArray[np.int64]:
    array = np.asarray(values, dtype=np.int64).reshape(-1)
    low = UNPARSED if unparsed else 0
    if array.size and (array.min() < low or array.max() >= n_options):
        raise ValueError(
            f"option positions must lie in [{low}, {n_options}), got {array.min()}..{array.max()}"
        )
    return array


# ---- from confusion matrices, shape (..., K, K + 1) or (..., K, K) -------------------------------


def accuracy_of(confusion: ArrayLike) -> Any:
    """Share of right answers, shape (...); nan for an empty matrix."""
    c = np.asarray(confusion, dtype=np.float64)
    return _ratio(np.trace(c, axis1=-2, axis2=-1), c.sum(axis=(-2, -1)))


def recall_of(confusion: ArrayLike) -> Any:
    """Recall of each class, shape (..., K); nan where the class does not occur in the reference."""
    c = np.asarray(confusion, dtype=np.float64)
    return _ratio(np.diagonal(c, axis1=-2, axis2=-1), c.sum(axis=-1))


def precision_of(confusion: ArrayLike) -> Any:
    """Precision of each class, shape (..., K); nan where the class is never predicted."""
    c = np.asarray(confusion, dtype=np.float64)
    return _ratio(np.diagonal(c, axis1=-2, axis2=-1), c.sum(axis=-2)[..., : c.shape[-2]])


def f1_of(confusion: ArrayLike) -> Any:
    """F1 of each class, 2·TP / (2·TP + FP + FN), shape (..., K); nan where neither true nor predicted."""
    c = np.asarray(confusion, dtype=np.float64)
    right = np.diagonal(c, axis1=-2, axis2=-1)
    return _ratio(2 * right, c.sum(axis=-1) + c.sum(axis=-2)[..., : c.shape[-2]])


def balanced_accuracy_of(confusion: ArrayLike) -> Any:
    """Mean recall over the classes that occur in the reference, shape (...)."""
    c = np.asarray(confusion, dtype=np.float64)
    return _mean_over(recall_of(c), c.sum(axis=-1) > 0)


def macro_f1_of(confusion: ArrayLike) -> Any:
    """Mean F1 over the classes that occur in the reference, shape (...)."""
    c = np.asarray(confusion, dtype=np.float64)
    return _mean_over(f1_of(c), c.sum(axis=-1) > 0)


def quadratic_kappa_of(confusion: ArrayLike) -> Any:
    """Agreement of grades beyond chance, a miss weighed by its squared distance, shape (...) (Cohen, 1968).

    An unparsed answer counts as the grade that is farthest from the reference. nan where reference and
    answers are all one grade. Equals ``sklearn.metrics.cohen_kappa_score(weights="quadratic")``.
    """
    c = np.asarray(confusion, dtype=np.float64)
    k = c.shape[-2]
    far = np.where(np.arange(k) < k / 2, k - 1, 0)
    grades = c[..., :k].copy()
    if c.shape[-1] > k:
        grades[..., np.arange(k), far] += c[..., k]
    miss = (np.arange(k)[:, None] - np.arange(k)[None, :]) ** 2
    expected = grades.sum(axis=-1)[..., :, None] * grades.sum(axis=-2)[..., None, :]
    by_chance = _ratio((miss * expected).sum(axis=(-2, -1)), grades.sum(axis=(-2, -1)))
    return 1 - _ratio((miss * grades).sum(axis=(-2, -1)), by_chance)


def _ratio(above: ArrayLike, below: ArrayLike) -> Any:
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)


def _mean_over(values: Floats, mask: NDArray[np.bool_]) -> Any:
    return _ratio(np.where(mask, values, 0.0).sum(axis=-1), mask.sum(axis=-1))


# ---- from answers --------------------------------------------------------------------------------


def accuracy(reference: ArrayLike, prediction: ArrayLike, n_options: int) -> float:
    """Share of right answers in [0, 1]; unparsed is wrong. Equals ``sklearn.metrics.accuracy_score``."""
    return float(accuracy_of(confusion_matrix(reference, prediction, n_options)))


def balanced_accuracy(reference: ArrayLike, prediction: ArrayLike, n_options: int) -> float:
    """Mean recall over occurring classes. Equals ``sklearn.metrics.balanced_accuracy_score``."""
    return float(balanced_accuracy_of(confusion_matrix(reference, prediction, n_options)))


def macro_f1(reference: ArrayLike, prediction: ArrayLike, n_options: int) -> float:
    """Mean F1 over occurring classes.

    Equals ``sklearn.metrics.f1_score(average="macro", zero_division=0, labels=<classes in the reference>)``,
    which is its default where every predicted class also occurs.
    """
    return float(macro_f1_of(confusion_matrix(reference, prediction, n_options)))


# ---- from probabilities --------------------------------------------------------------------------


def binary_auc(positive: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve with ties counted one half, in [0, 1]; nan unless both classes occur.

    Args:
        positive: truth values, shape (n,).
        score: higher is more positive, shape (n,).
    """
    weights = np.ones((1, np.size(score)))
    return float(
        binary_auc_of(
            np.asarray(positive, bool).reshape(-1), np.asarray(score, np.float64).reshape(-1), weights
        )[0]
    )


def binary_auc_of(positive: NDArray[np.bool_], score: Floats, weights: Floats) -> Floats:
    """`binary_auc` of many weighted samples at once.

    Args:
        positive: shape (n,).
        score: shape (n,).
        weights: how often each case stands in each sample, shape (r, n).

    Returns:
        Shape (r,); nan where a sample lacks one of the classes.
    """
    if not positive.any() or positive.all():
        return np.full(len(weights), np.nan)
    up, down = weights[:, positive], weights[:, ~positive]
    pairs = up.shape[1] * down.shape[1]
    if pairs <= _MOST_PAIRS:  # Mann-Whitney: every positive against every negative
        high, low = score[positive][:, None], score[~positive][None, :]
        wins = (high > low) + 0.5 * (high == low)
        won = ((up @ wins) * down).sum(axis=1)
    else:  # the same by ranks: negatives strictly below each positive, and half of the tied
        order = np.argsort(score, kind="stable")
        starts = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) != 0]))
        above = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
        below = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
        won = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
    result: Floats = _ratio(won, up.sum(axis=1) * down.sum(axis=1))
    return result


def auc(reference: ArrayLike, probabilities: ArrayLike) -> float:
    """Area under the ROC curve as in ``medmnist.evaluator.getAUC``.

    Two options: the score of option 1. More: the mean over options of one-vs-rest. A reference of shape
    (n, K) of zeros and ones is multi-label: the mean over labels. Options without a positive or without a
    negative case have no AUC and are left out (medmnist fails there).

    Args:
        reference: option positions, shape (n,), or multi-label truth, shape (n, K).
        probabilities: shape (n, K).

    Returns:
        In [0, 1], or nan where no option has an AUC.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(reference)
    return float(auc_of(truth, p, np.ones((1, len(p))))[0])


def auc_of(reference: NDArray[Any], probabilities: Floats, weights: Floats) -> Floats:
    """`auc` of many weighted samples at once: weights (r, n) → (r,)."""
    n_options = probabilities.shape[1]
    if reference.ndim == 2:
        columns = [(reference[:, k] > 0, probabilities[:, k]) for k in range(n_options)]
    elif n_options == 2:
        columns = [(reference == 1, probabilities[:, 1])]
    else:
        columns = [(reference == k, probabilities[:, k]) for k in range(n_options)]
    areas = np.stack([binary_auc_of(positive, score, weights) for positive, score in columns], axis=1)
    known = ~np.isnan(areas)
    result: Floats = _mean_over(np.where(known, areas, 0.0), known)
    return result


def average_precision_of(positive: NDArray[np.bool_], score: Floats, weights: Floats) -> Floats:
    """Mean precision at the ranks of the positive cases, of many weighted samples at once.

    Equals ``sklearn.metrics.average_precision_score``; cases of one score stand at one rank.

    Args:
        positive: shape (n,).
        score: shape (n,).
        weights: how often each case stands in each sample, shape (r, n).

    Returns:
        Shape (r,); nan where a sample has no positive case.
    """
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) != 0]))
    found = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    precision = _ratio(
        found.cumsum(axis=1), np.add.reduceat(weights[:, order], starts, axis=1).cumsum(axis=1)
    )
    result: Floats = _ratio((found * np.nan_to_num(precision)).sum(axis=1), found.sum(axis=1))
    return result


def ece_cells(reference: ArrayLike, probabilities: ArrayLike, n_bins: int = ECE_BINS) -> Floats:
    """What each case adds to each confidence bin: (count, confidence, rightness), shape (n, n_bins, 3).

    Bins are of equal width, closed on the right: ((b - 1) / n_bins, b / n_bins].
    """
    p = np.asarray(probabilities, dtype=np.float64)
    confidence = p.max(axis=1)
    right = p.argmax(axis=1) == _positions(reference, p.shape[1])
    bins = np.clip(np.ceil(confidence * n_bins - 1e-9).astype(int) - 1, 0, n_bins - 1)
    cells = np.zeros((len(p), n_bins, 3))
    cells[np.arange(len(p)), bins] = np.stack([np.ones(len(p)), confidence, right], axis=1)
    return cells


def ece_of(cells: Floats) -> Any:
    """Expected calibration error from summed `ece_cells`, shape (..., n_bins, 3) → (...)."""
    gaps = np.abs(cells[..., 1] - cells[..., 2])
    return _ratio(gaps.sum(axis=-1), cells[..., 0].sum(axis=-1))


def ece(reference: ArrayLike, probabilities: ArrayLike, n_bins: int = ECE_BINS) -> float:
    """Expected calibration error of the top label, in [0, 1] (Guo et al., ICML 2017).

    Confidence is the largest probability, rightness whether its option is the reference (whatever the parsed
    answer was); 15 equal-width bins; the mean over bins of |confidence - accuracy|, weighted by count.
    """
    return float(ece_of(ece_cells(reference, probabilities, n_bins).sum(axis=0)))


def brier_scores(reference: ArrayLike, probabilities: ArrayLike) -> Floats:
    """Per case, the sum over options of (p - y)², in [0, 2], shape (n,)."""
    p = np.asarray(probabilities, dtype=np.float64)
    truth = np.eye(p.shape[1])[_positions(reference, p.shape[1])]
    scores: Floats = ((p - truth) ** 2).sum(axis=1)
    return scores


def brier(reference: ArrayLike, probabilities: ArrayLike) -> float:
    """Brier score in its original multi-class form (mean over cases of the sum over options), in [0, 2].

    For two options it is twice ``sklearn.metrics.brier_score_loss`` of the positive class.
    """
    return float(brier_scores(reference, probabilities).mean())


def nll_scores(reference: ArrayLike, probabilities: ArrayLike) -> Floats:
    """Per case, minus the natural log of the reference's probability, clipped at 1e-12, shape (n,)."""
    p = np.asarray(probabilities, dtype=np.float64)
    chosen = p[np.arange(len(p)), _positions(reference, p.shape[1])]
    scores: Floats = -np.log(np.clip(chosen, _TINY, 1.0))
    return scores


def nll(reference: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean negative log-likelihood in nats. Equals ``sklearn.metrics.log_loss`` up to its clipping."""
    return float(nll_scores(reference, probabilities).mean())
