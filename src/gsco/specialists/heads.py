"""Specialists that are a small head on frozen features."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case, ImageRef
from gsco.errors import ModelError
from gsco.specialists.backbones import Backbone, load_backbone
from gsco.specialists.features import Kind, extract
from gsco.specialists.named_networks import DEFAULT_BACKBONE
from gsco.specialists.trained import TrainedSpecialist, TrainingJob


@functools.lru_cache(maxsize=2)
def shared_backbone(
    name: str = DEFAULT_BACKBONE, size: int | None = None, pad: int | None = None, scratch_ok: bool = False
) -> Backbone:
    """One backbone in memory for all heads that use it; see `load_backbone`."""
    return load_backbone(name, size=size, pad=pad, scratch_ok=scratch_ok)


class FeatureSpecialist(TrainedSpecialist):
    """A head on frozen features.

    Attributes:
        features: which features: ``pooled``, ``texture`` or ``prelogits``.
        backbone: the frozen network (loaded when first used).
    """

    def __init__(
        self,
        *,
        name: str,
        recipe: str,
        options: tuple[str, ...],
        features: Kind,
        backbone_name: str,
        size: int | None,
        fingerprint: str | None = None,
        cache: Path | None = None,
        pad: int | None = None,
        multi_label: bool = False,
    ) -> None:
        super().__init__(name=name, recipe=recipe, options=options, multi_label=multi_label)
        self.features: Kind = features
        self.backbone_name = backbone_name
        self.size = size
        self.pad = pad
        self.cache = cache
        self._fingerprint = fingerprint

    @property
    def backbone(self) -> Backbone:
        """The frozen network; ModelError where its weights are not the ones the head was fitted on."""
        # the reference's procedures go on without weights, and the card says so
        backbone = shared_backbone(self.backbone_name, self.size, self.pad, self.features == "prelogits")
        if self._fingerprint is None:
            self._fingerprint = backbone.fingerprint
        if backbone.fingerprint != self._fingerprint:
            raise ModelError(
                f"specialist {self.name!r} was fitted on other weights of {self.backbone_name!r}",
                remedy="Train it again, or restore the weights it was fitted on.",
            )
        return backbone

    def embed(self, images: Sequence[ImageRef], job: TrainingJob | None = None) -> NDArray[np.float32]:
        """Features of images, (N, D)."""

        def step(done: int, total: int) -> None:
            if job is not None:
                job.say(f"{self.name}: features", done, total)

        return extract(self.backbone, images, cache=self.cache, kind=self.features, progress=step)

    @abstractmethod
    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Features (N, D) to logits (N, options)."""

    def logits(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        """Uncalibrated logits, (N, options)."""
        return self.score(self.embed(images))

    def _config(self) -> dict[str, Any]:
        return {
            "features": self.features,
            "backbone": self.backbone_name,
            "size": self.size,
            "pad": self.pad,
            "fingerprint": self._fingerprint,
        }

    @staticmethod
    def _arguments(base: dict[str, Any], config: dict[str, Any], cache: Path | None) -> dict[str, Any]:
        return {
            **base,
            "features": config["features"],
            "backbone_name": config["backbone"],
            "size": config["size"],
            "pad": config.get("pad"),
            "fingerprint": config["fingerprint"],
            "cache": cache,
        }


def images_of(cases: Sequence[Case]) -> list[ImageRef]:
    """Principal images of cases."""
    return [case.image for case in cases]


def standardise(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and inverse deviation of each column, float32; a column that hardly varies gets 0."""
    mean = features.mean(axis=0, dtype=np.float64)
    deviation = features.std(axis=0, dtype=np.float64)
    alive = deviation > 1e-6
    inverse = np.where(alive, 1.0 / np.where(alive, deviation, 1.0), 0.0)
    return cast("NDArray[np.float32]", mean.astype(np.float32)), cast(
        "NDArray[np.float32]", inverse.astype(np.float32)
    )
