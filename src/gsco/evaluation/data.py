"""The first stage: the dataset is read and checked, and the cases to be answered are drawn."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gsco.cases import Case, Dataset
from gsco.errors import DatasetError, NoLabelsError, RunError, counted
from gsco.evaluation.runfolder import RunFolder
from gsco.evaluation.work import Work


def read_dataset(work: Work) -> tuple[Dataset, tuple[Case, ...]]:
    """Load and check the dataset; returns it with the cases to be answered.

    Every image is opened once: a broken one is named, counted and left out here, not later.

    Raises:
        DatasetError: the folder is no dataset, not of closed single-label diagnosis, or holds nothing to
            learn from.
        RunError: the run was started on other data.
    """
    from gsco.cases import load_dataset
    from gsco.specialists.registry import missing_cases, training_job

    config = work.config
    with work.stage("reading the dataset") as step:
        dataset = load_dataset(
            config.data,
            max_broken=config.max_broken,
            check_images=True,
            modality=config.modality,
            seed=config.seed,
            progress=step,
        )
        if dataset.task.kind != "diagnosis" or dataset.task.multi_label or not dataset.task.options:
            raise DatasetError(
                f"is a {'multi-label ' if dataset.task.multi_label else ''}{dataset.task.kind} task",
                where=str(config.data),
                remedy="`gsco run` answers diagnosis with one label of a closed list.",
            )
        known = {case.split for case in dataset if case.label is not None}
        missing = [split for split in ("train", "val", config.split) if split not in known]
        if missing:
            raise NoLabelsError(
                f"has no labelled case in split {missing[0]!r}",
                where=str(config.data),
                remedy="Training, choosing the best specialist and answering need train, val and test cases.",
            )
        training_job(dataset, cache=work.cache)  # says now, not after all features, what cannot be learned
        cases = draw(
            [case for case in dataset.split(config.split) if case.label is not None],
            config.limit,
            config.seed,
        )
        absent = missing_cases(dataset)
        record = {
            "schema": 1,
            "name": dataset.name,
            "fingerprint": fingerprint(dataset),
            "task": {
                "kind": dataset.task.kind,
                "modality": dataset.task.modality,
                "options": [{"key": option.key, "name": option.name} for option in dataset.task.options],
            },
            "cases": {split: len(dataset.split(split)) for split in ("train", "val", "test")},
            "answered": len(cases),
            "absent": absent,
            "skipped": list(dataset.skipped),
            "card": {str(key): json_value(value) for key, value in dataset.card.items()},
        }
        before = work.folder.read_json("dataset.json")
        if before is not None and before["fingerprint"] != record["fingerprint"]:
            raise RunError(
                "the data changed since this run was started",
                where=str(config.data),
                remedy="Restore them, or start a new run with another --out.",
            )
        if before is None:
            work.folder.write_json("dataset.json", record)
    for line in absent:
        work.progress.note(line)
    if dataset.skipped:
        work.progress.note(f"{counted(len(dataset.skipped), 'broken image')} skipped:")
        for line in dataset.skipped[:20]:
            work.progress.note(f"  {line}")
        if len(dataset.skipped) > 20:
            work.progress.note("  … the others are named in dataset.json")
    return dataset, tuple(cases)


def read_record(folder: RunFolder) -> dict[str, Any]:
    """``dataset.json``; RunError where it is missing or not whole."""
    record: dict[str, Any] | None = folder.read_json("dataset.json")
    if record is None or not {"name", "task", "cases", "answered", "skipped", "card"} <= set(record):
        raise RunError(
            "is missing, or not whole",
            where=str(folder.path / "dataset.json"),
            remedy=f"Continue the run with `gsco run --resume {folder.path}`.",
        )
    return record


def json_value(value: Any) -> Any:
    """A value of a dataset card as JSON has it: dates and whatever else it lacks as text."""
    if isinstance(value, dict):
        return {str(key): json_value(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(each) for each in value]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


def draw(cases: Sequence[Case], limit: int | None, seed: int) -> list[Case]:
    """At most `limit` cases, drawn by `seed` with each label's share kept, in their old order."""
    if limit is None or limit >= len(cases):
        return list(cases)
    rng = np.random.default_rng([seed, 101])
    order = rng.permutation(len(cases))
    by_label: dict[str | None, list[int]] = {}
    for position in order:
        by_label.setdefault(cases[position].label, []).append(int(position))
    # rank within the label, as a share of the label: taking the lowest ranks keeps the shares
    ranks = sorted(
        ((i + 0.5) / len(members), str(label), position)
        for label, members in by_label.items()
        for i, position in enumerate(members)
    )
    chosen = sorted(position for _, _, position in ranks[:limit])
    return [cases[position] for position in chosen]


def fingerprint(dataset: Dataset) -> str:
    """Hash of what makes these data these data: options, cases, labels, splits, files and sizes."""
    digest = hashlib.sha256()

    def add(*parts: object) -> None:
        digest.update("\x1f".join("" if part is None else str(part) for part in parts).encode() + b"\x1e")

    add(dataset.task.kind, dataset.task.modality, dataset.task.multi_label)
    for option in dataset.task.options:
        add(option.key, option.name)
    sizes: dict[Path, int] = {}
    for case in dataset:
        add(case.id, case.split, *case.labels, case.cluster)
        for ref in case.images:
            if ref.path not in sizes:
                sizes[ref.path] = ref.path.stat().st_size
            name = (
                ref.path.relative_to(dataset.root) if ref.path.is_relative_to(dataset.root) else ref.path.name
            )
            add(name, ref.key, ref.index, sizes[ref.path])
    for line in dataset.skipped:
        add(line)
    return digest.hexdigest()
