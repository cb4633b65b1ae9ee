"""The real sets beside the checkout: each loads, with the counts its README states."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gsco.cases import ImageRef, load_dataset, load_image, pixel_hash
from gsco.errors import DatasetError, NoLabelsError

pytestmark = pytest.mark.real

SETS = {
    "bccd": ((602, 245, 203), "blood smear microscopy", ("platelet", "red blood cell", "white blood cell")),
    "busi": ((545, 78, 155), "breast ultrasound", ("benign", "malignant", "normal")),
    "covid_cxr_notes": (
        (80, 9, 22),
        "chest X-ray or CT",
        (
            "acute respiratory distress syndrome", "COVID-19", "no finding", "pneumocystis pneumonia", "SARS",
            "streptococcal pneumonia",
        ),
    ),
    "cxr_nih": ((557, 81, 161), "chest X-ray", ("no finding", "pneumonia")),
    "ham10000": (
        (1411, 202, 404),
        "dermatoscopy",
        (
            "actinic keratosis", "basal cell carcinoma", "benign keratosis", "dermatofibroma", "melanoma",
            "melanocytic nevus", "vascular lesion",
        ),
    ),
    "lc25000_lung": (
        (1042, 154, 301),
        "lung histopathology",
        ("lung adenocarcinoma", "benign lung tissue", "lung squamous cell carcinoma"),
    ),
    "medmnist/breastmnist.npz": ((546, 78, 156), "breast ultrasound", ("malignant", "normal or benign")),
    "medmnist/pneumoniamnist.npz": ((4708, 524, 624), "chest X-ray", ("normal", "pneumonia")),
    "vqa_rad": ((164, 24, 47), "radiology image (X-ray, CT or MRI)", ("abdomen", "chest", "head")),
    "wbc_tecom": (
        (210, 30, 59),
        "blood smear microscopy",
        ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_diagnosis_sets(shared_data: Path, name: str) -> None:
    counts, modality, names = SETS[name]
    dataset = load_dataset(shared_data / name)
    assert tuple(len(dataset.split(s)) for s in ("train", "val", "test")) == counts
    assert dataset.task.modality == modality and dataset.task.names == names
    assert not dataset.task.multi_label and not dataset.skipped
    assert dataset.card["licence"] and dataset.card["split"] == "given"
    assert all(load_image(case.image).mode == "RGB" for case in dataset.cases[:5])


@pytest.mark.parametrize("name", ["bccd", "wbc_tecom", "covid_cxr_notes"])
def test_every_image_opens(shared_data: Path, name: str) -> None:
    assert load_dataset(shared_data / name, check_images=True).skipped == ()


def test_questions(shared_data: Path) -> None:
    dataset = load_dataset(shared_data / "vqa_rad", task="vqa")
    assert tuple(len(dataset.split(s)) for s in ("train", "val", "test")) == (1183, 184, 336)
    assert all(case.question and case.answer and case.group for case in dataset)
    closed = [case for case in dataset.split("test") if case.extra["answer_type"] == "CLOSED"]
    assert len(closed) == 208


def test_reports(shared_data: Path) -> None:
    notes = load_dataset(shared_data / "covid_cxr_notes", task="report")
    assert len(notes) == 111 and all(case.report and case.patient_id for case in notes)
    texts = load_dataset(shared_data / "iu_xray_reports")
    assert texts.task.kind == "report"
    assert tuple(len(texts.split(s)) for s in ("train", "val", "test")) == (2913, 323, 290)
    assert not any(case.images for case in texts)
    assert texts.cases[0].report.startswith("FINDINGS: The cardiac silhouette")


def test_what_is_no_dataset(shared_data: Path) -> None:
    with pytest.raises(DatasetError, match=r"breastmnist\.npz, pneumoniamnist\.npz"):
        load_dataset(shared_data / "medmnist")
    with pytest.raises(NoLabelsError):
        load_dataset(shared_data / "dicom")


def test_busi_follows_breastmnist(shared_data: Path) -> None:
    """Two readings of one collection: the 28-pixel row looks like the picture it was made from."""
    busi, small = (
        load_dataset(shared_data / "busi"),
        load_dataset(shared_data / "medmnist" / "breastmnist.npz"),
    )
    rows = {case.id: case for case in small}
    similarity = []
    for case in busi.cases[:40]:
        twin = rows[case.extra["breastmnist_index"]]
        assert twin.split == case.split
        assert (twin.label == "0") == (case.label == "malignant")
        large = np.asarray(load_image(case.image).convert("L").resize((28, 28)), dtype=float)
        little = np.asarray(load_image(twin.image).convert("L"), dtype=float)
        similarity.append(np.corrcoef(large.ravel(), little.ravel())[0, 1])
    assert np.median(similarity) > 0.8


def test_a_real_dicom_and_its_inverse(shared_data: Path) -> None:
    files = shared_data / "dicom" / "files"
    usual = np.asarray(load_image(files / "cxr_siim_mono2.dcm"))
    inverse = np.asarray(load_image(files / "cxr_siim_fake_mono1.dcm"))
    assert usual.shape == (1024, 1024, 3)
    assert (inverse == 255 - usual).all()
    assert 40 < usual.mean() < 215 and usual.std() > 30
    assert pixel_hash(files / "cxr_siim_mono2.dcm") != pixel_hash(ImageRef(files / "cxr_siim_fake_mono1.dcm"))
