"""Bad input, as a person meets it: one line that names the thing, exit code 2, no traceback."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Refused = Callable[..., str]


def picture(path: Path, level: int = 90, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).normal(level, 20, (40, 40)).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    rows = ["image,label,split,patient_id"]
    for i in range(18):
        picture(folder / "images" / f"{i:02}.png", 60 + 100 * (i % 2), seed=i)
        rows.append(f"images/{i:02}.png,{'ab'[i % 2]},{('train', 'val', 'test')[i // 2 % 3]},p{i}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def edit(dataset: Path, old: str, new: str) -> None:
    table = dataset / "labels.csv"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new))


# broken images --------------------------------------------------------------------------------------


def truncated(path: Path) -> Path:
    picture(path)
    path.write_bytes(path.read_bytes()[:200])
    return path


def text_as_png(path: Path) -> Path:
    path.write_text("This is a letter, not an image.\n" * 20)
    return path


def bomb(path: Path) -> Path:
    """A PNG of a few hundred bytes that says it is 30,000 × 30,000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(100_000), 9)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    return path


def dicom_without_pixels(path: Path) -> Path:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.Modality, made.PatientID = "CR", "someone"
    made.save_as(path, enforce_file_format=True)
    return path


BROKEN: dict[str, Callable[[Path], Path]] = {
    "truncated.png": truncated,
    "text.png": text_as_png,
    "bomb.png": bomb,
    "report.dcm": dicom_without_pixels,
}


@pytest.mark.parametrize("name", BROKEN)
def test_diagnosing_a_broken_image(name: str, refused: Refused, tmp_path: Path, finished_run: Path) -> None:
    broken = BROKEN[name](tmp_path / name)
    line = refused("diagnose", broken, "--run", finished_run)
    assert name in line
    assert "someone" not in line


def test_diagnosing_an_image_that_is_not_there(refused: Refused, tmp_path: Path, finished_run: Path) -> None:
    assert "nothing.png" in refused("diagnose", tmp_path / "nothing.png", "--run", finished_run)


@pytest.mark.parametrize("name", BROKEN)
def test_too_many_broken_images_in_a_dataset(
    name: str, refused: Refused, dataset: Path, tmp_path: Path
) -> None:
    BROKEN[name](dataset / "images" / name)
    edit(dataset, "images/00.png", f"images/{name}")
    line = refused("run", "--data", dataset, "--out", tmp_path / "run")
    assert f"images/{name}" in line
    assert "1 of 18 images" in line


# datasets -------------------------------------------------------------------------------------------


def test_a_folder_without_labels(refused: Refused, tmp_path: Path) -> None:
    picture(tmp_path / "data" / "a.png")
    assert str(tmp_path / "data") in refused("run", "--data", tmp_path / "data", "--out", tmp_path / "run")


def test_a_label_outside_the_options(refused: Refused, dataset: Path, tmp_path: Path) -> None:
    (dataset / "dataset.yaml").write_text("task: diagnosis\nmodality: test\noptions:\n  a: A\n  b: B\n")
    edit(dataset, "images/04.png,a", "images/04.png,zebra")
    line = refused("run", "--data", dataset, "--out", tmp_path / "run")
    assert "zebra" in line


def test_a_split_that_leaks_a_patient(refused: Refused, dataset: Path, tmp_path: Path) -> None:
    edit(dataset, "test,p4\n", "test,p0\n")
    line = refused("run", "--data", dataset, "--out", tmp_path / "run")
    assert "train" in line
    assert "test" in line


# models ---------------------------------------------------------------------------------------------


def test_a_model_folder_that_is_missing(refused: Refused, dataset: Path, tmp_path: Path) -> None:
    line = refused("run", "--data", dataset, "--out", tmp_path / "run", "--generalist", tmp_path / "no-model")
    assert "no-model" in line


def test_a_model_folder_of_another_architecture(refused: Refused, dataset: Path, tmp_path: Path) -> None:
    model = tmp_path / "bert"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    line = refused("run", "--data", dataset, "--out", tmp_path / "run", "--generalist", model)
    assert "bert" in line


def test_a_specialist_that_was_swapped_for_something_else(
    refused: Refused, finished_run: Path, phantom_folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    (copy / "specialists" / "knn" / "config.json").write_text('{"model_type": "bert"}')
    image = phantom_folder / "images" / "phantom_00000.png"
    assert "bert" in refused("diagnose", image, "--run", copy)


# runs -----------------------------------------------------------------------------------------------


def test_resuming_under_another_config(refused: Refused, finished_run: Path) -> None:
    line = refused("run", "--resume", finished_run, "--template", "paper", "-k", "5")
    assert "template is evidence, not paper; neighbours is 3, not 5" in line


def test_diagnosing_with_a_folder_that_is_no_run(
    refused: Refused, phantom_folder: Path, tmp_path: Path
) -> None:
    image = phantom_folder / "images" / "phantom_00000.png"
    assert "not a run folder" in refused("diagnose", image, "--run", tmp_path)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=200k", "none", place], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("may not mount a file system here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_no_space_left(
    tiny_disk: Path, phantom_folder: Path, feature_cache: Path, finished_run: Path
) -> None:
    settings = finished_run / "config.yaml"
    command = [sys.executable, "-m", "gsco", "run", "--config", settings, "--out", tiny_disk / "run"]
    done = subprocess.run(
        [*map(str, command), "--cache", str(feature_cache), "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert str(tiny_disk) in done.stderr
    assert "space" in done.stderr
