"""Ordinary image files (PNG, JPEG, TIFF, BMP, WebP, GIF, PNM, JPEG 2000) to 8-bit RGB.

The rules, all of them fixed and free of the other images of a set:

* Grey, palette, CMYK, YCbCr and 1-bit pictures are converted to RGB by Pillow.
* Transparency (RGBA, LA, palette or colour-key transparency) is composited on **black**.
* EXIF/TIFF orientation is applied.
* Unsigned integers of more than 8 bits are scaled by the **bit depth they use**: the smallest of 8, 10,
  12, 14 and 16 bits that holds the largest value, so a 12-bit radiograph in a 16-bit file is not black.
* Signed or 32-bit integers outside that, and floats outside [0, 1], go by the image's own minimum and
  maximum; floats inside [0, 1] are taken as the full range. Values that are not finite become black.
* A grey TIFF whose zero is white (PhotometricInterpretation 0) is inverted after that.
* Colour of 16 bits a channel keeps the upper 8 bits, as Pillow reads it.
* The first page or frame is read unless an index is given.

Pillow's global settings are neither changed nor relied upon, except its own guard: beyond about 179
million pixels Pillow refuses to open a file, whatever `max_pixels` says.
"""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases.quiet import quiet_warnings
from gsco.errors import ImageError, counted

if TYPE_CHECKING:
    from PIL import Image

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM", "JPEG2000")
_KINDS = "PNG, JPEG, TIFF, BMP, WebP, GIF, JPEG 2000 or DICOM"
_DEPTHS = (8, 10, 12, 14, 16)
_ORIENTATION = 0x0112
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_SIGNATURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
    b"RIFF": "WebP",
    b"GIF8": "GIF",
}


def load_raster(path: Path, index: int | None = None, *, max_pixels: int) -> Image.Image:
    """Decode one ordinary image file to RGB; ImageError names the file and the reason."""
    where = str(path)
    image_module = _pillow()
    try:
        with quiet_warnings(), path.open("rb") as file, image_module.open(file, formats=_FORMATS) as image:
            if index is not None:
                _seek(image, index, where)
            _check_size(image.size, max_pixels, where)
            image.load()
            return to_rgb(_upright(image), where=where)
    except ImageError:
        raise
    except image_module.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        pixels = f"{int(found.group()):,} pixels" if found else "too many pixels"
        raise _too_large(pixels, max_pixels, where) from None
    except image_module.UnidentifiedImageError:
        raise _unidentified(path, where) from None
    except MemoryError:
        raise ImageError("does not fit into memory", where=where) from None
    except Exception as error:  # decoders raise nearly anything on damaged data
        reason = str(error).rstrip(".") or type(error).__name__
        raise ImageError(f"is truncated or damaged ({reason})", where=where) from error


def to_rgb(image: Image.Image, *, where: str | None = None) -> Image.Image:
    """Any Pillow picture to a new one of mode RGB, by the rules of this module.

    Raises:
        ImageError: no finite value.
    """
    from PIL import Image

    mode = image.mode
    tags = getattr(image, "tag_v2", {})
    signed_bytes = mode == "L" and tags.get(_SAMPLE_FORMAT, (1,))[0] == 2
    if mode.startswith("I") or mode == "F" or signed_bytes:
        values = np.asarray(image)
        # Pillow has no type for these two and hands out their bytes as those of another.
        if signed_bytes:
            values = values.view(np.int8)
        elif mode == "I" and tags.get(_BITS, (0,))[0] == 32 and tags.get(_SAMPLE_FORMAT, (1,))[0] == 1:
            values = values.view(np.uint32)
        grey = scale_to_uint8(values, where=where)
        if tags.get(_PHOTOMETRIC) == 0 and not signed_bytes:
            grey = np.uint8(255) - grey
        return Image.fromarray(grey).convert("RGB")
    if mode in {"LA", "La", "PA", "RGBA", "RGBa"} or (
        "transparency" in image.info and mode in {"L", "P", "RGB"}
    ):
        if mode == "La":
            image = image.convert("LA")
        colour = image.convert("RGBA")
        black = Image.new("RGBA", colour.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, colour).convert("RGB")
    return image.copy() if mode == "RGB" else image.convert("RGB")


def scale_to_uint8(values: NDArray[Any], *, where: str | None = None) -> NDArray[np.uint8]:
    """Numbers of any type to 0..255, monotone, by the rules of this module.

    Args:
        values: any shape; integers or floats.
        where: the file, for the error.

    Returns:
        uint8, the same shape.

    Raises:
        ImageError: no value, or none that is finite.
    """
    if values.size == 0:
        raise ImageError("has no pixels", where=where)
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind in "iu":
        low, high = int(values.min()), int(values.max())
        if low >= 0 and high < 2 ** _DEPTHS[-1]:
            top = next(2**bits - 1 for bits in _DEPTHS if high < 2**bits)
            if top == 255:
                return values.astype(np.uint8)
            wide = values.astype(np.uint32)
            return np.asarray((wide * 255 + top // 2) // top, dtype=np.uint8)
    wide_values = values.astype(np.float64)
    finite = np.isfinite(wide_values)
    if not finite.any():
        raise ImageError("has no finite pixel value", where=where)
    low_f, high_f = float(wide_values[finite].min()), float(wide_values[finite].max())
    if values.dtype.kind == "f" and low_f >= 0.0 and high_f <= 1.0:
        low_f, high_f = 0.0, 1.0
    wide_values[~finite] = low_f
    if math.isinf(high_f - low_f):  # a span beyond the largest float
        wide_values, low_f, high_f = wide_values / 4, low_f / 4, high_f / 4
    return unit_to_uint8((wide_values - low_f) / (high_f - low_f if high_f > low_f else 1.0))


def unit_to_uint8(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Floats of [0, 1] (clipped) to 0..255, rounded to the nearest."""
    return np.floor(np.clip(values, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def check_size(width: int, height: int, max_pixels: int, where: str) -> None:
    """ImageError where a picture of this size is empty or larger than `max_pixels`."""
    if width <= 0 or height <= 0:
        raise ImageError(f"has no pixels ({width} x {height})", where=where)
    if width * height > max_pixels:
        raise _too_large(f"{width} x {height} = {width * height:,} pixels", max_pixels, where)


def _check_size(size: tuple[int, int], max_pixels: int, where: str) -> None:
    check_size(size[0], size[1], max_pixels, where)


def _too_large(pixels: str, max_pixels: int, where: str) -> ImageError:
    return ImageError(
        f"is too large ({pixels}; at most {max_pixels:,} are decoded)",
        where=where,
        remedy="Make the image smaller, or cut it into tiles.",
    )


def _unidentified(path: Path, where: str) -> ImageError:
    """Why Pillow knows no such image: another kind of file, or a known one beyond it."""
    with path.open("rb") as file:
        head = file.read(8)
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature):
            return ImageError(f"is a {kind} file that is damaged or of a kind that is not read", where=where)
    return ImageError(f"is not an image ({_KINDS}), whatever its name says", where=where)


def _seek(image: Image.Image, index: int, where: str) -> None:
    frames = getattr(image, "n_frames", 1)
    if not 0 <= index < frames:
        raise ImageError(f"has {counted(frames, 'frame')}, so none with index {index}", where=where)
    image.seek(index)


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says; odd EXIF data count as none."""
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    try:
        # Asked after load(): Pillow turns a TIFF while loading and takes the tag away.
        turn = turns.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # EXIF parsers raise nearly anything; the pixels are fine
        turn = None
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info.update({k: v for k, v in image.info.items() if k == "transparency"})
    return turned


@cache
def _pillow() -> Any:
    """`PIL.Image` with the plugins of `_FORMATS`, without Pillow importing all of them on the first TIFF."""
    from PIL import (
        BmpImagePlugin,
        GifImagePlugin,
        Image,
        Jpeg2KImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        PpmImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    del BmpImagePlugin, GifImagePlugin, Jpeg2KImagePlugin, JpegImagePlugin
    del PngImagePlugin, PpmImagePlugin, TiffImagePlugin, WebPImagePlugin
    return Image
