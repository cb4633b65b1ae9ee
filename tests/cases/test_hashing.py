"""Hashes of bytes and of what is seen."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsco.cases import ImageRef, file_hash, pixel_hash
from gsco.errors import ImageError


def test_file_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert file_hash(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_pixel_hash_sees_pixels_and_size_only(tmp_path: Path) -> None:
    grey = np.arange(96, dtype=np.uint8).reshape(8, 12)
    image = Image.fromarray(grey)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.tif")
    image.convert("RGB").save(tmp_path / "c.bmp")
    np.savez(tmp_path / "d.npz", train_images=grey[None])
    Image.fromarray(grey.reshape(12, 8)).save(tmp_path / "other_shape.png")
    changed = grey.copy()
    changed[0, 0] += 1
    Image.fromarray(changed).save(tmp_path / "changed.png")
    same = {pixel_hash(tmp_path / name) for name in ("a.png", "b.tif", "c.bmp")}
    same.add(pixel_hash(ImageRef(tmp_path / "d.npz", "train_images", 0)))
    assert len(same) == 1
    assert pixel_hash(tmp_path / "other_shape.png") not in same
    assert pixel_hash(tmp_path / "changed.png") not in same
    assert file_hash(tmp_path / "a.png") != file_hash(tmp_path / "b.tif")


def test_a_broken_image_has_no_hash(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no")
    with pytest.raises(ImageError):
        pixel_hash(tmp_path / "a.png")
