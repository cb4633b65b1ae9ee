"""Nearest neighbours among the training cases, by cosine similarity of frozen features."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gsco.cases import units_of
from gsco.specialists.calibration import class_weights, log_loss, sigmoid
from gsco.specialists.heads import FeatureSpecialist, images_of
from gsco.specialists.trained import Fields, Tensors, TrainedSpecialist, TrainingJob

COUNTS = (5, 10, 20, 40)
"""Numbers of neighbours that are tried."""

_PRIOR = 1.0  # weight of the prior, in neighbours


class NearestNeighbours(FeatureSpecialist):
    """Distance-weighted vote of the k most similar training cases.

    Features are centred on the training mean before they are normalised, so that similarity is about
    what differs between images of the set. k has the least leave-one-out log loss on training cases,
    where no case of the same patient or group counts as a neighbour.
    """

    kind: ClassVar[str] = "knn"
    sharpness: ClassVar[float] = 10.0  # a neighbour less similar by 0.1 weighs 1/e

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.mean = np.zeros(0, dtype=np.float32)
        self.bank = np.zeros((0, 0), dtype=np.float32)
        self.labels = np.zeros(0, dtype=np.int64)
        self.k = COUNTS[1]

    def fit(self, job: TrainingJob) -> NearestNeighbours:
        """Keep the job's training cases, choose k on them, calibrate on validation."""
        features = self.embed(images_of([*job.train, *job.val]), job)[: len(job.train)]
        self.labels = job.train_targets
        self.mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.bank = self._normalise(features)
        self.k = self._choose(units_of(job.train))
        self.details["k"] = self.k
        self.calibrate(job)
        return self

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Features (N, D) to log vote shares, or log odds by label, (N, options)."""
        queries = self._normalise(features)
        # one row at a time, so that no number depends on which images are asked about together
        return np.concatenate([self._vote((self.bank @ row)[None], self.k) for row in queries])

    def _normalise(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        centred = features - self.mean
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        return np.asarray(centred / np.maximum(length, 1e-12), dtype=np.float32)

    def voters(self, query: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Rows of the bank that vote about a centred feature vector of length 1, and their weights."""
        rows, weights = self._voters((self.bank @ query.astype(np.float32))[None], self.k)
        return rows[0], weights[0] if self.multi_label else weights[0] * self.ballots()[0][rows[0]]

    def _voters(
        self, similarity: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Similarities to the bank (N, bank) to the k nearest rows and the worth of being near, (N, k)."""
        order = np.argsort(-similarity, axis=1, kind="stable")[:, : min(k, similarity.shape[1])]
        near = np.take_along_axis(similarity, order, axis=1).astype(np.float64)
        return order, np.exp(self.sharpness * (near - near[:, :1])) * np.isfinite(near)

    def _vote(self, similarity: NDArray[np.float32], k: int) -> NDArray[np.float64]:
        """Similarities to the bank (N, bank) to log vote shares, or log odds by label, (N, options)."""
        order, weights = self._voters(similarity, k)
        if self.multi_label:
            return self._odds(weights, order)
        worth, prior = self.ballots()
        weights = weights * worth[order]
        votes = np.tile(prior, (len(similarity), 1))
        for column in range(order.shape[1]):
            votes[np.arange(len(votes)), self.labels[order[:, column]]] += weights[:, column]
        return np.asarray(np.log(votes / votes.sum(axis=1, keepdims=True)))

    def ballots(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight of each training case's vote at no distance, (bank,), and the prior votes, (options,)."""
        n_options = len(self.options)
        prior = np.bincount(self.labels, minlength=n_options) + 1.0
        return class_weights(self.labels, n_options)[self.labels], _PRIOR * prior / prior.sum()

    def _odds(self, weights: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.float64]:
        """Log odds of each label among neighbours, (N, options); weights and positions are (N, k)."""
        rate = (self.labels.sum(axis=0) + 0.5) / (len(self.labels) + 1.0)
        yes = _PRIOR * rate + (weights[:, :, None] * self.labels[order]).sum(axis=1)
        return np.asarray(np.log(yes / (_PRIOR + weights.sum(axis=1, keepdims=True) - yes)))

    def _choose(self, groups: list[str]) -> int:
        number = np.unique(np.asarray(groups), return_inverse=True)[1]
        losses = np.zeros(len(COUNTS))
        for start in range(0, len(self.bank), 512):
            rows = slice(start, start + 512)
            similarity = self.bank[rows] @ self.bank.T
            similarity[number[rows, None] == number[None]] = -np.inf
            usable = np.isfinite(similarity).any(axis=1)
            for i, k in enumerate(COUNTS):
                votes = self._vote(similarity[usable], k)
                shares = sigmoid(votes) if self.multi_label else np.exp(votes)
                losses[i] += (
                    log_loss(shares, self.labels[rows][usable]) * usable.sum() if usable.any() else 0.0
                )
        return COUNTS[int(losses.argmin())]

    def _config(self) -> dict[str, Any]:
        return {**super()._config(), "k": self.k}

    def _tensors(self) -> dict[str, NDArray[Any]]:
        return {"mean": self.mean, "bank": self.bank, "labels": self.labels}

    @classmethod
    def _restore(
        cls, base: Fields, config: Fields, tensors: Tensors, cache: Path | None
    ) -> TrainedSpecialist:
        made = cls(**cls._arguments(base, config, cache))
        made.mean, made.bank, made.labels = tensors["mean"], tensors["bank"], tensors["labels"]
        made.k = int(config["k"])
        return made
