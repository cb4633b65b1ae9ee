"""Temperature scaling, and the figures by which a specialist is judged on validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_GOLDEN = (5**0.5 - 1) / 2


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Logits (..., options) to probabilities that sum to 1 over the options, in float64."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(scaled / scaled.sum(axis=-1, keepdims=True))


def sigmoid(
    logits: NDArray[np.floating], temperature: float | NDArray[np.float64] = 1.0
) -> NDArray[np.float64]:
    """Logits (..., labels) to a probability of each label by itself, in float64."""
    return np.asarray(0.5 * (1 + np.tanh(np.asarray(logits, dtype=np.float64) / temperature / 2)))


def as_probabilities(logits: NDArray[np.floating], *, multi_label: bool) -> NDArray[np.float64]:
    """Uncalibrated probabilities: of one option among all, or of each label by itself."""
    return sigmoid(logits) if multi_label else softmax(logits)


def log_loss(probabilities: NDArray[np.float64], targets: Sequence[int] | NDArray[np.int64]) -> float:
    """Mean negative log-likelihood in nats; probabilities are held above 1e-12.

    Args:
        probabilities: (N, options).
        targets: N option positions, or 0/1 by label, (N, options): then the mean over labels, too.
    """
    if np.ndim(targets) == 2:
        right = np.where(np.asarray(targets) > 0, probabilities, 1 - probabilities)
        return float(-np.log(np.maximum(right, 1e-12)).mean())
    rows = np.arange(len(targets))
    picked = np.maximum(probabilities[rows, np.asarray(targets)], 1e-12)
    return float(-np.log(picked).mean())


def fit_temperature(
    logits: NDArray[np.floating],
    targets: Sequence[int] | NDArray[np.int64],
    *,
    spread: float = 0.5,
    low: float = 0.1,
    high: float = 10.0,
) -> float:
    """The temperature by which logits are divided (Guo et al., 2017), with a prior.

    Dividing all logits by one number never changes which option is the most probable. Plain maximum
    likelihood sends T to 0 where a small validation set happens to be answered without a mistake, and
    the specialist would then never doubt again; so log T has a normal prior around 0, worth less the
    more cases there are. A golden-section search over log T finds the minimum.

    Args:
        logits: (N, options).
        targets: N option positions.
        spread: standard deviation of log T in the prior; infinite for maximum likelihood.
        low / high: bounds of the search.

    Returns:
        The temperature; 1.0 where there is nothing to fit it on.
    """
    if len(targets) == 0:
        return 1.0

    def loss(log_t: float) -> float:
        prior = (log_t / spread) ** 2 / 2 / len(targets)
        return log_loss(softmax(logits, float(np.exp(log_t))), targets) + prior

    left, right = float(np.log(low)), float(np.log(high))
    inner_left, inner_right = right - _GOLDEN * (right - left), left + _GOLDEN * (right - left)
    at_left, at_right = loss(inner_left), loss(inner_right)
    for _ in range(40):
        if at_left <= at_right:
            right, inner_right, at_right = inner_right, inner_left, at_left
            inner_left = right - _GOLDEN * (right - left)
            at_left = loss(inner_left)
        else:
            left, inner_left, at_left = inner_left, inner_right, at_right
            inner_right = left + _GOLDEN * (right - left)
            at_right = loss(inner_right)
    return float(np.exp((left + right) / 2))


def class_weights(
    targets: Sequence[int] | NDArray[np.int64], n_options: int, power: float = 0.5
) -> NDArray[np.float64]:
    """Weight of each class for a loss: (n / (classes x count)) ** power, 0 for a class without cases.

    A power of 1 makes all classes count the same, 0 makes all cases count the same. The square root in
    between is the default: on small, skewed sets it loses little likelihood and finds the rare classes.
    """
    counts = np.bincount(np.asarray(targets), minlength=n_options).astype(np.float64)
    present = counts > 0
    weights = np.zeros(n_options)
    weights[present] = (counts.sum() / (present.sum() * counts[present])) ** power
    return weights


def class_reliability(
    probabilities: NDArray[np.float64], targets: Sequence[int] | NDArray[np.int64], *, prior: float = 2.0
) -> tuple[float, ...]:
    """How often an answer is right, for each option that may be answered: precision, drawn to the overall.

    ``(right + prior · overall) / (said + prior)``, where `overall` is the share of right answers over all
    options, ``(right + 1) / (n + 2)``. An option that was said twice, both times rightly, is thus not
    certain, and one that was never said has the overall share.

    Args:
        probabilities: (N, options).
        targets: N option positions.
        prior: how many cases the overall share counts for.
    """
    truth, choice = np.asarray(targets), np.asarray(probabilities).argmax(axis=1)
    n_options = np.asarray(probabilities).shape[1]
    said = np.bincount(choice, minlength=n_options)
    right = np.bincount(choice[choice == truth], minlength=n_options)
    overall = (right.sum() + 1) / (len(truth) + 2)
    return tuple(((right + prior * overall) / (said + prior)).tolist())


def judge(
    probabilities: NDArray[np.float64], targets: Sequence[int] | NDArray[np.int64], *, ordinal: bool = False
) -> dict[str, float]:
    """Figures of one specialist on labelled cases.

    Args:
        probabilities: (N, options).
        targets: N option positions, or 0/1 by label, (N, options); then see `judge_labels`.
        ordinal: whether the options are grades in ascending order.

    Returns:
        ``n``, ``accuracy``, ``balanced_accuracy`` (mean recall of the classes that occur), ``macro_f1``
        (over classes that occur, as in ``gsco.evaluation.metrics``), ``auc`` (one against rest, mean over
        classes that occur and are not all; nan where there is none), ``log_loss``; for grades also
        ``quadratic_kappa`` (Cohen, 1968: agreement beyond chance, a miss weighed by the square of its
        grades).
    """
    from sklearn.metrics import cohen_kappa_score, f1_score, roc_auc_score

    truth = np.asarray(targets)
    if truth.ndim == 2:
        return judge_labels(probabilities, truth, np.full(truth.shape[1], 0.5))
    choice = probabilities.argmax(axis=1)
    present = np.unique(truth)
    recalls = [float((choice[truth == c] == c).mean()) for c in present]
    areas = [
        float(roc_auc_score(truth == c, probabilities[:, c]))
        for c in present
        if 0 < (truth == c).sum() < len(truth)
    ]
    figures = {
        "n": float(len(truth)),
        "accuracy": float((choice == truth).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "macro_f1": float(f1_score(truth, choice, labels=present, average="macro", zero_division=0)),
        "auc": float(np.mean(areas)) if areas else float("nan"),
        "log_loss": log_loss(probabilities, truth),
    }
    if ordinal:
        grades = list(range(probabilities.shape[1]))
        several = len(np.unique(np.concatenate([truth, choice]))) > 1  # of one grade only, there is no chance
        kappa = cohen_kappa_score(truth, choice, labels=grades, weights="quadratic") if several else 1.0
        figures["quadratic_kappa"] = float(kappa)
    return figures


def judge_labels(
    probabilities: NDArray[np.float64], targets: NDArray[np.int64], thresholds: NDArray[np.float64]
) -> dict[str, float]:
    """Figures where a case may have several labels.

    Args:
        probabilities: (N, labels).
        targets: 0/1, (N, labels).
        thresholds: (labels,); a label is said where its probability is above.

    Returns:
        ``n``; ``accuracy`` (mean over labels, as medmnist's getACC), ``balanced_accuracy``, ``macro_f1`` and
        ``auc`` (means over labels that occur and are not everywhere; nan where there is none); ``log_loss``.
    """
    from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

    said = probabilities > thresholds
    used = [k for k in range(targets.shape[1]) if 0 < targets[:, k].sum() < len(targets)]

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) if values else float("nan")

    return {
        "n": float(len(targets)),
        "accuracy": float((said == (targets > 0)).mean()),
        "balanced_accuracy": mean([balanced_accuracy_score(targets[:, k], said[:, k]) for k in used]),
        "macro_f1": mean([f1_score(targets[:, k], said[:, k], zero_division=0) for k in used]),
        "auc": mean([roc_auc_score(targets[:, k], probabilities[:, k]) for k in used]),
        "log_loss": log_loss(probabilities, targets),
    }


LABELS_TRUSTED_HALF = 20.0
"""Positive validation cases at which the labels count for a threshold as much as the probabilities do."""


def fit_thresholds(
    probabilities: NDArray[np.float64],
    targets: NDArray[np.int64],
    *,
    trusted_half: float = LABELS_TRUSTED_HALF,
) -> NDArray[np.float64]:
    """The threshold of each label with the highest expected F1, shape (labels,).

    Where labels are rare, the F1 of few cases is a jagged thing, and its highest point is luck. Calibrated
    probabilities say without that noise how many of those above a threshold are so (Lipton et al., 2014). So
    each case counts as positive by ``w · label + (1 - w) · probability``, ``w = n / (n + 20)`` for n positive
    cases: few labels leave the word to the probabilities, many take it. Of all thresholds within one percent
    of the best, the one nearest to .5 is taken. A label of which not half a case is expected, or that is
    everywhere, keeps .5.

    Chosen on out-of-fold training cases of a set of chest X-rays with 13 findings, for three specialists and
    80 to 280 cases to fit on; `benchmarks/thresholds.py` prints the table.

    Args:
        probabilities: (N, labels), calibrated, on validation.
        targets: 0/1, (N, labels).
        trusted_half: the 20 above; 0 trusts the labels alone, infinity the probabilities alone.
    """
    out = np.full(targets.shape[1], 0.5)
    for k in range(targets.shape[1]):
        score, n = probabilities[:, k], targets[:, k].sum()
        weight = n / max(n + trusted_half, 1.0)
        expected = weight * targets[:, k] + (1 - weight) * score
        if n == len(score) or expected.sum() < 0.5:
            continue
        levels = np.unique(score)
        tried = np.concatenate([[0.5, levels[0] / 2], (levels[1:] + levels[:-1]) / 2])
        said = score[None, :] > tried[:, None]
        f1 = 2 * (said @ expected) / (said.sum(axis=1) + expected.sum())
        good = tried[f1 >= 0.99 * f1.max()]
        out[k] = good[np.abs(good - 0.5).argmin()]
    return out
