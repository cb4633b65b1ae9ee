"""`plan`: which specialists are worth training on the data and the machine at hand, and why."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, get_args

from gsco.cases import Dataset
from gsco.errors import ModelError
from gsco.specialists.machine import Machine

Preset = Literal["quick", "balanced", "best"]

_FEW = 300
"""Training cases below which a network from random weights has not enough to learn from."""
_MANY = 20_000
"""Training cases above which training whole networks on a few CPU cores takes hours."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be trained.

    Attributes:
        recipes: the candidates, in order; the best of them on validation is kept.
        reasons: why, a sentence each.
    """

    recipes: tuple[str, ...]
    reasons: tuple[str, ...]


def plan(dataset: Dataset, preset: str, machine: Machine) -> Plan:
    """Choose candidates.

    Args:
        dataset: its size and labels count, no image is read.
        preset: ``quick`` (seconds to a minute: one pass of a frozen backbone), ``balanced`` (three heads on
            that same pass), ``best`` (whole networks, too).
        machine: a GPU makes larger networks worth it.

    Raises:
        ModelError: no such preset.
    """
    if preset not in get_args(Preset):
        raise ModelError(f"no preset {preset!r}", remedy=f"Choose one of: {', '.join(get_args(Preset))}.")
    n = len(dataset.split("train"))
    on_gpu = machine.device != "cpu"
    if preset == "quick":
        return Plan(("linear_probe",), ("One pass of a frozen backbone and a logistic regression.",))
    heads = ("linear_probe", "knn", "texture_probe")
    reasons = ["Three heads share one pass of a frozen backbone."]
    if preset == "balanced":
        return Plan(heads, tuple(reasons))
    recipes = list(heads)
    if on_gpu:
        recipes.append("endToEnd:densenet121")
        reasons.append("A GPU is there: DenseNet-121 trained end to end, the best on average in MedMNIST+.")
    elif n <= _MANY:
        recipes.append("finetuned")
        reasons.append(f"{n} training cases: the backbone is fine-tuned in minutes on {_cores()}.")
    else:
        reasons.append(f"{n} training cases and no GPU: fine-tuning would take hours and is left out.")
    if n < _FEW:
        reasons.append(f"{n} training cases are too few for a network from random weights.")
    elif on_gpu or n <= _MANY:
        recipes.append("small_cnn")
        reasons.append("A small network from random weights sees what ImageNet does not teach.")
    return Plan(tuple(recipes), tuple(reasons))


def _cores() -> str:
    n = os.cpu_count() or 1
    return f"{n} CPU core{'' if n == 1 else 's'}"
