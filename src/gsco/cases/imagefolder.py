"""Folders of images by class: ``root/{train,val,test}/class/*.png`` or ``root/class/*.png``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gsco.cases.case import SPLITS, Case, Dataset, ImageRef, Split, Task
from gsco.cases.images import IMAGE_SUFFIXES
from gsco.cases.names import UNKNOWN_MODALITY, known_set, make_options
from gsco.cases.splits import draw_splits
from gsco.errors import DatasetError, NoLabelsError

SPLIT_FOLDERS: Mapping[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
"""Folder names (lower case) that are splits."""

_NOT_CLASSES = frozenset(
    {"images", "image", "img", "imgs", "files", "masks", "labels", "annotations", "crops"}
)


def load_imagefolder(
    root: Path, *, modality: str | None = None, name: str | None = None, seed: int = 0
) -> Dataset:
    """Read images sorted into one folder per class; no image is opened.

    Without split folders, train, val and test are drawn (70/10/20, by class, seeded), since nothing says
    which images belong together; without a val folder, val is drawn from train. The card says so.

    Raises:
        NoLabelsError: fewer than two class folders with images.
    """
    folders = _folders(root)
    by_split: dict[Split, Path] = {}
    for key, path in folders.items():
        if key.lower() in SPLIT_FOLDERS:
            other = by_split.setdefault(SPLIT_FOLDERS[key.lower()], path)
            if other != path:
                raise DatasetError(
                    f"folders {other.name} and {key} are the same split",
                    where=str(root),
                    remedy="Put their images together.",
                )
    roots: dict[Split | None, Path] = {None: root}
    if "train" in by_split:
        roots = {split: by_split[split] for split in SPLITS if split in by_split}
    cases: list[Case] = []
    for split, top in roots.items():
        for label, folder in sorted(_folders(top).items()):
            if label.lower() in _NOT_CLASSES:
                continue
            for image in _images(folder):
                case_id = image.relative_to(root).as_posix()
                cases.append(Case(case_id, (ImageRef(image),), (label,), split or "train"))
    keys = sorted({case.labels[0] for case in cases})
    if len(keys) < 2:
        raise NoLabelsError(
            "there is no labels.csv, vqa.jsonl or reports.jsonl, and no two folders of images named by class",
            where=str(root),
            remedy="Add labels.csv (columns image,label,split), or put the images into one folder per class.",
        )
    card = {"format": "image folder", "split": "given"}
    if None in roots:
        cases = list(draw_splits(cases, seed=seed))
        card["split"] = f"drawn: 70/10/20, by class, seed {seed}"
    elif "val" not in by_split:
        own = [case for case in cases if case.split == "train"]
        rest = [case for case in cases if case.split != "train"]
        cases = [*draw_splits(own, seed=seed, shares=(0.875, 0.125, 0.0)), *rest]
        card["split"] = f"given; val drawn from train, 12.5 %, by class, seed {seed}"
    title = name or root.resolve().name
    known = known_set(title)
    options = make_options(keys, known.names if known else None)
    task = Task("diagnosis", modality or (known.modality if known else UNKNOWN_MODALITY), options)
    return Dataset(title, task, tuple(cases), root, card)


def _folders(root: Path) -> dict[str, Path]:
    with os.scandir(root) as entries:
        return {
            entry.name: Path(entry.path) for entry in entries if entry.is_dir() and entry.name[0] not in "._"
        }


def _images(folder: Path) -> list[Path]:
    """All images at or below a folder, sorted."""
    found = [
        Path(top) / name
        for top, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
    ]
    return sorted(found)
