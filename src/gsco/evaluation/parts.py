"""The middle stages: features, the case index, the specialists and what they say.

Each part appears in the run folder by one rename when it is complete, so a run that was killed repeats
at most the part it was making.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case, Dataset
from gsco.collaboration import Evidence, assemble, neighbour_choices
from gsco.errors import ModelError
from gsco.evaluation.copies import find_copies
from gsco.evaluation.foreign import settle_sign
from gsco.evaluation.predictions import predictions_path, read_predictions, write_predictions
from gsco.evaluation.work import Means, Work
from gsco.specialists.base import opinion_of
from gsco.specialists.registry import safe_name

if TYPE_CHECKING:
    from gsco.retrieval import CaseIndex, ForeignSign, Neighbour
    from gsco.specialists import Specialist
    from gsco.specialists.backbones import Backbone

_BLOCK = 1024  # cases a specialist is asked about at once; no number depends on it


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of, ready to be asked.

    Attributes:
        backbone: whose pooled features the index holds.
        index: the training cases.
        specialists: in the order of the config.
        best: name of the one that was best on validation.
        neighbour_reliability: balanced accuracy of the similar cases' vote on validation; None without any.
        taught: the dataset that they learned from and were judged on: without the copies left out.
        sign: tells images that are foreign to the index.
    """

    backbone: Backbone
    index: CaseIndex
    specialists: tuple[Specialist, ...]
    best: str
    neighbour_reliability: float | None
    taught: Dataset
    sign: ForeignSign


def check_recipes(recipes: Sequence[str], backbone: str) -> None:
    """Refuse a recipe or backbone nobody knows before anything costly is done.

    Raises:
        ModelError: naming what there is.
    """
    from gsco.specialists.named_networks import check_backbone
    from gsco.specialists.registry import find_recipe

    check_backbone(backbone)
    for recipe in recipes:
        name, colon, of = recipe.partition(":")
        if not find_recipe(name).backbone and colon:
            raise ModelError(f"recipe {name} takes no backbone (got {recipe!r})", remedy=f"Write {name}.")
        if colon:
            check_backbone(of)


def make_parts(work: Work, dataset: Dataset, cases: Sequence[Case]) -> Parts:
    """Features, index, leakage check, specialists: what is on disk is used, the rest is made.

    Args:
        work: folder, settings and progress.
        dataset: all cases.
        cases: those to be answered.

    Raises:
        LeakageError: a training case is (nearly) a case to be answered, and the config says to refuse, or
            nothing is left to learn from.
    """
    train = [case for case in dataset.split("train") if case.label is not None]
    copies = find_copies(work, dataset, cases)
    backbone = load_encoder(work.config.backbone)
    index = build_index(work, train, dataset.name, backbone, copies.train)
    gone = copies.val | (copies.train if work.config.leakage == "purge_all" else frozenset())
    taught = replace(dataset, cases=tuple(case for case in dataset if case.id not in gone))
    specialists = tuple(_specialist(work, taught, recipe) for recipe in work.config.specialists)
    reliability = _vote_reliability(work, taught, backbone, index)
    best = _judge(work, taught, specialists, reliability)
    sign = settle_sign(work.folder, index, lambda: _validation_features(work, taught, backbone))
    return Parts(backbone, index, specialists, best, reliability, taught, sign)


def gather_evidence(work: Work, cases: Sequence[Case], parts: Parts, split: str) -> list[Evidence]:
    """What is known about each case of a split before the generalist speaks, aligned with `cases`."""
    opinions = []
    for specialist in parts.specialists:
        ids, probabilities = read_predictions(predictions_path(work.folder, specialist.name, split))
        row = {case_id: i for i, case_id in enumerate(ids)}
        keys = parts.taught.task.keys
        opinions.append([opinion_of(specialist, probabilities[row[case.id]], keys) for case in cases])
    features = embed(work, parts.backbone, cases, f"{split} cases")
    neighbours = parts.index.search(features, work.config.neighbours)
    foreignness = parts.sign.judge(parts.index, features)
    return assemble(opinions, neighbours, parts.neighbour_reliability, foreignness)


# features, index -----------------------------------------------------------------------------------


def load_encoder(name: str) -> Backbone:
    """The frozen backbone whose pooled features the index holds; shared with the heads that use it."""
    from gsco.specialists.heads import shared_backbone
    from gsco.specialists.named_networks import DEFAULT_BACKBONE

    return shared_backbone(DEFAULT_BACKBONE if name == "embedded" else name)


def embed(means: Means, backbone: Backbone, cases: Sequence[Case], what: str) -> NDArray[np.float32]:
    """Pooled features of the cases' principal images, (n, channels), from the store or computed."""
    from gsco.specialists.features import extract

    with means.stage(f"features of {what}", total=len(cases)) as step:
        return extract(backbone, [case.image for case in cases], cache=means.cache, progress=step)


def build_index(
    means: Means, train: Sequence[Case], dataset: str, backbone: Backbone, purged: frozenset[str]
) -> CaseIndex:
    """The folder's index of the training cases that were not purged, made unless it is there."""
    from gsco.retrieval import CaseIndex

    folder = means.folder.index
    if not (folder / "config.json").is_file():
        features = embed(means, backbone, train, "training cases")
        index = CaseIndex.build(features, train, dataset=dataset, encoder=backbone.fingerprint).without(
            purged
        )
        with means.folder.building(folder) as temporary:
            index.save_pretrained(temporary)
    return CaseIndex.from_pretrained(folder, expect_encoder=backbone.fingerprint)


def _validation_features(work: Work, taught: Dataset, backbone: Backbone) -> NDArray[np.float32] | None:
    """Of the cases that images to be answered are compared with; None where they are those to be answered."""
    cases = [case for case in taught.split("val") if case.label is not None]
    return embed(work, backbone, cases, "val cases") if cases and work.config.split != "val" else None


def _vote_reliability(work: Work, dataset: Dataset, backbone: Backbone, index: CaseIndex) -> float | None:
    """Balanced accuracy of the similar cases' vote on validation, as specialists' reliability is."""
    cases = [case for case in dataset.split("val") if case.label is not None]
    if not cases:
        return None
    found = index.search(embed(work, backbone, cases, "val cases"), work.config.neighbours)
    return vote_reliability(dataset, cases, found)


def vote_reliability(
    dataset: Dataset, cases: Sequence[Case], found: Sequence[tuple[Neighbour, ...]]
) -> float:
    """Balanced accuracy of the vote of each labelled case's neighbours, in [0, 1], six decimals."""
    from gsco.evaluation import metrics

    truth = np.asarray(dataset.targets(cases), dtype=np.int64)
    votes = neighbour_choices(found, dataset.task.keys)
    return round(metrics.balanced_accuracy(truth, votes, len(dataset.task.options)), 6)


# specialists ---------------------------------------------------------------------------------------


def _specialist(work: Work, dataset: Dataset, recipe: str) -> Specialist:
    """One specialist, trained unless it is there, and its predictions for val and the answered split."""
    config = work.config
    specialist = trained(work, dataset, recipe, seed=config.seed, quick=config.quick, folds=config.folds)
    for split in dict.fromkeys(("val", config.split)):
        cases = [case for case in dataset.split(split) if case.label is not None]
        speak(work, specialist, cases, split, dataset.task.keys)
    return specialist


def trained(
    means: Means, dataset: Dataset, recipe: str, *, seed: int, quick: bool, folds: int = 0
) -> Specialist:
    """The folder's specialist of that recipe, trained unless it is there."""
    from gsco.specialists.loading import load_specialist
    from gsco.specialists.registry import train_specialist

    folder = means.folder.specialists / safe_name(recipe)
    if not (folder / "config.json").is_file():
        with means.stage(f"specialist {recipe}") as step, means.folder.building(folder) as temporary:
            train_specialist(
                recipe,
                dataset,
                cache=means.cache,
                out=temporary,
                seed=seed,
                quick=quick,
                folds=folds,
                progress=lambda what, done, total: step(
                    done, total, what.removeprefix(f"{safe_name(recipe)}: ")
                ),
            )
    # always as it stands on disk: a resumed run must not differ from an unbroken one by a rounding
    return load_specialist(folder, cache=means.cache, runtime="pytorch")


def speak(
    means: Means, specialist: Specialist, cases: Sequence[Case], split: str, keys: tuple[str, ...]
) -> NDArray[np.float64]:
    """What a specialist says about a split's cases, (n, options), asked unless the folder has it.

    Args:
        means: folder, cache and progress.
        specialist: with the task's options in any order.
        cases: those asked about.
        split: names the file.
        keys: the task's options, the order of the columns.
    """
    path = predictions_path(means.folder, specialist.name, split)
    if not path.is_file():
        column = [specialist.options.index(key) for key in keys]
        pieces = [np.zeros((0, len(keys)))]
        with means.stage(f"specialist {specialist.name} on {split}", total=len(cases)) as step:
            for start in range(0, len(cases), _BLOCK):
                block = [case.image for case in cases[start : start + _BLOCK]]
                pieces.append(specialist.predict(block)[:, column])
                step(start + len(block))
        write_predictions(path, [case.id for case in cases], np.concatenate(pieces))
    return read_predictions(path)[1]


def speak_out_of_fold(
    means: Means,
    name: str,
    recipe: str,
    dataset: Dataset,
    *,
    folds: int,
    seed: int,
    quick: bool,
    size: int | None = None,
    pad: int | None = None,
) -> NDArray[np.float64]:
    """What specialists by a recipe, none of which saw the case, say about each labelled training case.

    Args:
        means: folder, cache and progress.
        name: of the specialist in the folder.
        recipe, dataset, folds, seed, quick, size, pad: as for `gsco.specialists.out_of_fold`.

    Returns:
        (n, options), made unless the folder has it.
    """
    from gsco.specialists import out_of_fold

    path = predictions_path(means.folder, name, "out_of_fold")
    if not path.is_file():
        with means.stage(f"specialist {name} out of fold") as step:
            rows = out_of_fold(
                recipe,
                dataset,
                folds=folds,
                seed=seed,
                cache=means.cache,
                quick=quick,
                size=size,
                pad=pad,
                progress=lambda what, done, total: step(done, total, what.removeprefix(f"{name}: ")),
            )
        train = [case for case in dataset.split("train") if case.label is not None]
        write_predictions(path, [case.id for case in train], rows)
    return read_predictions(path)[1]


def _judge(
    work: Work, dataset: Dataset, specialists: Sequence[Specialist], neighbour_reliability: float | None
) -> str:
    """The specialist with the best macro-F1 on validation (ties: AUC, then the config's order)."""
    from gsco.evaluation import metrics

    label = {
        case.id: dataset.task.index(case.label) for case in dataset.split("val") if case.label is not None
    }
    rows: list[dict[str, Any]] = []
    for specialist, recipe in zip(specialists, work.config.specialists, strict=True):
        ids, probabilities = read_predictions(predictions_path(work.folder, specialist.name, "val"))
        truth = np.asarray([label[case_id] for case_id in ids], dtype=np.int64)
        choice = probabilities.argmax(axis=1)
        area = metrics.auc(truth, probabilities)
        rows.append(
            {
                "name": specialist.name,
                "recipe": recipe,
                "reliability": specialist.reliability,
                "validation": {
                    "n": len(ids),
                    "macro_f1": round(metrics.macro_f1(truth, choice, len(dataset.task.options)), 6),
                    "auc": None if math.isnan(area) else round(area, 6),
                    "accuracy": round(metrics.accuracy(truth, choice, len(dataset.task.options)), 6),
                },
            }
        )
    best = max(rows, key=lambda row: (row["validation"]["macro_f1"], row["validation"]["auc"] or 0.0))
    work.folder.write_json(
        "specialists.json",
        {
            "schema": 1,
            "best": best["name"],
            "chosen_by": "macro-F1 on validation, then AUC",
            "specialists": rows,
            "neighbours": {"reliability": neighbour_reliability},
        },
    )
    return str(best["name"])
