"""A checkpoint folder: its configuration, and in which file each tensor lies. Nothing is loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gsco.errors import ModelError
from gsco.generalist.internvl_chat.tensors import TensorFile, TensorInfo, open_tensors

_WHOLE = ("model.safetensors", "pytorch_model.bin")
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
_REMEDY = "Fetch the checkpoint again."


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor in a file."""

    file: TensorFile
    name: str

    @property
    def info(self) -> TensorInfo:
        """Its type and shape."""
        return self.file.infos[self.name]


@dataclass(slots=True)
class Checkpoint:
    """What lies in a checkpoint folder.

    Attributes:
        config: ``config.json``.
        files: weight files in the order of their names.
        tensors: the tensors of each file under the names they have without LoRA wrapping.
        lora: module (named likewise) -> its two LoRA matrices, ``A`` and ``B``, where they were not merged.
        fingerprint: changes whenever config, files' sizes or dates, or headers change.
    """

    config: dict[str, Any]
    files: list[TensorFile]
    tensors: dict[Path, dict[str, Held]]
    lora: dict[str, dict[str, Held]] = field(default_factory=dict)
    fingerprint: str = ""


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a model folder.

    Raises:
        ModelError: no folder, or no such file, or it is not JSON.
    """
    if not folder.is_dir():
        raise ModelError("is not a folder", where=str(folder), remedy="Name a checkpoint's folder.")
    return read_json(folder / "config.json")


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object; ModelError where it is missing or is none."""
    if not path.exists():
        raise ModelError(
            f"holds no {path.name}", where=str(path.parent), remedy="Name the folder of a checkpoint."
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"is not JSON ({error})", where=str(path), remedy=_REMEDY) from error
    if not isinstance(found, dict):
        raise ModelError("is not a JSON object", where=str(path), remedy=_REMEDY)
    return found


def weight_files(folder: Path) -> tuple[list[Path], set[str]]:
    """Weight files of a model folder, sorted by name, and the tensors that its index promises.

    Raises:
        ModelError: there are none, or some that the index names are missing.
    """
    for whole in _WHOLE:
        index = folder / f"{whole}.index.json"
        if index.exists():
            promised = read_json(index).get("weight_map")
            if not isinstance(promised, dict) or not promised:
                raise ModelError("has no weight_map", where=str(index), remedy=_REMEDY)
            shards = sorted(set(map(str, promised.values())))
            missing = [shard for shard in shards if not (folder / shard).is_file()]
            if missing:
                raise ModelError(
                    f"lacks {len(missing)} of {len(shards)} shards: {listed(missing)}",
                    where=str(folder),
                    remedy="Fetch what is missing.",
                )
            return [folder / shard for shard in shards], set(promised)
        if (folder / whole).is_file():
            return [folder / whole], set()
    raise ModelError(f"holds no weights ({' or '.join(_WHOLE)}, whole or in shards)", where=str(folder))


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read configuration, index and headers.

    Raises:
        ModelError: something is missing, broken or there twice.
    """
    config = read_config(folder)
    paths, promised = weight_files(folder)
    found = Checkpoint(config, [open_tensors(path) for path in paths], {})
    seen: set[str] = set()
    mark = hashlib.sha256((folder / "config.json").read_bytes())
    for file in found.files:
        stat = file.path.stat()
        mark.update(f"{file.path.name}:{stat.st_size}:{stat.st_mtime_ns}".encode())
        mark.update(getattr(file, "header", b""))
        held = found.tensors.setdefault(file.path, {})
        for name in file.infos:
            plain = _unwrapped(name)
            adapter = _LORA.fullmatch(plain)
            if adapter:
                found.lora.setdefault(adapter["module"], {})[adapter["side"]] = Held(file, name)
                continue
            if plain in seen:
                raise ModelError(f"holds {plain} twice", where=str(folder), remedy=_REMEDY)
            seen.add(plain)
            held[plain] = Held(file, name)
    lost = sorted(promised - {name for file in found.files for name in file.infos})
    if lost:
        raise ModelError(
            f"its shards lack {len(lost)} tensors that its index names: {listed(lost)}",
            where=str(folder),
            remedy=_REMEDY,
        )
    found.fingerprint = mark.hexdigest()
    return found


def _unwrapped(name: str) -> str:
    """A name without what peft's wrapping puts into it."""
    return name.replace(".base_model.model.", ".").replace(".base_layer.", ".")


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
