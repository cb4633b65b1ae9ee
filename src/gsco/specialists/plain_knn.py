"""k nearest neighbours as the MedMNIST+ benchmark has them: Euclidean, every neighbour one vote."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gsco.specialists.heads import FeatureSpecialist, images_of
from gsco.specialists.trained import Fields, Tensors, TrainedSpecialist, TrainingJob

_PRIOR = 0.1
"""Votes that every option (for labels: each of yes and no) has from the start, so that none is impossible."""


class PlainNeighbours(FeatureSpecialist):
    """The vote of the k nearest training cases; its most probable option is that of the plain vote.

    The benchmark takes a tie for the option that comes first, and so does the most probable option here.
    For labels, one is said where more than half of the neighbours have it.
    """

    kind: ClassVar[str] = "plain_knn"

    def __init__(self, *, k: int = 11, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.k = k
        self.bank = np.zeros((0, 0), dtype=np.float32)
        self.labels = np.zeros(0, dtype=np.int64)

    def fit(self, job: TrainingJob) -> PlainNeighbours:
        """Keep the job's training cases, calibrate on its validation cases."""
        self.bank = self.embed(images_of([*job.train, *job.val]), job)[: len(job.train)]
        self.labels = job.train_targets
        self.details.update(k=self.k, pretrained=self.backbone.pretrained)
        self.calibrate(job)
        return self

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Features (N, D) to log vote shares, or log odds by label, (N, options)."""
        votes = np.stack([self._votes(row) for row in features])
        if self.multi_label:
            k = min(self.k, len(self.bank))
            return np.asarray(np.log((votes + _PRIOR) / (k - votes + _PRIOR)))
        return np.asarray(np.log((votes + _PRIOR) / (votes + _PRIOR).sum(axis=1, keepdims=True)))

    def _votes(self, row: NDArray[np.float32]) -> NDArray[np.float64]:
        """How many of the k nearest have each option, (options,)."""
        distance = ((self.bank - row) ** 2).sum(axis=1, dtype=np.float64)
        nearest = np.argsort(distance, kind="stable")[: self.k]
        if self.multi_label:
            return np.asarray(self.labels[nearest].sum(axis=0), dtype=np.float64)
        return np.bincount(self.labels[nearest], minlength=len(self.options)).astype(np.float64)

    def _config(self) -> dict[str, Any]:
        return {**super()._config(), "k": self.k}

    def _tensors(self) -> dict[str, NDArray[Any]]:
        return {"bank": self.bank, "labels": self.labels}

    @classmethod
    def _restore(
        cls, base: Fields, config: Fields, tensors: Tensors, cache: Path | None
    ) -> TrainedSpecialist:
        made = cls(**cls._arguments(base, config, cache), k=int(config["k"]))
        made.bank, made.labels = tensors["bank"], tensors["labels"]
        return made
