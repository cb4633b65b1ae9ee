"""DICOM to 8-bit RGB in the order of the standard.

Grey images (PS3.3 C.7.6.3, C.11.1, C.11.2):

1. stored values → **modality LUT** (Modality LUT Sequence, or Rescale Slope and Intercept);
2. → **VOI LUT** (the first VOI LUT, else the first window by its VOI LUT Function: LINEAR, LINEAR_EXACT
   or SIGMOID). Without a usable window (none, or a width the function does not allow) the smallest and
   largest value of the frame that are not Pixel Padding span the range;
3. → 0..255, rounded;
4. → **inverted last**, within 0..255, where the Photometric Interpretation is MONOCHROME1 or the
   Presentation LUT Shape is INVERSE (once, also where both say so, as in PS3.3 C.8.11.3).

Colour images (RGB, YBR_*, PALETTE COLOR) become RGB; no window is applied to them.

Of a multi-frame object the **middle frame** (number of frames // 2, counted from 0) is read unless an
index is given; the functional groups of enhanced objects are asked for that frame's transforms.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases.quiet import quiet_warnings
from gsco.cases.raster import check_size, unit_to_uint8
from gsco.errors import ImageError, UserError, counted

if TYPE_CHECKING:
    from PIL import Image

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def load_dicom(path: Path, index: int | None = None, *, max_pixels: int) -> Image.Image:
    """Decode one frame of a DICOM file to RGB.

    Args:
        path: the file.
        index: the frame, counted from 0; None for the middle one.
        max_pixels: the largest Rows times Columns that is decoded.

    Raises:
        ImageError: not DICOM, no pixels, damaged, too large, or a transfer syntax without a decoder.
        UserError: pydicom is not installed.
    """
    where = str(path)
    try:
        from pydicom.errors import InvalidDicomError
    except ImportError:
        raise UserError(
            "reading DICOM needs pydicom, which is not installed",
            where=where,
            remedy="Install it: pip install 'gsco[dicom]'",
        ) from None
    from PIL import Image

    try:
        with quiet_warnings():
            header = _read(path, max_pixels, where, stop_before_pixels=True)
            frame = _check_header(header, index, max_pixels, where)
            dataset = _read(path, max_pixels, where)
            if not any(name in dataset for name in _PIXELS):
                raise _without_pixels(dataset, where)
            pixels = _render(dataset, frame, where)
    except ImageError:
        raise
    except InvalidDicomError:
        raise ImageError("is not an image: its name says DICOM, its bytes do not", where=where) from None
    except MemoryError:
        raise ImageError("does not fit into memory", where=where) from None
    except BaseException as error:  # damaged elements surface as nearly anything
        # A decoder written in Rust panics with a class of its own that is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ImageError(f"is truncated or damaged ({_reason(error)})", where=where) from error
    return Image.fromarray(pixels).convert("RGB")


def apply_window(
    values: NDArray[np.float64], center: float, width: float, function: str = "LINEAR"
) -> NDArray[np.float64]:
    """A window of PS3.3 C.11.2.1.2 and C.11.2.1.3, to [0, 1].

    Args:
        values: output of the modality LUT, any shape.
        center: Window Center (0028,1050).
        width: Window Width (0028,1051): at least 1 for LINEAR, more than 0 for the others.
        function: VOI LUT Function (0028,1056).

    Raises:
        ValueError: an unknown function, or a width it does not allow.
    """
    if not np.isfinite([center, width]).all() or width < (1 if function == "LINEAR" else np.nextafter(0, 1)):
        raise ValueError(f"window width {width} with {function}")
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
        if width == 0:
            return (values > center).astype(np.float64)
        return np.clip((values - center) / width + 0.5, 0.0, 1.0)
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0.0, 1.0)
    if function == "SIGMOID":
        return np.asarray(1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700.0, 700.0))))
    raise ValueError(f"unknown VOI LUT function {function}")


def _check_header(header: Any, index: int | None, max_pixels: int, where: str) -> int:
    """The frame to read; ImageError for an object without pixels, too large, or without that frame."""
    if "Rows" not in header or "Columns" not in header:
        raise _without_pixels(header, where)
    check_size(int(header.Columns or 0), int(header.Rows or 0), max_pixels, where)
    frames = max(int(header.get("NumberOfFrames") or 1), 1)
    frame = frames // 2 if index is None else index
    if not 0 <= frame < frames:
        raise ImageError(f"has {counted(frames, 'frame')}, so none with index {index}", where=where)
    return frame


def _read(path: Path, max_pixels: int, where: str, **how: Any) -> Any:
    """The object in a file. One without preamble is taken where its first tag is a usual one."""
    import pydicom
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    with path.open("rb") as file:
        head = file.read(132)
    bare = head[128:] != b"DICM" and head[:2] in (b"\x02\x00", b"\x08\x00")
    if not bare:
        meta = read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            # Preamble, then the group length element (12 bytes), then what it counts.
            _check_deflated(path, 144 + int(meta.FileMetaInformationGroupLength), max_pixels, where)
    dataset = pydicom.dcmread(path, force=bare, **how)
    if not getattr(dataset, "file_meta", None) or "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        if little and implicit is not None:
            dataset.ensure_file_meta()
            dataset.file_meta.TransferSyntaxUID = (
                ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
            )
    return dataset


def _check_deflated(path: Path, start: int, max_pixels: int, where: str) -> None:
    """Refuse a deflated object that would unpack to more than any image of `max_pixels` needs."""
    room = 16 * max_pixels
    with path.open("rb") as file:
        file.seek(start)
        unpack = zlib.decompressobj(-zlib.MAX_WBITS)
        while room > 0 and (chunk := file.read(1 << 20)):
            while room > 0 and chunk:
                room -= len(unpack.decompress(chunk, min(room, 1 << 24)))
                chunk = unpack.unconsumed_tail
    if room <= 0:
        raise ImageError(f"is deflated and unpacks to more than {16 * max_pixels:,} bytes", where=where)


def _render(dataset: Any, frame: int, where: str) -> NDArray[np.uint8]:
    """The frame as uint8, (H, W) or (H, W, 3)."""
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2")).strip().upper()
    stored = _stored_values(dataset, frame, where)
    if photometric == "PALETTE COLOR":
        return _palette(dataset, stored)
    if stored.ndim == 3:
        if not (photometric == "RGB" or photometric.startswith("YBR")):
            raise ImageError(f"has colours of kind {photometric}, which are not read", where=where)
        return _rounded(stored, 2 ** int(dataset.get("BitsStored", 8)) - 1)
    if not photometric.startswith("MONOCHROME"):
        raise ImageError(f"has colours of kind {photometric}, which are not read", where=where)
    grey = unit_to_uint8(_grey(dataset, stored, frame))
    shape = str(dataset.get("PresentationLUTShape", "") or "").upper()
    if photometric == "MONOCHROME1" or shape == "INVERSE":
        grey = np.uint8(255) - grey
    return grey


def _stored_values(dataset: Any, frame: int, where: str) -> NDArray[Any]:
    """Decoded pixel values of one frame; YBR already converted to RGB by pydicom."""
    from pydicom.pixels import pixel_array

    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    try:
        values = pixel_array(dataset, index=frame)
    except (NotImplementedError, RuntimeError) as error:
        text = str(error)
        if (
            "missing dependencies" in text
            or "not supported" in text
            or isinstance(error, NotImplementedError)
        ):
            name = getattr(syntax, "name", None) or "unknown"
            raise ImageError(
                f"is compressed as {name}, for which no decoder is installed",
                where=where,
                remedy="Install the decoders (pip install 'gsco[dicom]') or convert the file to an "
                "uncompressed transfer syntax.",
            ) from error
        raise
    return np.asarray(values)


def _palette(dataset: Any, stored: NDArray[Any]) -> NDArray[np.uint8]:
    from pydicom.pixels import apply_color_lut

    colours = np.asarray(apply_color_lut(stored, dataset))[..., :3]
    return _rounded(colours, np.iinfo(colours.dtype).max)


def _grey(dataset: Any, stored: NDArray[Any], frame: int) -> NDArray[np.float64]:
    """Steps 1 and 2 of the module's text: stored values to [0, 1], not yet inverted."""
    from pydicom.pixels import apply_modality_lut, apply_voi

    transform = _group(dataset, frame, "PixelValueTransformationSequence")
    values = np.asarray(apply_modality_lut(stored, transform))
    voi = _group(dataset, frame, "FrameVOILUTSequence")
    luts = voi.get("VOILUTSequence")
    if luts:
        bits = int(luts[0].LUTDescriptor[2])
        positions = np.rint(values).astype(np.int64)  # a table is entered at whole numbers
        return np.asarray(apply_voi(positions, voi, index=0), dtype=np.float64) / float(2**bits - 1)
    values = values.astype(np.float64)
    center, width = _first(voi.get("WindowCenter")), _first(voi.get("WindowWidth"))
    if center is not None and width is not None:
        try:
            return apply_window(values, center, width, str(voi.get("VOILUTFunction") or "LINEAR").upper())
        except ValueError:
            pass  # an impossible window says nothing; the range of the values does
    seen = np.isfinite(values) & ~_padding(dataset, stored)
    if not seen.any():
        seen = np.isfinite(values)
    if not seen.any():
        return np.zeros(values.shape)
    low, high = float(values[seen].min()), float(values[seen].max())
    finite = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return np.asarray(np.clip((finite - low) / (high - low or 1.0), 0.0, 1.0))


def _padding(dataset: Any, stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Where the stored values are Pixel Padding (PS3.3 C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=np.bool_)
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = sorted((int(value), int(value if limit is None else limit)))
    return np.asarray((stored >= ends[0]) & (stored <= ends[1]))


def _group(dataset: Any, frame: int, sequence: str) -> Any:
    """The functional group of a frame (per-frame, else shared), or the object itself where it has none."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if per_frame and frame < len(per_frame) and per_frame[frame].get(sequence):
        return per_frame[frame][sequence][0]
    shared = dataset.get("SharedFunctionalGroupsSequence")
    if shared and shared[0].get(sequence):
        return shared[0][sequence][0]
    return dataset


def _first(value: Any) -> float | None:
    """The first of one or several numbers of an element, or None."""
    if value is None or value == "":
        return None
    if isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
        return float(value)
    return float(value[0]) if len(value) else None


def _rounded(values: NDArray[Any], top: int) -> NDArray[np.uint8]:
    wide = np.clip(values.astype(np.int64), 0, top)
    return ((wide * 255 + top // 2) // top).astype(np.uint8)


def _without_pixels(dataset: Any, where: str) -> ImageError:
    uid = dataset.get("SOPClassUID")
    # In a damaged file this element may hold whatever stands behind it, names of patients included.
    kind = f" ({uid.name})" if getattr(uid, "is_valid", False) and uid.name else ""
    return ImageError(
        f"is DICOM without pixels{kind}", where=where, remedy="Give an image object of the study."
    )


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
