"""`load_image`: any supported file to one RGB picture of 8 bits, or an `ImageError` that says why not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gsco.cases.case import ImageRef
from gsco.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 100_000_000
"""Images with more pixels than this are refused from their header, before anything is decoded."""

IMAGE_SUFFIXES = frozenset(
    {
        ".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".pgm", ".ppm", ".jp2",
        ".dcm", ".dicom", ".ima",
    }
)  # fmt: skip
"""File name endings (lower case) by which a folder is searched for images."""

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})


def load_image(ref: ImageRef | Path | str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode one image.

    The rules by which other kinds become 8-bit RGB stand in `gsco.cases.raster` (PNG, JPEG, TIFF, BMP,
    WebP, GIF, PNM, JPEG 2000), `gsco.cases.dicom` (DICOM) and `gsco.cases.npz` (MedMNIST arrays).

    Args:
        ref: what to read. ``ref.key`` and ``ref.index`` name the array and row of an ``.npz``;
            ``ref.index`` alone names a frame of a multi-frame file (default: the first page of an
            ordinary file, the middle frame of a DICOM).
        max_pixels: the largest width times height that is decoded.

    Returns:
        A loaded picture of mode ``RGB``, uint8, with no open file behind it.

    Raises:
        ImageError: missing, empty, not an image, truncated, too large, without pixels, unsupported.
        UserError: the file is DICOM and pydicom is not installed.
    """
    if not isinstance(ref, ImageRef):
        ref = ImageRef(Path(ref))
    if ref.key is not None:
        from gsco.cases.npz import load_row

        return load_row(ref, max_pixels=max_pixels)
    head = _head(ref.path)
    if head[128:132] == b"DICM" or ref.path.suffix.lower() in DICOM_SUFFIXES:
        from gsco.cases.dicom import load_dicom

        return load_dicom(ref.path, ref.index, max_pixels=max_pixels)
    from gsco.cases.raster import load_raster

    return load_raster(ref.path, ref.index, max_pixels=max_pixels)


def _head(path: Path) -> bytes:
    """The first 132 bytes; ImageError where there is no such readable, non-empty file."""
    where = str(path)
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except FileNotFoundError:
        raise ImageError("there is no such file", where=where) from None
    except IsADirectoryError:
        raise ImageError("is a folder, not an image", where=where) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"cannot be opened ({reason})", where=where) from error
    if not head:
        raise ImageError("is an empty file (0 bytes)", where=where)
    return head
