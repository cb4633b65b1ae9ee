"""MedMNIST arrays as datasets; the names equal those of the medmnist package."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gsco.cases import ImageRef, load_dataset, load_image
from gsco.cases.medmnist_names import MEDMNIST_2D
from gsco.cases.npz import npz_array
from gsco.errors import DatasetError, ImageError, LabelError, NoLabelsError

SIZES = {"train": 7, "val": 2, "test": 4}


def save(
    path: Path, *, colour: bool = False, labels: int = 1, classes: int = 2, compressed: bool = True
) -> dict:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in SIZES.items():
        shape = (n, 6, 5, 3) if colour else (n, 6, 5)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 2, (n, labels)).astype(np.uint8)
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return arrays


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("colour", [True, False])
def test_rows_become_cases(tmp_path: Path, compressed: bool, colour: bool) -> None:
    path = tmp_path / "breastmnist.npz"
    arrays = save(path, colour=colour, compressed=compressed)
    dataset = load_dataset(path)
    assert dataset.name == "breastmnist" and dataset.task.modality == "breast ultrasound"
    assert dataset.task.names == ("malignant", "normal or benign") and dataset.task.keys == ("0", "1")
    assert dataset.card["licence"] == "CC BY 4.0"
    assert {split: len(dataset.split(split)) for split in SIZES} == SIZES
    case = dataset.split("test")[3]
    assert case.id == "test:3" and case.image == ImageRef(path, "test_images", 3)
    for case in dataset:
        split, row = case.id.split(":")
        assert case.labels == (str(int(arrays[f"{split}_labels"][int(row), 0])),)
        pixels = np.asarray(load_image(case.image))
        expected = arrays[f"{split}_images"][int(row)]
        assert (pixels == (expected if colour else expected[..., None])).all()
    assert load_dataset(path, check_images=True) == dataset


def test_uncompressed_arrays_are_mapped(tmp_path: Path) -> None:
    save(tmp_path / "a.npz", compressed=False)
    save(tmp_path / "b.npz", compressed=True)
    assert isinstance(npz_array(tmp_path / "a.npz", "train_images"), np.memmap)
    assert not isinstance(npz_array(tmp_path / "b.npz", "train_images"), np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        npz_array(tmp_path / "b.npz", "train_images")[0] = 0


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, train_images=np.zeros((1, 2, 2), np.uint8))
    assert np.asarray(load_image(ImageRef(path, "train_images", 0))).max() == 0
    path.unlink()
    np.savez_compressed(path, train_images=np.full((3, 2, 2), 9, np.uint8))
    assert np.asarray(load_image(ImageRef(path, "train_images", 2))).max() == 9


def test_several_labels_a_row(tmp_path: Path) -> None:
    arrays = save(tmp_path / "chestmnist_64.npz", labels=14)
    dataset = load_dataset(tmp_path / "chestmnist_64.npz")
    assert dataset.task.multi_label and len(dataset.task.options) == 14
    assert dataset.name == "chestmnist_64" and dataset.task.modality == "chest X-ray"
    row = arrays["train_labels"][0]
    assert dataset.cases[0].labels == tuple(str(k) for k in range(14) if row[k])


def test_an_unknown_set_has_numbered_classes_in_numeric_order(tmp_path: Path) -> None:
    images = np.zeros((3, 4, 4), np.uint8)
    np.savez(tmp_path / "mine.npz", train_images=images, train_labels=np.array([10, 2, 2]))
    dataset = load_dataset(tmp_path, modality="MRI", name="other")  # the only .npz of a folder
    assert dataset.task.keys == ("2", "10") and dataset.task.names == ("class 2", "class 10")
    assert (dataset.name, dataset.task.modality) == ("other", "MRI")


def test_rows_of_16_bits_are_scaled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([[[0, 65535]]], np.uint16), y=np.array([[[0.5, 1.0]]]))
    assert np.asarray(load_image(ImageRef(tmp_path / "a.npz", "x", 0)))[..., 0].tolist() == [[0, 255]]
    assert np.asarray(load_image(ImageRef(tmp_path / "a.npz", "y", 0)))[..., 0].tolist() == [[128, 255]]


def test_names_equal_medmnists() -> None:
    info = pytest.importorskip("medmnist").INFO
    two_dimensional = {name for name in info if not name.endswith("3d")}
    assert set(MEDMNIST_2D) == two_dimensional
    for name, known in MEDMNIST_2D.items():
        published = info[name]
        assert known.labels == tuple(published["label"][str(k)] for k in range(len(published["label"])))
        assert known.multi_label == published["task"].startswith("multi-label")
        assert known.licence == published["license"]
        readable = [known.name(k) for k in range(len(known.labels))]
        assert len(set(readable)) == len(readable)
        assert not any(character in phrase for phrase in readable for character in ",()_0123456789")


# mistakes


def test_a_folder_of_several(tmp_path: Path) -> None:
    save(tmp_path / "breastmnist.npz")
    save(tmp_path / "octmnist.npz")
    with pytest.raises(DatasetError, match=r"holds 2 datasets: breastmnist\.npz, octmnist\.npz. Name one"):
        load_dataset(tmp_path)


IMAGES = np.zeros((2, 4, 4), np.uint8)
LABELS = np.zeros((2, 1), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "kind", "message"),
    [
        ({"x": IMAGES}, DatasetError, "has no array train_images, val_images or test_images (it has x)"),
        ({"train_images": IMAGES}, NoLabelsError, "has images and no labels"),
        (
            {"train_images": IMAGES, "train_labels": LABELS, "val_images": IMAGES},
            NoLabelsError,
            "has val_images and no val_labels",
        ),
        (
            {"train_images": IMAGES, "train_labels": LABELS[:1]},
            DatasetError,
            "train has 2 images and 1 labels",
        ),
        (
            {"train_images": np.zeros((2, 4, 4, 4)), "train_labels": LABELS},
            DatasetError,
            "3D volumes are not read",
        ),
        ({"train_images": np.zeros((2, 4)), "train_labels": LABELS}, DatasetError, "rows must be pictures"),
        ({"train_images": IMAGES, "train_labels": LABELS * 0.5}, DatasetError, "class numbers are needed"),
        ({"train_images": IMAGES, "train_labels": LABELS + 7}, LabelError, "train_labels, row 0: label 7"),
    ],
)
def test_mistakes(tmp_path: Path, arrays: dict, kind: type[DatasetError], message: str) -> None:
    np.savez(tmp_path / "breastmnist.npz", **arrays)
    with pytest.raises(kind) as caught:
        load_dataset(tmp_path / "breastmnist.npz")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_pickled_objects_are_never_loaded(tmp_path: Path, compression: int) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", compression) as archive:
        archive.writestr("train_labels.npy", buffer.getvalue())
    with pytest.raises(DatasetError, match="cannot be read"):
        npz_array(tmp_path / "a.npz", "train_labels")


def test_not_an_npz(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("text")
    with pytest.raises(DatasetError, match="is not a readable"):
        load_dataset(tmp_path / "a.npz")
    path = tmp_path / "b.npz"
    save(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DatasetError, match=r"b\.npz"):
        load_dataset(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_rows_that_are_too_large_are_not_read(tmp_path: Path, save: Callable[..., None]) -> None:
    save(tmp_path / "bomb.npz", x=np.zeros((1, 3000, 3000), np.uint8))
    with pytest.raises(ImageError, match="3000 x 3000 pixels are larger than the 1000"):
        load_image(ImageRef(tmp_path / "bomb.npz", "x", 0), max_pixels=1000)
    assert load_image(ImageRef(tmp_path / "bomb.npz", "x", 0)).size == (3000, 3000)


def test_rows_that_are_no_images(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(
        path, flat=np.zeros((2, 9), np.uint8), text=np.array([["a"]]), wide=np.zeros((1, 2, 2, 7)), x=IMAGES
    )
    for key, index, message in [
        ("flat", 0, "is not a picture"),
        ("text", 0, "is not a picture"),
        ("wide", 0, "is not a picture"),
        ("x", 2, "has 2 rows, so none with index 2"),
        ("x", -1, "none with index -1"),
        ("x", None, "needs the name of its array and its row"),
        ("nothing", 0, "has no array 'nothing'"),
    ]:
        with pytest.raises(ImageError, match=message):
            load_image(ImageRef(path, key, index))
    with pytest.raises(ImageError, match="cannot be opened"):
        load_image(ImageRef(tmp_path / "missing.npz", "x", 0))
