"""`plan`: which specialists are worth training on the data and the machine at hand, and why."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, get_args

from gsco.cases import Dataset, units_of
from gsco.errors import DatasetError, ModelError
from gsco.specialists.folds import grouped_folds, strata
from gsco.specialists.machine import Machine

Preset = Literal["quick", "balanced", "best"]

_FEW = 300
"""Training cases below which a network from random weights has not enough to learn from."""
_MANY = 20_000
"""Training cases above which training whole networks on a few CPU cores takes hours."""
_FOLDS = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be trained.

    Attributes:
        recipes: the candidates, in order; the best of them on validation is kept.
        reasons: why, a sentence each.
        folds: in how many folds each is trained; 0 for once.
    """

    recipes: tuple[str, ...]
    reasons: tuple[str, ...]
    folds: int = 0


def plan(dataset: Dataset, preset: str, machine: Machine) -> Plan:
    """Choose candidates.

    Args:
        dataset: its size and labels count, no image is read.
        preset: ``quick`` (seconds to a minute: one pass of a frozen backbone), ``balanced`` (three heads on
            that same pass), ``best`` (whole networks, too, and the mean of several trainings of each).
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
    folds, reason = _folds(dataset)
    return Plan(tuple(recipes), (*reasons, reason), folds)


def _folds(dataset: Dataset) -> tuple[int, str]:
    """In how many folds the training cases are dealt, and why."""
    several = dataset.task.multi_label
    train = [case for case in dataset.split("train") if several or case.label is not None]
    try:
        grouped_folds(strata(dataset.truth(train)), units_of(train), folds=_FOLDS)
    except DatasetError as error:
        return 0, f"Each is trained once: {error.what}."
    return _FOLDS, (
        f"Each is trained {_FOLDS + 1} times, {_FOLDS} of them without another share of the training cases: "
        "the mean errs less than one."
    )


def _cores() -> str:
    n = os.cpu_count() or 1
    return f"{n} CPU core{'' if n == 1 else 's'}"
