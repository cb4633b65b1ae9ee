"""MedMNIST ``.npz`` files (and any ``.npz`` of the same form) as datasets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases.case import SPLITS, Case, Dataset, ImageRef, Task
from gsco.cases.names import UNKNOWN_MODALITY, make_options
from gsco.cases.npz import npz_array, npz_keys
from gsco.errors import DatasetError, LabelError, NoLabelsError


@dataclass(frozen=True, slots=True)
class MedMNISTSet:
    """One of the 2D MedMNIST sets.

    Attributes:
        modality: readable.
        labels: label names as published in ``medmnist.INFO``, by class number.
        readable: names that replace published ones which are no phrase, by class number.
        licence: as published.
        multi_label: whether a row has any number of the labels.
    """

    modality: str
    labels: tuple[str, ...]
    readable: Mapping[int, str]
    licence: str = "CC BY 4.0"
    multi_label: bool = False

    def name(self, position: int) -> str:
        """The readable name of a class."""
        return self.readable.get(position, self.labels[position])


_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left",
    "lung-right", "pancreas", "spleen",
)  # fmt: skip
_ORGAN_NAMES = {
    1: "left femur", 2: "right femur", 4: "left kidney", 5: "right kidney", 7: "left lung", 8: "right lung",
}  # fmt: skip

MEDMNIST_2D: Mapping[str, MedMNISTSet] = {
    "pathmnist": MedMNISTSet(
        "colorectal histopathology",
        (
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        {},
    ),  # fmt: skip
    "chestmnist": MedMNISTSet(
        "chest X-ray",
        (
            "atelectasis",
            "cardiomegaly",
            "effusion",
            "infiltration",
            "mass",
            "nodule",
            "pneumonia",
            "pneumothorax",
            "consolidation",
            "edema",
            "emphysema",
            "fibrosis",
            "pleural",
            "hernia",
        ),
        {12: "pleural thickening"},
        multi_label=True,
    ),  # fmt: skip
    "dermamnist": MedMNISTSet(
        "dermatoscopy",
        (
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
        {},
        licence="CC BY-NC 4.0",
    ),  # fmt: skip
    "octmnist": MedMNISTSet(
        "retinal OCT",
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
        {},
    ),
    "pneumoniamnist": MedMNISTSet("chest X-ray", ("normal", "pneumonia"), {}),
    "retinamnist": MedMNISTSet(
        "fundus photograph",
        ("0", "1", "2", "3", "4"),
        {
            0: "no diabetic retinopathy",
            1: "mild diabetic retinopathy",
            2: "moderate diabetic retinopathy",
            3: "severe diabetic retinopathy",
            4: "proliferative diabetic retinopathy",
        },
    ),
    "breastmnist": MedMNISTSet("breast ultrasound", ("malignant", "normal, benign"), {1: "normal or benign"}),
    "bloodmnist": MedMNISTSet(
        "blood smear microscopy",
        (
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
        {3: "immature granulocyte"},
    ),  # fmt: skip
    "tissuemnist": MedMNISTSet(
        "kidney cortex microscopy",
        (
            "Collecting Duct, Connecting Tubule",
            "Distal Convoluted Tubule",
            "Glomerular endothelial cells",
            "Interstitial endothelial cells",
            "Leukocytes",
            "Podocytes",
            "Proximal Tubule Segments",
            "Thick Ascending Limb",
        ),
        {
            0: "collecting duct or connecting tubule",
            1: "distal convoluted tubule",
            2: "glomerular endothelial cells",
            3: "interstitial endothelial cells",
            4: "leukocytes",
            5: "podocytes",
            6: "proximal tubule segments",
            7: "thick ascending limb",
        },
    ),  # fmt: skip
    "organamnist": MedMNISTSet("abdominal CT, axial", _ORGANS, _ORGAN_NAMES),
    "organcmnist": MedMNISTSet("abdominal CT, coronal", _ORGANS, _ORGAN_NAMES),
    "organsmnist": MedMNISTSet("abdominal CT, sagittal", _ORGANS, _ORGAN_NAMES),
}
"""The 2D sets of MedMNIST v2 (Yang et al., Scientific Data 10:41, 2023)."""


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
    )
    return Dataset(name or stem, task, tuple(cases), path, card)


def _labels(path: Path, split: str, keys: tuple[str, ...]) -> NDArray[np.int64]:
    """Labels of a split, shape (N, L), after a look at the images' header."""
    where = str(path)
    if f"{split}_labels" not in keys:
        raise NoLabelsError(f"has {split}_images and no {split}_labels", where=where, remedy="Add the array.")
    images, labels = npz_array(path, f"{split}_images"), npz_array(path, f"{split}_labels")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        kind = "3D volumes are not read" if images.ndim in (4, 5) else "rows must be pictures"
        raise DatasetError(f"{split}_images has shape {images.shape}: {kind}", where=where)
    if labels.dtype.kind not in "iub" or labels.ndim not in (1, 2):
        raise DatasetError(
            f"{split}_labels has shape {labels.shape} and type {labels.dtype}; class numbers are needed",
            where=where,
        )
    if labels.shape[0] != images.shape[0]:
        raise DatasetError(f"{split} has {images.shape[0]} images and {labels.shape[0]} labels", where=where)
    return labels.reshape(labels.shape[0], -1).astype(np.int64)
