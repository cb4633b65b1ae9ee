"""Recipes by name, and training by recipe."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsco.cases import Dataset
from gsco.errors import DatasetError, ModelError
from gsco.progress import Progress
from gsco.specialists.loading import resolve
from gsco.specialists.machine import ONE_CPU, Machine
from gsco.specialists.plugins import make_by_plugin, plugins
from gsco.specialists.trained import TrainedSpecialist, TrainingJob


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to train a specialist.

    Attributes:
        name: its id.
        summary: one line for a person.
        maker: ``module:function`` of ``(job, name, recipe, backbone or None) -> TrainedSpecialist``.
        backbone: whether ``name:backbone`` is understood.
        origin: the package it comes from.
    """

    name: str
    summary: str
    maker: str
    backbone: bool = True
    origin: str = "gsco"


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "linear_probe",
            "logistic regression on pooled features of a frozen backbone (linearProbing is the benchmark's)",
            "gsco.specialists.registry:_linear_probe",
        ),
        Recipe(
            "knn",
            "distance-weighted nearest neighbours in pooled features of a frozen backbone",
            "gsco.specialists.registry:_knn",
        ),
        Recipe(
            "texture_probe",
            "logistic regression on statistics of all stages of a frozen backbone, and of colour",
            "gsco.specialists.registry:_texture_probe",
        ),
        Recipe(
            "finetuned",
            "every weight of a pretrained backbone trained on the set at a small size",
            "gsco.specialists.registry:_finetuned",
        ),
        Recipe(
            "small_cnn",
            "a small residual network trained from random weights at 64 pixels",
            "gsco.specialists.registry:_small_cnn",
            backbone=False,
        ),
        Recipe(
            "endToEnd",
            "every weight of a network trained as in the MedMNIST+ benchmark",
            "gsco.specialists.procedures:end_to_end",
        ),
        Recipe(
            "linearProbing",
            "the last layer of a network trained as in the MedMNIST+ benchmark, on features computed once "
            "(linear_probe is a logistic regression)",
            "gsco.specialists.procedures:linear_probing",
        ),
        Recipe(
            "kNN",
            "the vote of the 11 nearest training cases, as in the MedMNIST+ benchmark",
            "gsco.specialists.procedures:k_nearest",
        ),
        Recipe(
            "medmnist",
            "MedMNIST's own recipe: ResNet-18 from random weights at 28 pixels",
            "gsco.specialists.procedures:from_scratch_28",
        ),
    )
}

DEFAULT_TEAM: tuple[str, ...] = ("linear_probe", "knn", "texture_probe", "finetuned", "small_cnn")
"""The recipes a run trains when none are named."""


def train_specialist(
    recipe: str,
    dataset: Dataset,
    *,
    cache: Path,
    out: Path | None = None,
    seed: int = 0,
    quick: bool = False,
    size: int | None = None,
    pad: int | None = None,
    folds: int = 0,
    machine: Machine = ONE_CPU,
    progress: Progress | None = None,
) -> TrainedSpecialist:
    """Train one specialist on a dataset's training split and calibrate it on its validation split.

    Args:
        recipe: a name of `RECIPES`, or ``"recipe:backbone"`` with a timm name or folder.
        dataset: diagnosis, of one label a case or several.
        cache: folder for features and checkpoints.
        out: where to save it; not saved when None.
        seed: of everything drawn; the same seed gives the same numbers on the same machine.
        quick: fewer epochs, for a demo.
        size: side in pixels that pictures are stretched to; the recipe's own when None.
        pad: side to which they are then padded with zeros; the recipe's own when None, 0 for none.
        folds: train it once more without each of so many folds of the training cases, and answer by the mean
            of all (`gsco.specialists.bagged`); 0 trains once.
        machine: device and precision of networks that are trained; one CPU process in fp32 by default.
        progress: called with (what, done, in all).

    Raises:
        ModelError: no such recipe, or a backbone that cannot be had.
        DatasetError: not diagnosis, or nothing to learn from.
        ImageError, StorageError: as the names say.
    """
    job = training_job(
        dataset, cache=cache, seed=seed, quick=quick, size=size, pad=pad, machine=machine, progress=progress
    )
    specialist: TrainedSpecialist
    if folds:
        from gsco.specialists.bagged import bag

        specialist = bag(recipe, job, folds)
    else:
        specialist = fit_specialist(recipe, job)
    if out is not None:
        specialist.save_pretrained(out)
    return specialist


def training_job(
    dataset: Dataset,
    *,
    cache: Path,
    seed: int = 0,
    quick: bool = False,
    size: int | None = None,
    pad: int | None = None,
    machine: Machine = ONE_CPU,
    progress: Progress | None = None,
) -> TrainingJob:
    """The job that `train_specialist` gives to a recipe; DatasetError where there is nothing to learn."""
    if dataset.task.kind != "diagnosis":
        raise DatasetError(
            f"dataset {dataset.name!r} asks for {dataset.task.kind}, not for diagnosis",
            where=str(dataset.root),
            remedy="Specialists of this package choose among closed options.",
        )
    if len(dataset.task.options) < 2:
        only = ", ".join(dataset.task.keys) or "none"
        raise DatasetError(
            f"dataset {dataset.name!r} has fewer than two options ({only})",
            where=str(dataset.root),
            remedy="There is nothing to choose: give labelled cases of at least two options.",
        )
    several = dataset.task.multi_label  # where a case may have none of the labels, too
    train = tuple(case for case in dataset.split("train") if several or case.label is not None)
    val = tuple(case for case in dataset.split("val") if several or case.label is not None)
    if len({case.labels for case in train}) < 2:
        raise DatasetError(
            "the training split has fewer than two labels",
            where=str(dataset.root),
            remedy="Give labelled training cases of at least two options.",
        )
    often = Counter(label for case in train for label in case.labels)
    if len(train) < 4 or (not several and sum(n > 1 for n in often.values()) < 2):
        raise DatasetError(
            f"{len(train)} training cases are too few to learn from",
            where=str(dataset.root),
            remedy="Give at least two training cases of each of two options.",
        )
    return TrainingJob(
        dataset,
        train,
        val,
        seed=seed,
        cache=Path(cache),
        quick=quick,
        size=size,
        pad=pad,
        machine=machine,
        progress=progress,
    )


def missing_cases(dataset: Dataset) -> list[str]:
    """A sentence for each option that has no cases in a split, so that nobody wonders later."""
    meaning = {"train": "never said", "val": "not calibrated", "test": "not judged"}
    out = []
    for split, then in meaning.items():
        cases = dataset.split(split)  # type: ignore[arg-type]
        found = {label for case in cases for label in case.labels}
        absent = [option.name for option in dataset.task.options if option.key not in found]
        which = {"train": "training", "val": "validation"}.get(split, split)
        if not cases:
            out.append(f"no {which} cases: {then}")
        elif absent:
            out.append(f"no {which} case of {', '.join(absent)}: {then}")
    return out


def fit_specialist(recipe: str, job: TrainingJob) -> TrainedSpecialist:
    """Train one specialist for a prepared job; see `train_specialist`."""
    base, _, backbone = recipe.partition(":")
    entry = find_recipe(base)
    if backbone and not entry.backbone:
        raise ModelError(f"recipe {base!r} takes no backbone", remedy=f"Write {base!r} alone.")
    if not job.val:
        job.say(f"{base}: no validation cases, so no calibration", 0, 1)
    name = safe_name(recipe)
    with np.errstate(under="ignore"):
        if base not in RECIPES:
            return make_by_plugin(plugins()[base], job, name, recipe, backbone or None)
        made: TrainedSpecialist = resolve(entry.maker)(job, name, recipe, backbone or None)
    return made


def safe_name(recipe: str) -> str:
    """A recipe as a file name and a specialist's name (``knn:resnet18`` → ``knn-resnet18``)."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", recipe).strip("-.")


def all_recipes() -> dict[str, Recipe]:
    """`RECIPES` and those of other packages, by name; a name of this package is never replaced."""
    others = {
        plugin.name: Recipe(plugin.name, f"from {plugin.package}", plugin.target, origin=plugin.package)
        for plugin in plugins().values()
    }
    return {**others, **RECIPES}


def find_recipe(name: str) -> Recipe:
    """A recipe by name, without a backbone; ModelError that lists what there is."""
    if name in RECIPES:
        return RECIPES[name]
    known = all_recipes()
    if name not in known:
        raise ModelError(f"no recipe {name!r}", remedy=f"Choose one of: {', '.join(sorted(known))}.")
    return known[name]


def _head(job: TrainingJob, name: str, recipe: str, backbone: str | None) -> dict[str, Any]:
    from gsco.specialists.named_networks import DEFAULT_BACKBONE

    return {
        "name": name,
        "recipe": recipe,
        "options": job.options,
        "multi_label": job.multi_label,
        "pad": job.pad or None,
        "backbone_name": DEFAULT_BACKBONE if backbone in {None, "embedded"} else backbone,
        "size": job.size,
        "cache": job.cache,
    }


def _linear_probe(job: TrainingJob, name: str, recipe: str, backbone: str | None) -> TrainedSpecialist:
    from gsco.specialists.linear import LinearProbe

    return LinearProbe(features="pooled", **_head(job, name, recipe, backbone)).fit(job)


def _texture_probe(job: TrainingJob, name: str, recipe: str, backbone: str | None) -> TrainedSpecialist:
    from gsco.specialists.linear import LinearProbe

    return LinearProbe(features="texture", **_head(job, name, recipe, backbone)).fit(job)


def _knn(job: TrainingJob, name: str, recipe: str, backbone: str | None) -> TrainedSpecialist:
    from gsco.specialists.knn import NearestNeighbours

    return NearestNeighbours(features="pooled", **_head(job, name, recipe, backbone)).fit(job)


def _finetuned(job: TrainingJob, name: str, recipe: str, backbone: str | None) -> TrainedSpecialist:
    from gsco.specialists.named_networks import DEFAULT_BACKBONE
    from gsco.specialists.networks import fine_tuned

    return fine_tuned(
        job, name, recipe, DEFAULT_BACKBONE if backbone in {None, "embedded"} else str(backbone)
    )


def _small_cnn(job: TrainingJob, name: str, recipe: str, _backbone: str | None) -> TrainedSpecialist:
    from gsco.specialists.networks import from_scratch

    return from_scratch(job, name, recipe)
