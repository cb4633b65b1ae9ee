"""MedMNIST ``.npz`` files (and any ``.npz`` of the same form) as datasets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases.case import SPLITS, Case, Dataset, ImageRef, Task
from gsco.cases.medmnist_names import MEDMNIST_2D
from gsco.cases.names import UNKNOWN_MODALITY, make_options
from gsco.cases.npz import npz_array, npz_keys, npz_shape
from gsco.errors import DatasetError, LabelError, NoLabelsError


def load_npz(path: Path, *, modality: str | None = None, name: str | None = None) -> Dataset:
    """A dataset from ``{train,val,test}_images`` and ``_labels`` arrays.

    Images are (N, H, W) or (N, H, W, 3); labels (N,), (N, 1), or (N, L) of zeros and ones for several
    labels a row. Case ids are ``test:17``; option keys are class numbers, in numeric order.

    Raises:
        DatasetError: not an ``.npz`` of this form, or 3D volumes.
        NoLabelsError: no label arrays.
        LabelError: a class number outside the set's own.
    """
    where = str(path)
    keys = npz_keys(path)
    stem = path.stem.lower()
    known = MEDMNIST_2D.get(re.sub(r"_\d+$", "", stem))
    present = [split for split in SPLITS if f"{split}_images" in keys]
    if not present:
        raise DatasetError(
            f"has no array train_images, val_images or test_images (it has {', '.join(keys) or 'nothing'})",
            where=where,
            remedy="Name the arrays as MedMNIST does.",
        )
    if not any(f"{split}_labels" in keys for split in present):
        raise NoLabelsError(
            "has images and no labels", where=where, remedy="Add train_labels, val_labels and test_labels."
        )
    labels = {split: _labels(path, split, keys) for split in present}
    multi = known.multi_label if known else any(array.shape[1] > 1 for array in labels.values())
    width = max(array.shape[1] for array in labels.values())
    if known:
        count = len(known.labels)
        positions = list(range(count))
    elif multi:
        positions = list(range(width))
    else:
        positions = sorted({int(value) for array in labels.values() for value in np.unique(array)})
    allowed = {str(i) for i in positions}
    cases: list[Case] = []
    for split in present:
        for row, values in enumerate(labels[split].tolist()):
            own = tuple(str(i) for i, on in enumerate(values) if on) if multi else (str(values[0]),)
            if not allowed.issuperset(own):
                raise LabelError(
                    f"{split}_labels, row {row}: label {own[0]} is none of the {len(positions)} classes",
                    where=where,
                )
            cases.append(Case(f"{split}:{row}", (ImageRef(path, f"{split}_images", row),), own, split))
    names = {str(i): known.name(i) for i in positions} if known else {str(i): f"class {i}" for i in positions}
    card: dict[str, Any] = {"format": "npz", "split": "given"}
    if known:
        card |= {
            "licence": known.licence,
            "source": "MedMNIST v2, Yang et al., Scientific Data 10:41 (2023)",
        }
    task = Task(
        "diagnosis",
        modality or (known.modality if known else UNKNOWN_MODALITY),
        make_options([str(i) for i in positions], names),
        multi,
        known.ordinal if known else False,
    )
    return Dataset(name or stem, task, tuple(cases), path, card)


def _labels(path: Path, split: str, keys: tuple[str, ...]) -> NDArray[np.int64]:
    """Labels of a split, shape (N, L), after a look at the images' header."""
    where = str(path)
    if f"{split}_labels" not in keys:
        raise NoLabelsError(f"has {split}_images and no {split}_labels", where=where, remedy="Add the array.")
    images, labels = npz_shape(path, f"{split}_images"), npz_array(path, f"{split}_labels")
    if len(images) not in (3, 4) or (len(images) == 4 and images[3] not in (1, 3)):
        kind = "3D volumes are not read" if len(images) in (4, 5) else "rows must be pictures"
        raise DatasetError(f"{split}_images has shape {images}: {kind}", where=where)
    if labels.dtype.kind not in "iub" or labels.ndim not in (1, 2):
        raise DatasetError(
            f"{split}_labels has shape {labels.shape} and type {labels.dtype}; class numbers are needed",
            where=where,
        )
    if labels.shape[0] != images[0]:
        raise DatasetError(f"{split} has {images[0]} images and {labels.shape[0]} labels", where=where)
    return labels.reshape(labels.shape[0], -1).astype(np.int64)
