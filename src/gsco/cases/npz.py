"""Arrays inside a MedMNIST-like ``.npz``: opened once, without pickle, mapped from disk where possible."""

from __future__ import annotations

import threading
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases.case import ImageRef
from gsco.errors import DatasetError, ImageError

if TYPE_CHECKING:
    from PIL import Image

_KEEP = 4  # files whose arrays stay in memory

_lock = threading.Lock()
_cache: OrderedDict[tuple[str, int, int], dict[str, NDArray[Any]]] = OrderedDict()


def npz_keys(path: Path) -> tuple[str, ...]:
    """Names of the arrays in an ``.npz``; DatasetError where it is not one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy"))
    except FileNotFoundError:
        raise DatasetError("there is no such file", where=str(path)) from None
    except (OSError, zipfile.BadZipFile) as error:
        raise DatasetError(f"is not a readable .npz file ({error})", where=str(path)) from error


def npz_array(path: Path, key: str, *, max_pixels: int | None = None) -> NDArray[Any]:
    """One array of an ``.npz``, read-only, kept for the next call while the file is unchanged.

    Members stored without compression are mapped from disk and cost no memory until they are read.

    Args:
        path: of the file.
        key: name of the array.
        max_pixels: the largest rows, in pixels, that are read; any when None.

    Raises:
        DatasetError: the file cannot be read, has no such array, or the array holds Python objects or
            larger rows.
    """
    where = str(path)
    try:
        stat = path.stat()
    except OSError as error:
        raise DatasetError(f"cannot be opened ({error.strerror})", where=where) from None
    identity = (str(path.absolute()), stat.st_mtime_ns, stat.st_size)
    with _lock:
        arrays = _cache.setdefault(identity, {})
        _cache.move_to_end(identity)
        while len(_cache) > _KEEP:
            _cache.popitem(last=False)
        if key not in arrays:
            try:
                array = _mapped(path, key)
                if array is None:
                    _check_rows(npz_shape(path, key), max_pixels, where)  # before anything is inflated
                    with np.load(path, allow_pickle=False) as archive:
                        array = archive[key]
            except DatasetError:
                raise
            except KeyError:
                found = ", ".join(npz_keys(path)) or "nothing"
                raise DatasetError(f"has no array {key!r} (it has {found})", where=where) from None
            except Exception as error:  # zipfile, zlib and numpy have an error each
                raise DatasetError(f"array {key!r} cannot be read ({error})", where=where) from error
            array.flags.writeable = False
            arrays[key] = array
        _check_rows(arrays[key].shape, max_pixels, where)
        return arrays[key]


def _check_rows(shape: tuple[int, ...], max_pixels: int | None, where: str) -> None:
    if max_pixels is not None and len(shape) >= 3 and shape[1] * shape[2] > max_pixels:
        raise DatasetError(
            f"its pictures of {shape[2]} x {shape[1]} pixels are larger than the {max_pixels} that are read",
            where=where,
        )


def npz_shape(path: Path, key: str) -> tuple[int, ...]:
    """Shape of one array, from its header alone; DatasetError where it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
            return _header(member)[0]
    except Exception as error:  # zipfile, zlib and numpy have an error each
        raise DatasetError(f"array {key!r} cannot be read ({error})", where=str(path)) from error


def load_row(ref: ImageRef, *, max_pixels: int | None = None) -> Image.Image:
    """One row of an image array (``ref.key``, ``ref.index``) as RGB.

    Rows are (H, W) or (H, W, 3); types other than uint8 are scaled as in `gsco.cases.raster`.

    Raises:
        ImageError: no such array or row, or rows that are not pictures.
    """
    from PIL import Image

    from gsco.cases.raster import scale_to_uint8

    where = str(ref)
    if ref.key is None or ref.index is None:
        raise ImageError("an image of an .npz needs the name of its array and its row", where=where)
    try:
        array = npz_array(ref.path, ref.key, max_pixels=max_pixels)
    except DatasetError as error:
        raise ImageError(error.what, where=str(ref.path)) from error
    if not 0 <= ref.index < array.shape[0]:
        raise ImageError(f"has {array.shape[0]} rows, so none with index {ref.index}", where=where)
    row = array[ref.index]
    if row.ndim == 3 and row.shape[2] == 1:
        row = row[:, :, 0]
    if (
        row.dtype.kind not in "buif"
        or not (row.ndim == 2 or (row.ndim == 3 and row.shape[2] == 3))
        or not row.size
    ):
        raise ImageError(f"a row of shape {row.shape} and type {row.dtype} is not a picture", where=where)
    pixels = row if row.dtype == np.uint8 else scale_to_uint8(row, where=where)
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def _mapped(path: Path, key: str) -> NDArray[Any] | None:
    """A memory map of an uncompressed member, or None where it is compressed."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{key}.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        with archive.open(info) as member:
            shape, fortran, dtype = _header(member)
            header_size = member.tell()
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never unpickled")
    with path.open("rb") as file:  # the local header's own lengths say where the data begin
        file.seek(info.header_offset + 26)
        name_length, extra_length = np.frombuffer(file.read(4), dtype="<u2").tolist()
    offset = info.header_offset + 30 + name_length + extra_length + header_size
    if 0 in shape:
        return np.empty(shape, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C")


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and type of an array (the head of a ``.npy``)."""
    old = np.lib.format.read_magic(member) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
    return read(member)
