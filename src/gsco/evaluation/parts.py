"""The middle stages: features, the case index, the specialists and what they say.

Each part appears in the run folder by one rename when it is complete, so a run that was killed repeats
at most the part it was making.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case, Dataset
from gsco.collaboration import Evidence
from gsco.errors import ModelError, RunError
from gsco.evaluation.copies import find_copies
from gsco.evaluation.foreign import settle_sign
from gsco.evaluation.runfolder import storage_errors, write_atomic
from gsco.evaluation.work import Work
from gsco.specialists import opinion_of

if TYPE_CHECKING:
    from gsco.retrieval import CaseIndex, ForeignSign
    from gsco.specialists import Specialist
    from gsco.specialists.backbones import Backbone


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
    from gsco.specialists.backbones import check_backbone
    from gsco.specialists.registry import RECIPES

    check_backbone(backbone)
    for recipe in recipes:
        name, colon, of = recipe.partition(":")
        if name not in RECIPES:
            raise ModelError(f"no recipe {recipe!r}", remedy=f"Choose one of: {', '.join(RECIPES)}.")
        if colon and not RECIPES[name].backbone:
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
    index = _index(work, train, dataset.name, backbone, copies.train)
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
        ids, probabilities = _read_predictions(work, specialist.name, split)
        row = {case_id: i for i, case_id in enumerate(ids)}
        opinions.append((specialist, probabilities, row))
    features = _embed(work, parts.backbone, cases, f"{split} cases")
    neighbours = parts.index.search(features, work.config.neighbours)
    foreignness = parts.sign.judge(parts.index, features)
    return [
        Evidence(
            tuple(
                opinion_of(specialist, probabilities[row[case.id]])
                for specialist, probabilities, row in opinions
            ),
            tuple(found),
            parts.neighbour_reliability,
            foreign,
        )
        for case, found, foreign in zip(cases, neighbours, foreignness, strict=True)
    ]


# features, index -----------------------------------------------------------------------------------


def load_encoder(name: str) -> Backbone:
    """The frozen backbone whose pooled features the index holds; shared with the heads that use it."""
    from gsco.specialists.backbones import DEFAULT_BACKBONE
    from gsco.specialists.heads import shared_backbone

    return shared_backbone(DEFAULT_BACKBONE if name == "embedded" else name)


def _embed(work: Work, backbone: Backbone, cases: Sequence[Case], what: str) -> NDArray[np.float32]:
    from gsco.specialists.features import extract

    with work.stage(f"features of {what}", total=len(cases)) as step:
        return extract(backbone, [case.image for case in cases], cache=work.cache, progress=step)


def _index(
    work: Work, train: Sequence[Case], dataset: str, backbone: Backbone, purged: frozenset[str]
) -> CaseIndex:
    """The index of the training cases that were not purged."""
    from gsco.retrieval import CaseIndex

    folder = work.folder.index
    if not (folder / "config.json").is_file():
        features = _embed(work, backbone, train, "training cases")
        index = CaseIndex.build(features, train, dataset=dataset, encoder=backbone.fingerprint).without(
            purged
        )
        with work.folder.building(folder) as temporary:
            index.save_pretrained(temporary)
    return CaseIndex.from_pretrained(folder, expect_encoder=backbone.fingerprint)


def _validation_features(work: Work, taught: Dataset, backbone: Backbone) -> NDArray[np.float32] | None:
    """Of the cases that images to be answered are compared with; None where they are those to be answered."""
    cases = [case for case in taught.split("val") if case.label is not None]
    return _embed(work, backbone, cases, "val cases") if cases and work.config.split != "val" else None


def _vote_reliability(work: Work, dataset: Dataset, backbone: Backbone, index: CaseIndex) -> float | None:
    """Balanced accuracy of the similar cases' vote on validation, as specialists' reliability is."""
    from gsco.evaluation import metrics

    cases = [case for case in dataset.split("val") if case.label is not None]
    if not cases:
        return None
    found = index.search(_embed(work, backbone, cases, "val cases"), work.config.neighbours)
    votes = [Evidence(neighbours=similar).neighbour_choice(dataset.task.keys) for similar in found]
    truth = np.asarray(dataset.targets(cases), dtype=np.int64)
    return round(metrics.balanced_accuracy(truth, np.asarray(votes), len(dataset.task.options)), 6)


# specialists ---------------------------------------------------------------------------------------


def _specialist(work: Work, dataset: Dataset, recipe: str) -> Specialist:
    """One specialist, trained unless it is there, and its predictions for val and the answered split."""
    from gsco.specialists.registry import load_specialist, train_specialist

    config, folder = work.config, work.folder.specialists / safe_name(recipe)
    if not (folder / "config.json").is_file():
        with work.stage(f"specialist {recipe}") as step, work.folder.building(folder) as temporary:
            train_specialist(
                recipe,
                dataset,
                cache=work.cache,
                out=temporary,
                seed=config.seed,
                quick=config.quick,
                progress=lambda what, done, total: step(
                    done, total, what.removeprefix(f"{safe_name(recipe)}: ")
                ),
            )
    # always as it stands on disk: a resumed run must not differ from an unbroken one by a rounding
    specialist = load_specialist(folder, cache=work.cache)
    for split in dict.fromkeys(("val", config.split)):
        path = _predictions_path(work, specialist.name, split)
        if not path.is_file():
            cases = [case for case in dataset.split(split) if case.label is not None]
            with work.stage(f"specialist {recipe} on {split}", total=len(cases)) as step:
                probabilities = specialist.predict([case.image for case in cases])
                _write_predictions(path, [case.id for case in cases], probabilities)
                step(len(cases))
    return specialist


def safe_name(recipe: str) -> str:
    """A recipe as a file name (``texture_probe:resnet18`` → ``texture_probe-resnet18``)."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", recipe).strip("-.")


def _predictions_path(work: Work, name: str, split: str) -> Path:
    return work.folder.predictions / f"{safe_name(name)}.{split}.npz"


def _write_predictions(path: Path, ids: Sequence[str], probabilities: NDArray[np.float64]) -> None:
    with storage_errors(path):
        path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, ids=np.asarray(ids, dtype=np.str_), probabilities=probabilities)
    write_atomic(path, buffer.getvalue())


def _read_predictions(work: Work, name: str, split: str) -> tuple[list[str], NDArray[np.float64]]:
    path = _predictions_path(work, name, split)
    try:
        with np.load(path, allow_pickle=False) as stored:
            return [str(case_id) for case_id in stored["ids"]], stored["probabilities"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise RunError(
            "is damaged or missing", where=str(path), remedy="Delete it and resume the run."
        ) from None


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
        ids, probabilities = _read_predictions(work, specialist.name, "val")
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
