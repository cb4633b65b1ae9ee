"""`load_dataset`: one door to all the ways a dataset may lie on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from gsco.cases.case import Case, Dataset, ImageRef, TaskKind
from gsco.cases.conversations import load_conversations
from gsco.cases.folder import FILES, load_folder
from gsco.cases.imagefolder import load_imagefolder
from gsco.cases.images import load_image
from gsco.cases.medmnist import load_npz
from gsco.cases.paths import expanded
from gsco.cases.splits import check_ids, check_splits
from gsco.errors import DatasetError, ImageError, UserError
from gsco.progress import Count

"""Told (done, total) now and then."""


def load_dataset(
    source: Path | str,
    *,
    task: TaskKind | None = None,
    max_broken: float = 0.05,
    check_images: bool = False,
    modality: str | None = None,
    name: str | None = None,
    seed: int = 0,
    label_column: str | None = None,
    progress: Count | None = None,
) -> Dataset:
    """Read a dataset: a dataset folder, a MedMNIST ``.npz``, class folders, or conversations.

    Args:
        source: a folder, an ``.npz``, a ``labels.csv``, an InternVL conversation ``.json`` or ``.jsonl``,
            or the name of a set that `find_dataset` finds.
        task: which of a folder's files to read, where it has several; default ``labels.csv``.
        max_broken: the largest share of images that may be missing or unreadable, in [0, 1].
        check_images: open every image now instead of when it is used, so that broken ones are left out.
        modality: how the images were taken, where the data do not say (or say it wrongly).
        name: another short name.
        seed: of the draw, where no split is given.
        label_column: another column of ``labels.csv`` for the labels, e.g. one of several findings.
        progress: called with (done, total) while images are opened.

    Returns:
        The cases that can be used. ``skipped`` has one line for every image that cannot.

    Raises:
        DatasetError: the data are not as the docs describe them, or too many images are broken.
    """
    if not 0.0 <= max_broken <= 1.0:
        raise UserError(f"max_broken is {max_broken}, not a share between 0 and 1")
    path = _existing(source)
    if path.is_dir():
        dataset = _load_directory(path, task, modality, name, seed, label_column)
    elif path.suffix.lower() == ".npz":
        dataset = load_npz(path, modality=modality, name=name)
    elif path.suffix.lower() in {".json", ".jsonl"} and path.name not in FILES.values():
        dataset = load_conversations(path, modality=modality, name=name, seed=seed)
    elif path.name in FILES.values():
        kind = next(kind for kind, file in FILES.items() if file == path.name)
        dataset = load_folder(
            path.parent,
            task=task or kind,
            modality=modality,
            name=name,
            seed=seed,
            label_column=label_column,
        )
    else:
        raise DatasetError(
            "is not a dataset",
            where=str(path),
            remedy="Give a dataset folder, a MedMNIST .npz, or a conversation .json or .jsonl.",
        )
    check_ids(dataset.cases, where=str(path))
    check_splits(dataset.cases, where=str(path))
    return _without_broken(dataset, max_broken=max_broken, decode=check_images, progress=progress)


def find_dataset(name: str) -> Path | None:
    """A dataset by name: in the folder ``$GSCO_DATA``, its ``medmnist``, or medmnist's own ``~/.medmnist``.

    Returns:
        An existing folder or ``.npz``, or None.
    """
    if not name or Path(name).name != name:
        return None
    places = []
    if os.environ.get("GSCO_DATA"):
        data = expanded(os.environ["GSCO_DATA"])
        places += [data / name, data / f"{name}.npz", data / "medmnist" / f"{name}.npz"]
    places.append(Path.home() / ".medmnist" / f"{name}.npz")
    return next((place for place in places if place.exists()), None)


def find_broken(
    refs: Iterable[ImageRef], *, progress: Count | None = None, workers: int | None = None
) -> dict[ImageRef, str]:
    """Open every image, in threads, and say which cannot be read.

    Args:
        refs: the images; repeated ones are opened once.
        progress: called with (done, total) after each image.
        workers: threads; default the number of processors, at most 8.

    Returns:
        Reason by image, in the order of `refs`.
    """
    unique = list(dict.fromkeys(refs))
    broken: dict[ImageRef, str] = {}
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for done, (ref, reason) in enumerate(zip(unique, pool.map(_reason, unique), strict=True), start=1):
            if reason is not None:
                broken[ref] = reason
            if progress is not None:
                progress(done, len(unique))
    return broken


def _existing(source: Path | str) -> Path:
    path = expanded(source)
    if path.exists():
        return path
    found = find_dataset(str(source))
    if found is not None:
        return found
    raise DatasetError(
        "there is no such file or folder",
        where=str(source),
        remedy="Give a dataset folder, a MedMNIST .npz, or the name of a set in the folder $GSCO_DATA.",
    )


def _load_directory(
    root: Path,
    task: TaskKind | None,
    modality: str | None,
    name: str | None,
    seed: int,
    label_column: str | None,
) -> Dataset:
    if task is not None or any((root / file).is_file() for file in FILES.values()):
        return load_folder(
            root, task=task, modality=modality, name=name, seed=seed, label_column=label_column
        )
    arrays = sorted(root.glob("*.npz"))
    if len(arrays) == 1:
        return load_npz(arrays[0], modality=modality, name=name)
    if arrays:
        raise DatasetError(
            f"holds {len(arrays)} datasets: {', '.join(path.name for path in arrays[:12])}",
            where=str(root),
            remedy=f"Name one, for example {arrays[0]}.",
        )
    return load_imagefolder(root, modality=modality, name=name, seed=seed)


def _reason(ref: ImageRef) -> str | None:
    try:
        load_image(ref)
    except ImageError as error:
        return error.what
    return None


def _missing(refs: Iterable[ImageRef]) -> dict[ImageRef, str]:
    """Images whose file is not there, by listing each folder once (a stat each is slow on shared disks)."""
    listed: dict[Path, set[str]] = {}
    missing = {}
    for ref in refs:
        folder = ref.path.parent
        if folder not in listed:
            listed[folder] = set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208
        if ref.path.name not in listed[folder]:
            missing[ref] = "there is no such file"
    return missing


def _without_broken(dataset: Dataset, *, max_broken: float, decode: bool, progress: Count | None) -> Dataset:
    """The dataset less the cases with a broken image; DatasetError where these are too many."""
    refs = list(dict.fromkeys(ref for case in dataset.cases for ref in case.images if ref.key is None))
    broken = _missing(refs)
    if decode:
        broken |= find_broken((ref for ref in refs if ref not in broken), progress=progress)
    if not broken:
        return dataset
    lines = tuple(
        f"{_short(ref, dataset.root)}: {reason}" for ref, reason in sorted(broken.items(), key=_by_path)
    )
    share = len(broken) / len(refs)
    if share > max_broken:
        more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
        raise DatasetError(
            f"{len(broken)} of {len(refs)} images ({share:.1%}) cannot be read, more than the "
            f"{max_broken:.1%} allowed: {'; '.join(lines[:3])}{more}",
            where=str(dataset.root),
            remedy="Repair or remove them, or allow a larger share (max_broken).",
        )
    usable = _usable(dataset.cases, broken)
    return replace(dataset, cases=usable, skipped=dataset.skipped + lines)


def _usable(cases: Sequence[Case], broken: dict[ImageRef, str]) -> tuple[Case, ...]:
    return tuple(case for case in cases if not any(ref in broken for ref in case.images))


def _by_path(item: tuple[ImageRef, str]) -> str:
    return str(item[0])


def _short(ref: ImageRef, root: Path) -> str:
    return str(ref.path.relative_to(root)) if ref.path.is_relative_to(root) else str(ref)
