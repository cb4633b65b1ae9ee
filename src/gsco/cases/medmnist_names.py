"""What the 2D sets of MedMNIST v2 call their classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MedMNISTSet:
    """One of the 2D MedMNIST sets.

    Attributes:
        modality: readable.
        labels: label names as published in ``medmnist.INFO``, by class number.
        readable: names that replace published ones which are no phrase, by class number.
        licence: as published.
        multi_label: whether a row has any number of the labels.
        ordinal: whether the labels are grades.
    """

    modality: str
    labels: tuple[str, ...]
    readable: Mapping[int, str]
    licence: str = "CC BY 4.0"
    multi_label: bool = False
    ordinal: bool = False

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
    ),
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
    ),
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
    ),
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
        ordinal=True,
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
    ),
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
    ),
    "organamnist": MedMNISTSet("abdominal CT, axial", _ORGANS, _ORGAN_NAMES),
    "organcmnist": MedMNISTSet("abdominal CT, coronal", _ORGANS, _ORGAN_NAMES),
    "organsmnist": MedMNISTSet("abdominal CT, sagittal", _ORGANS, _ORGAN_NAMES),
}
"""The 2D sets of MedMNIST v2 (Yang et al., Scientific Data 10:41, 2023)."""
