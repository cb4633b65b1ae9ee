"""`build_evidence`: opinions and neighbours of every case of a dataset, out of fold on training cases.

A killed build goes on where it was: features, folds and networks in training are kept in the cache,
specialists, index and predictions in the folder, and the lines are appended in synced blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import SPLITS, Dataset, Split
from gsco.cases.hashing import file_hash
from gsco.collaboration import assemble, similar_to_known
from gsco.embedded import cache_home
from gsco.errors import DatasetError, LeakageError, RunError
from gsco.evaluation.data import fingerprint
from gsco.evaluation.environment import describe_environment, set_threads
from gsco.evaluation.evidence_folder import KEY, LOG, RECORD, SCHEMA, evidence_line
from gsco.evaluation.evidence_leakage import LEAKAGE, check_kinds, find_leakage, known_cases, with_groups
from gsco.evaluation.evidence_voices import Asked, resolve
from gsco.evaluation.foreign import settle_sign
from gsco.evaluation.parts import (
    build_index,
    embed,
    load_encoder,
    speak,
    speak_out_of_fold,
    trained,
    vote_reliability,
)
from gsco.evaluation.progress import Reporter, Silent, Step
from gsco.evaluation.runfolder import RunFolder, normal_path
from gsco.specialists.base import Opinion, opinion_of

if TYPE_CHECKING:
    from gsco.retrieval import CaseIndex, Neighbour
    from gsco.specialists.backbones import Backbone

_LINES = 64  # of one synced write


@dataclass(frozen=True, slots=True)
class _Means:
    folder: RunFolder
    cache: Path
    progress: Reporter

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Step]:
        return self.progress.stage(name, total)


@dataclass(frozen=True, slots=True)
class _Settings:
    """What decides the content besides the data."""

    asked: tuple[Asked, ...]
    index: Path | None
    backbone: str
    neighbours: int
    folds: int
    seed: int
    quick: bool
    allow_leakage: tuple[str, ...]

    def to_json(self, encoder: str) -> dict[str, Any]:
        return {
            "specialists": [each.to_json() for each in self.asked],
            "index": None if self.index is None else str(self.index),
            "backbone": self.backbone,
            "encoder": encoder,
            "neighbours": self.neighbours,
            "folds": self.folds,
            "seed": self.seed,
            "quick": self.quick,
            "allow_leakage": list(self.allow_leakage),
        }


def build_evidence(
    dataset: Dataset,
    specialists: Sequence[Path | str],
    out: Path | str,
    *,
    index: Path | str | None = None,
    backbone: str = "embedded",
    neighbours: int = 10,
    folds: int = 3,
    seed: int = 0,
    quick: bool = False,
    unseen: Collection[str] = (),
    allow_leakage: Collection[str] = (),
    cache: Path | None = None,
    progress: Reporter | None = None,
) -> dict[str, Any]:
    """Write what is known about every case of a dataset before a generalist speaks.

    About validation and test cases the specialists speak themselves, and the index is searched. About a
    training case only those speak that never saw it: specialists trained by the same recipe on the other
    folds (patients, groups and near-copies stay in one fold), and neighbours that are neither the case
    itself nor of its patient or group, nor a near-copy of it. Training cases that are, or nearly are,
    validation or test cases are dropped from the index.

    Args:
        dataset: single-label diagnosis.
        specialists: folders of specialists, or recipes; a recipe is trained into the folder first.
        out: the folder to make, or to go on with.
        index: folder of an index of this dataset's training cases; made where None.
        backbone: timm name or folder by whose pooled features neighbours are found.
        neighbours: how many of each case.
        folds: of the training cases, at least 2.
        seed: of folds and training.
        quick: train for fewer epochs.
        unseen: names of specialists that never saw the training cases (an imported model); they speak about
            them themselves, and need no recipe.
        allow_leakage: kinds of leakage to let pass, by name (`gsco.retrieval.KINDS`).
        cache: where features and folds are kept; ``$GSCO_CACHE`` or ``~/.cache/gsco`` by default.
        progress: where progress goes; nowhere by default.

    Returns:
        The content of ``evidence.json``. The evidence itself is read with `gsco.read_evidence`.

    Raises:
        UserError: the data, a specialist, the index or the folder cannot be used.
    """
    from gsco.specialists.registry import training_job

    training_job(dataset, cache=cache_home(cache), seed=seed)  # says what is wrong with the data
    if dataset.task.multi_label:
        raise DatasetError(
            "is a multi-label task",
            where=str(dataset.root),
            remedy="Evidence is about cases with one label of a closed list.",
        )
    check_kinds(allow_leakage)
    encoder = load_encoder(backbone)
    settings = _Settings(
        asked=resolve(specialists, dataset.task.keys, unseen),
        index=None if index is None else normal_path(Path(index)),
        backbone=backbone,
        neighbours=neighbours,
        folds=folds,
        seed=seed,
        quick=quick,
        allow_leakage=tuple(sorted(allow_leakage)),
    )
    folder = RunFolder(Path(out))
    ours = any((folder.path / name).is_file() for name in (RECORD, RunFolder.LOCK))
    if folder.path.is_dir() and any(folder.path.iterdir()) and not ours:
        raise RunError("is not empty", where=str(out), remedy="Name a new folder with --out.")
    with folder.locked():
        means = _Means(folder, cache_home(cache), progress or Silent())
        return _execute(means, dataset, settings, encoder)


def _execute(means: _Means, dataset: Dataset, settings: _Settings, encoder: Backbone) -> dict[str, Any]:
    record = _begin(means.folder, dataset, settings, encoder)
    if record["complete"]:
        return record
    leakage = find_leakage(means, dataset, settings.allow_leakage, means.progress.note)
    grouped = with_groups(dataset, leakage["groups"])
    gone = frozenset(leakage["validation"]["left_out"])
    taught = replace(grouped, cases=tuple(case for case in grouped if case.id not in gone))
    index = _open_index(means, grouped, encoder, settings, frozenset(leakage["purged"]))
    opinions = [_opinions(means, grouped, taught, each, settings) for each in settings.asked]
    votes = _write_lines(means, grouped, taught, index, encoder, settings, opinions)
    cases = {split: len(known_cases(dataset, split)) for split in SPLITS}
    record |= {
        "complete": True,
        "sha256": file_hash(means.folder.path / LOG),
        "cases": cases,
        "unlabelled_training_cases": len(dataset.split("train")) - cases["train"],
        "specialists": [
            {
                "name": each.name,
                "recipe": each.recipe,
                "reliability": _stated(said["val"] or said["test"]),
                "reliability_out_of_fold": _stated(said["train"]),
            }
            for each, said in zip(settings.asked, opinions, strict=True)
        ],
        "neighbours": votes,
        "index": {"version": index.version, "encoder": index.encoder, "n": len(index)},
        "leakage": {key: value for key, value in leakage.items() if key != "groups"},
    }
    means.folder.write_json(RECORD, record)
    return record


def _begin(folder: RunFolder, dataset: Dataset, settings: _Settings, encoder: Backbone) -> dict[str, Any]:
    """``evidence.json`` as it stands, or begun; RunError where anything was made with other settings.

    A build that ended before it made a part (a patient in two splits, say) may be begun anew otherwise.
    """
    now: dict[str, Any] = {
        "schema": SCHEMA,
        "complete": False,
        "dataset": {
            "name": dataset.name,
            "fingerprint": fingerprint(dataset),
            "options": list(dataset.task.keys),
        },
        "settings": settings.to_json(encoder.fingerprint),
        "environment": describe_environment(set_threads(None)),
    }
    before: dict[str, Any] = folder.read_json(RECORD) or {}
    differing = [
        f"{name} was {before.get(part, {}).get(name)!r}, not {value!r}"
        for part in ("dataset", "settings")
        for name, value in now[part].items()
        if before.get(part, {}).get(name) != value
    ]
    made = (folder.specialists, folder.index, folder.predictions, folder.path / LOG)
    if not before or (differing and not any(path.exists() for path in made)):
        (folder.path / LEAKAGE).unlink(missing_ok=True)
        folder.write_json(RECORD, now)
        return now
    if differing:
        raise RunError(
            f"was begun otherwise: {differing[0]}",
            where=str(folder.path),
            remedy="Give the same settings again, or name another --out.",
        )
    return before


def _open_index(
    means: _Means, dataset: Dataset, encoder: Backbone, settings: _Settings, purged: frozenset[str]
) -> CaseIndex:
    """The given index, or one of the training cases, without those that are too close to other splits."""
    train = known_cases(dataset, "train")
    if settings.index is None:
        return build_index(means, train, dataset.name, encoder, purged)
    from gsco.retrieval import CaseIndex

    index = CaseIndex.from_pretrained(settings.index, expect_encoder=encoder.fingerprint)
    strange = set(index.case_ids) - {case.id for case in train}
    if index.dataset != dataset.name or strange:
        held = f"case {min(strange)}" if strange else f"cases of {index.dataset!r}"
        raise LeakageError(
            f"holds {held}, which the training cases of {dataset.name!r} do not have",
            where=str(settings.index),
            remedy="Give an index of this dataset's training cases, or none.",
        )
    return index.without(purged & set(index.case_ids))


def _opinions(
    means: _Means, dataset: Dataset, taught: Dataset, asked: Asked, settings: _Settings
) -> dict[Split, list[Opinion]]:
    """What one specialist says about each case of each split, and how reliable that is."""
    from gsco.specialists.loading import load_specialist

    keys, train = dataset.task.keys, known_cases(dataset, "train")
    if asked.folder is None:
        specialist = trained(means, taught, asked.recipe, seed=settings.seed, quick=settings.quick)
    else:
        specialist = load_specialist(asked.folder, cache=means.cache, runtime="pytorch")
    rows = {
        split: speak_out_of_fold(
            means,
            asked.name,
            asked.recipe,
            taught,
            folds=settings.folds,
            seed=settings.seed,
            quick=settings.quick,
            size=asked.size,
            pad=asked.pad,
        )
        if split == "train" and not asked.unseen
        else speak(means, specialist, known_cases(dataset, split), split, keys)
        for split in SPLITS
    }
    said = {split: [opinion_of(specialist, row, keys) for row in rows[split]] for split in SPLITS}
    return {**said, "train": _out_of_fold_opinions(asked.name, rows["train"], dataset.targets(train))}


def _out_of_fold_opinions(name: str, rows: NDArray[np.float64], targets: Sequence[int]) -> list[Opinion]:
    """Opinions about training cases; how reliable they are is read from these very answers."""
    from gsco.evaluation.metrics import balanced_accuracy
    from gsco.specialists.calibration import class_reliability
    from gsco.specialists.conformal import ANSWERED, cut_of_share

    truth = np.asarray(targets, dtype=np.int64)
    overall = round(balanced_accuracy(truth, rows.argmax(axis=1), rows.shape[1]), 6)
    shares, below = class_reliability(rows, truth), cut_of_share(rows.max(axis=1), ANSWERED)
    return [Opinion(name, tuple(map(float, row)), overall, shares, bool(row.max() < below)) for row in rows]


def _stated(opinions: Sequence[Opinion]) -> float | None:
    return opinions[0].reliability if opinions else None


def _write_lines(
    means: _Means,
    dataset: Dataset,
    taught: Dataset,
    index: CaseIndex,
    encoder: Backbone,
    settings: _Settings,
    opinions: Sequence[dict[Split, list[Opinion]]],
) -> dict[str, Any]:
    """Append the lines that are not there yet; returns how reliable the neighbours' vote is.

    Args:
        means: folder, cache and progress.
        dataset: all cases, near-copies of training cases grouped.
        taught: the same without the validation cases that count for nothing.
        index: of training cases.
        encoder: the index's.
        settings: for the number of neighbours.
        opinions: of each specialist about each case of each split.
    """
    log = means.folder.path / LOG
    written = [(line["split"], line["case_id"]) for line in means.folder.recover_log(log, KEY)]
    seen = {split: _features(means, dataset, split, encoder) for split in SPLITS}
    found = {split: _similar(dataset, split, index, seen[split], settings) for split in SPLITS}
    counted = {case.id for case in taught if case.label is not None}
    kept = [i for i, case in enumerate(known_cases(dataset, "val")) if case.id in counted]
    sign = settle_sign(means.folder, index, lambda: seen["val"][kept] if kept else None)
    judged = [
        (case, near)
        for case, near in zip(known_cases(dataset, "val"), found["val"], strict=True)
        if case.id in counted
    ]
    votes = {
        "reliability": vote_reliability(dataset, [case for case, _ in judged], [near for _, near in judged])
        if judged
        else None,
        "reliability_out_of_fold": vote_reliability(dataset, known_cases(dataset, "train"), found["train"]),
    }
    wanted = [(split, case.id) for split in SPLITS for case in known_cases(dataset, split)]
    if written != wanted[: len(written)]:
        raise RunError(
            "holds other lines than these settings give",
            where=str(log),
            remedy="Delete it and give the same command again.",
        )
    skip = len(written)
    with means.stage("evidence", total=len(wanted)) as step:
        done = 0
        for split in SPLITS:
            fresh = split == "train"
            vote = votes["reliability_out_of_fold" if fresh else "reliability"]
            # a known case is never foreign; of a new one it is asked
            foreign = None if fresh or not len(seen[split]) else sign.judge(index, seen[split])
            evidence = assemble([said[split] for said in opinions], found[split], vote, foreign)
            pairs = list(zip(known_cases(dataset, split), evidence, strict=True))
            for start in range(0, len(pairs), _LINES):
                block = pairs[start : start + _LINES]
                lines = [evidence_line(c, e, dataset=dataset.name, out_of_fold=fresh) for c, e in block]
                means.folder.append(lines[max(0, skip - done) :], log)
                done += len(block)
                step(done)
    return votes


def _features(means: _Means, dataset: Dataset, split: Split, encoder: Backbone) -> NDArray[np.float32]:
    """Pooled features of the cases of a split, (n, channels)."""
    cases = known_cases(dataset, split)
    if not cases:
        return np.zeros((0, encoder.channels), dtype=np.float32)
    return embed(means, encoder, cases, f"{split} cases")


def _similar(
    dataset: Dataset, split: Split, index: CaseIndex, features: NDArray[np.float32], settings: _Settings
) -> list[tuple[Neighbour, ...]]:
    """The neighbours of each case of a split; of a training case none that it stands together with."""
    cases = known_cases(dataset, split)
    if not cases:
        return []
    if split == "train":
        return similar_to_known(index, features, cases, settings.neighbours)
    return index.search(features, settings.neighbours)
