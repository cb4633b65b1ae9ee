"""Tensors of a checkpoint, known by their headers and read in pieces: no file is ever held in memory whole.

The safetensors format is eight bytes of header length, a JSON header, and the tensors' bytes
(https://github.com/huggingface/safetensors). It is read by plain file reads instead of a memory map, so that
what is read does not count against memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gsco.errors import ModelError

if TYPE_CHECKING:
    import torch

CHUNK = 16 << 20  # bytes that are read, changed and written at a time
_LONGEST_HEADER = 100 << 20  # the format's own limit
ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
FLOATS = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""Names of PyTorch's floating-point types and what the format calls them."""

_AGAIN = "Fetch or copy it again."


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a header says of one tensor: its type (as safetensors names it) and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


class TensorFile(Protocol):
    """A file of named tensors."""

    path: Path
    infos: dict[str, TensorInfo]

    def chunks(self, name: str, rows: slice | None = None) -> Iterator[bytes]:
        """The bytes of a tensor, or of some of its rows, in pieces of at most `CHUNK` bytes."""
        ...


class SafetensorsFile:
    """One safetensors file.

    Raises:
        ModelError: it is no safetensors file, or is shorter than its header says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.infos: dict[str, TensorInfo] = {}
        self._starts: dict[str, int] = {}
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= _LONGEST_HEADER:
                raise ModelError("is not a safetensors file", where=str(path), remedy=_AGAIN)
            self.header = file.read(length)
        if len(self.header) < length:
            raise ModelError("is cut off within its header", where=str(path), remedy=_AGAIN)
        try:
            entries = json.loads(self.header)
            entries.pop("__metadata__", None)
            for name, entry in entries.items():
                info = TensorInfo(str(entry["dtype"]), tuple(int(side) for side in entry["shape"]))
                start, end = entry["data_offsets"]
                if start < 0 or end - start != info.nbytes:
                    raise ValueError(f"{name} has {end - start} bytes instead of {info.nbytes}")
                if 8 + length + end > size:
                    raise _CutOffError(8 + length + max(e["data_offsets"][1] for e in entries.values()))
                self.infos[name], self._starts[name] = info, 8 + length + start
        except _CutOffError as error:
            raise ModelError(
                f"is cut off: {size:,} of {error.args[0]:,} bytes", where=str(path), remedy=_AGAIN
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"has a header that cannot be read ({error})", where=str(path), remedy=_AGAIN
            ) from error

    def chunks(self, name: str, rows: slice | None = None) -> Iterator[bytes]:
        """See `TensorFile.chunks`."""
        info = self.infos[name]
        first, last = _byte_range(info, rows)
        with self.path.open("rb") as file:
            file.seek(self._starts[name] + first)
            left = last - first
            while left:
                piece = file.read(min(CHUNK, left))
                if not piece:
                    raise ModelError("became shorter while it was read", where=str(self.path), remedy=_AGAIN)
                left -= len(piece)
                yield piece


class _CutOffError(Exception):
    """The header speaks of more bytes than there are."""


class PickledFile:
    """One file of `torch.save`, memory-mapped; only tensors are unpickled (``weights_only=True``).

    Raises:
        ModelError: it is broken, or holds anything but tensors.
    """

    def __init__(self, path: Path) -> None:
        import torch

        self.path = path
        names = {getattr(torch, long): short for long, short in FLOATS.items()}
        names |= {torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}
        self.infos: dict[str, TensorInfo] = {}
        for name, tensor in self._load().items():
            if not isinstance(tensor, torch.Tensor) or tensor.dtype not in names:
                raise ModelError(f"holds something else than weights in {name!r}", where=str(path))
            self.infos[name] = TensorInfo(names[tensor.dtype], tuple(tensor.shape))

    def _load(self) -> Mapping[str, Any]:
        import pickle

        import torch

        try:
            held = torch.load(self.path, map_location="cpu", mmap=True, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise ModelError(
                "is broken, or holds more than tensors", where=str(self.path), remedy=_AGAIN
            ) from error
        if not isinstance(held, dict):
            raise ModelError("is not a state dict", where=str(self.path))
        return held

    def chunks(self, name: str, rows: slice | None = None) -> Iterator[bytes]:
        """See `TensorFile.chunks`. Mapped anew for each tensor, so that what was read may be forgotten."""
        import torch

        flat = self._load()[name].contiguous().flatten().view(torch.uint8)
        first, last = _byte_range(self.infos[name], rows)
        for start in range(first, last, CHUNK):
            yield flat[start : min(start + CHUNK, last)].numpy().tobytes()


def _byte_range(info: TensorInfo, rows: slice | None) -> tuple[int, int]:
    if rows is None:
        return 0, info.nbytes
    per_row = info.nbytes // info.shape[0]
    return rows.start * per_row, rows.stop * per_row


def open_tensors(path: Path) -> TensorFile:
    """The file as safetensors or pickle, by the end of its name."""
    return SafetensorsFile(path) if path.suffix == ".safetensors" else PickledFile(path)


def read_tensor(file: TensorFile, name: str) -> torch.Tensor:
    """A whole tensor; for small ones."""
    import torch

    info = file.infos[name]
    data = bytearray(b"".join(file.chunks(name)))
    flat = torch.frombuffer(data, dtype=torch_type(info.dtype)) if data else torch.empty(0)
    return flat.reshape(info.shape)


def torch_type(dtype: str) -> torch.dtype:
    """PyTorch's type for the format's name of a floating-point type; ValueError for another."""
    import torch

    for long, short in FLOATS.items():
        if short == dtype:
            found: torch.dtype = getattr(torch, long)
            return found
    raise ValueError(f"{dtype} is no floating-point type that can be computed with")


def header_bytes(infos: Mapping[str, TensorInfo]) -> bytes:
    """The length and header of a safetensors file that holds these tensors in this order."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, info in infos.items():
        entries[name] = {
            "dtype": info.dtype,
            "shape": list(info.shape),
            "data_offsets": [start, start + info.nbytes],
        }
        start += info.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def in_file_order(names: Iterable[str], infos: Mapping[str, TensorInfo]) -> list[str]:
    """Widest types first, then by name: keeps each tensor aligned, as the safetensors library does."""
    return sorted(names, key=lambda name: (-ITEM_BYTES[infos[name].dtype], name))
