"""Small pictures for the page, from whatever the log refers to."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from made_up_runs import picture
from PIL import Image

from gsco.cases import ImageRef
from gsco.evaluation.report import file_thumbnail
from gsco.evaluation.report.thumbnails import data_uri, parse_ref, shrink


@pytest.mark.parametrize(
    "ref",
    [
        ImageRef(Path("images/a b.png")),
        ImageRef(Path("x/busi:1.png")),
        ImageRef(Path("data/breastmnist.npz"), "test_images", 17),
        ImageRef(Path("scan.dcm"), None, 3),
    ],
    ids=str,
)
def test_image_references_are_read_back(ref: ImageRef) -> None:
    assert parse_ref(str(ref)) == ref


def test_file_thumbnail_reads_files_and_arrays_and_survives_missing_ones(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture(1, 300))
    large = file_thumbnail("a.jpg", root=tmp_path)
    assert large is not None
    assert Image.open(io.BytesIO(large)).size == (224, 224)
    np.savez(tmp_path / "d.npz", test_images=np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28))
    small = file_thumbnail(str(ImageRef(tmp_path / "d.npz", "test_images", 2)))
    assert small is not None
    assert small.startswith(b"\x89PNG")
    assert Image.open(io.BytesIO(small)).size == (28, 28)
    assert file_thumbnail("missing.png", root=tmp_path) is None
    (tmp_path / "text.png").write_text("no picture")
    assert file_thumbnail("text.png", root=tmp_path) is None


def test_shrink_and_data_uri() -> None:
    assert Image.open(io.BytesIO(shrink(picture(2, 200), 72))).size == (72, 72)
    assert shrink(b := picture(2, 50), 72) == b
    assert (data_uri(picture(3)) or "").startswith("data:image/jpeg;base64,")
    assert data_uri(b"<svg/>") is None
