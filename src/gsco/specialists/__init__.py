"""Specialists: image → calibrated probabilities and an embedding."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gsco.specialists.base import Opinion, Specialist, opinion_of

if TYPE_CHECKING:
    from gsco.specialists.backbones import Backbone, load_backbone
    from gsco.specialists.embeddings import embed
    from gsco.specialists.features import extract
    from gsco.specialists.folds import grouped_folds, out_of_fold
    from gsco.specialists.heatmaps import Heatmap, heatmap
    from gsco.specialists.loading import load_specialist
    from gsco.specialists.registry import DEFAULT_TEAM, RECIPES, Recipe, train_specialist
    from gsco.specialists.trained import TrainedSpecialist

_LAZY = {
    "DEFAULT_TEAM": "registry",
    "RECIPES": "registry",
    "Backbone": "backbones",
    "Heatmap": "heatmaps",
    "Recipe": "registry",
    "TrainedSpecialist": "trained",
    "embed": "embeddings",
    "extract": "features",
    "grouped_folds": "folds",
    "heatmap": "heatmaps",
    "load_backbone": "backbones",
    "load_specialist": "loading",
    "out_of_fold": "folds",
    "train_specialist": "registry",
}

__all__ = [
    "DEFAULT_TEAM",
    "RECIPES",
    "Backbone",
    "Heatmap",
    "Opinion",
    "Recipe",
    "Specialist",
    "TrainedSpecialist",
    "embed",
    "extract",
    "grouped_folds",
    "heatmap",
    "load_backbone",
    "load_specialist",
    "opinion_of",
    "out_of_fold",
    "train_specialist",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"gsco.specialists.{_LAZY[name]}"), name)
