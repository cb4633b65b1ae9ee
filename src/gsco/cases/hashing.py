"""Hashes of files and of what their pixels show."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gsco.cases.case import ImageRef
from gsco.cases.images import load_image


def file_hash(path: Path | str) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits; OSError where it cannot be read."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pixel_hash(ref: ImageRef | Path | str) -> str:
    """SHA-256 of the decoded RGB pixels and their size, 64 hexadecimal digits.

    Two files of different format, compression or metadata that show exactly the same pixels have the
    same hash.

    Raises:
        ImageError: the image cannot be read.
    """
    image = load_image(ref)
    digest = hashlib.sha256(f"RGB {image.width}x{image.height} ".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()
