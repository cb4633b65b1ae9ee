"""Training images that copy an image of another split are not learned from, in whatever form they come."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from gsco.cases import Case, Dataset, ImageRef
from gsco.disk import whole_file
from gsco.generalist.records import Record
from gsco.progress import Progress
from gsco.retrieval import check_leakage


def without_copies(
    datasets: Sequence[Dataset], path: Path, *, progress: Progress | None = None
) -> tuple[list[Dataset], set[ImageRef]]:
    """The datasets without training cases that are, or nearly are, cases of their own other splits.

    A copy is looked for where there are labels; what is left out there is left out of datasets of reports,
    too. Questions stay: they are about other things than the label.

    Args:
        datasets: as they were loaded.
        path: file of what is left out, by dataset; read where it is there, else written.
        progress: told what is done.

    Returns:
        The datasets, and the images that were left out, by resolved path.

    Raises:
        LeakageError: a set shares ids or groups between its splits.
    """
    known: dict[str, list[str]] = json.loads(path.read_text()) if path.exists() else {}
    left_out: set[ImageRef] = set()
    for dataset in datasets:
        if dataset.task.kind != "diagnosis":
            continue
        train, others = dataset.split("train"), [case for case in dataset.cases if case.split != "train"]
        if dataset.name not in known and others:
            report = check_leakage(
                train,
                others,
                progress=partial(progress, f"looking for copies in {dataset.name}") if progress else None,
            )
            report.raise_if()
            known[dataset.name] = sorted(report.purge())
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as draft:
                draft.write_text(json.dumps(known))
        gone = set(known.get(dataset.name, ()))
        left_out |= {place(image) for case in train if case.id in gone for image in case.images}
    kept = [
        dataset
        if dataset.task.kind == "vqa"
        else dataclasses.replace(dataset, cases=tuple(c for c in dataset.cases if _may_stay(c, left_out)))
        for dataset in datasets
    ]
    return kept, left_out


def not_about(records: Sequence[Record], left_out: Collection[ImageRef]) -> list[Record]:
    """The records that show none of the images that are left out, each given by its `place`."""
    return [record for record in records if not record.image or place(record.image) not in left_out]


def _may_stay(case: Case, left_out: Collection[ImageRef]) -> bool:
    return case.split != "train" or not any(place(image) in left_out for image in case.images)


def place(image: ImageRef) -> ImageRef:
    """The same image by its resolved path, so that two ways to it are one."""
    return dataclasses.replace(image, path=image.path.resolve())
