"""Multinomial logistic regression on frozen features."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gsco.cases import units_of
from gsco.errors import DatasetError
from gsco.specialists.calibration import class_weights, log_loss, softmax
from gsco.specialists.folds import grouped_folds
from gsco.specialists.heads import FeatureSpecialist, images_of, standardise
from gsco.specialists.trained import Fields, Tensors, TrainedSpecialist, TrainingJob

GRID = (3e-3, 1e-2, 3e-2, 1e-1)
"""Inverse penalties that are tried in this order, on standardised features, while the loss still falls."""

_AT_MOST = 1500  # cases that the choice of the penalty looks at
_ABSENT = -10.0  # logit of an option without training cases, below the mean of the others


class LinearProbe(FeatureSpecialist):
    """Standardised features, L2-penalised multinomial logistic regression.

    Classes are weighted by the inverse square root of their frequency; the penalty with the least
    cross-validated log loss on *training* cases is taken (grouped folds), which leaves validation to
    calibration.
    """

    kind: ClassVar[str] = "linear"

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.mean = np.zeros(0, dtype=np.float32)
        self.inverse = np.zeros(0, dtype=np.float32)
        self.weight = np.zeros((len(self.options), 0))
        self.bias = np.zeros(len(self.options))

    def fit(self, job: TrainingJob) -> LinearProbe:
        """Learn from the job's training cases, calibrate on its validation cases."""
        features = self.embed(images_of([*job.train, *job.val]), job)[: len(job.train)]
        targets = job.train_targets
        self.mean, self.inverse = standardise(features)
        scaled = (features - self.mean) * self.inverse
        units = units_of(job.train)
        if job.multi_label:
            self.weight, self.bias, self.details["C"] = fit_labels(scaled, targets, units, job.seed)
        else:
            penalty = choose_penalty(scaled, targets, units, len(self.options), job.seed)
            self.weight, self.bias = fit_logistic(scaled, targets, len(self.options), penalty)
            self.details["C"] = penalty
        self.calibrate(job)
        return self

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Features (N, D) to logits (N, options)."""
        scaled = ((features - self.mean) * self.inverse).astype(np.float64)
        # one row at a time, so that no number depends on which images are asked about together
        return np.stack([self.weight @ row + self.bias for row in scaled])

    def _tensors(self) -> dict[str, NDArray[Any]]:
        return {"mean": self.mean, "inverse": self.inverse, "weight": self.weight, "bias": self.bias}

    @classmethod
    def _restore(
        cls, base: Fields, config: Fields, tensors: Tensors, cache: Path | None
    ) -> TrainedSpecialist:
        made = cls(**cls._arguments(base, config, cache))
        made.mean, made.inverse = tensors["mean"], tensors["inverse"]
        made.weight, made.bias = tensors["weight"], tensors["bias"]
        return made


def fit_logistic(
    features: NDArray[np.floating], targets: NDArray[np.int64], n_options: int, penalty: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (options, D) and biases (options,) of a class-weighted logistic regression.

    Raises:
        DatasetError: all cases have one label.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    present = np.unique(targets)
    if len(present) < 2:
        raise DatasetError(
            "all training cases have the same label", remedy="Give training cases of at least two options."
        )
    model = LogisticRegression(C=penalty, max_iter=300, tol=1e-3)
    with warnings.catch_warnings():  # a loss that still falls in the fifth digit is good enough
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, targets, sample_weight=class_weights(targets, n_options)[targets])
    weight, bias = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    if len(present) == 2:  # scikit-learn gives one row: the log odds of the second class
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    full_weight = np.zeros((n_options, features.shape[1]))
    full_bias = np.full(n_options, float(bias.mean()) + _ABSENT)
    full_weight[present], full_bias[present] = weight, bias
    return full_weight, full_bias


def fit_labels(
    features: NDArray[np.floating], targets: NDArray[np.int64], groups: list[str], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[float | None]]:
    """A logistic regression for each label by itself.

    Args:
        features: standardised, (N, D).
        targets: 0/1, (N, labels).
        groups: what stays in one fold, N.
        seed: of the folds.

    Returns:
        Weights (labels, D), biases (labels,), and the penalty of each label; a label that no case or every
        case has gets weights of 0, the log odds of its (smoothed) frequency, and None.
    """
    n, labels = targets.shape
    weight, penalties = np.zeros((labels, features.shape[1])), list[float | None]()
    odds = (targets.sum(axis=0) + 0.5) / (n - targets.sum(axis=0) + 0.5)
    bias = np.log(odds)
    for k in range(labels):
        if not 0 < targets[:, k].sum() < n:
            penalties.append(None)
            continue
        penalty = choose_penalty(features, targets[:, k], groups, 2, seed)
        both, ahead = fit_logistic(features, targets[:, k], 2, penalty)
        weight[k], bias[k] = both[1] - both[0], ahead[1] - ahead[0]
        penalties.append(penalty)
    return weight, bias, penalties


def choose_penalty(
    features: NDArray[np.floating], targets: NDArray[np.int64], groups: list[str], n_options: int, seed: int
) -> float:
    """The penalty of `GRID` with the least log loss over three grouped folds of (at most 1,500) cases."""
    rows = np.arange(len(targets))
    if len(rows) > _AT_MOST:
        rows = np.sort(np.random.default_rng(seed).permutation(len(rows))[:_AT_MOST])
    features, targets, groups = features[rows], targets[rows], [groups[i] for i in rows]
    if len(set(groups)) < 3:
        return GRID[len(GRID) // 2]
    assigned = grouped_folds(targets, groups, folds=3, seed=seed)
    held_out = [assigned == number for number in range(3)]
    folds = [held for held in held_out if held.any() and len(np.unique(targets[~held])) > 1]
    best, least = GRID[0], np.inf
    for penalty in GRID:
        loss = 0.0
        for held in folds:
            weight, bias = fit_logistic(features[~held], targets[~held], n_options, penalty)
            loss += log_loss(softmax(features[held] @ weight.T + bias), targets[held]) * int(held.sum())
        if loss >= least:
            break
        best, least = penalty, loss
    return best
