"""A `CaseIndex` on disk: ``config.json``, ``embeddings.safetensors``, ``cases.jsonl``, ``README.md``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.disk import dump_json, whole_file, write_atomic, writing
from gsco.errors import ModelError
from gsco.retrieval.index import CaseIndex, Entry, content_hash
from gsco.retrieval.nearest import Engine

SCHEMA = 1
_KIND = "case_index"
_CONFIG, _VECTORS, _CASES, _CARD = "config.json", "embeddings.safetensors", "cases.jsonl", "README.md"
_TENSOR = "embeddings"


def save_index(index: CaseIndex, folder: Path) -> None:
    """Write an index; each file appears whole, ``config.json`` last."""
    from importlib.metadata import version

    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    config = {
        "schema": SCHEMA,
        "kind": _KIND,
        "dataset": index.dataset,
        "encoder": index.encoder,
        "dim": index.dim,
        "n": len(index),
        "pooled": index.pooled,
        "version": index.version,
        "created_with": f"gsco {version('gsco')}",
    }
    lines = [
        json.dumps({"id": e.id, "labels": list(e.labels), "units": list(e.units)}, ensure_ascii=False) + "\n"
        for e in index.entries
    ]
    with writing(folder, what="cannot write the index", also=SafetensorError):
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / _VECTORS) as draft:
            save_file({_TENSOR: np.ascontiguousarray(index.embeddings)}, draft)
        write_atomic(folder / _CASES, "".join(lines))
        write_atomic(folder / _CARD, _card(index))
        write_atomic(folder / _CONFIG, dump_json(config))


def load_index(folder: Path, *, expect_encoder: str | None, engine: Engine, verify: bool) -> CaseIndex:
    """Open an index and check that its parts belong together."""
    if not (folder / _CONFIG).is_file():
        raise ModelError(
            f"holds no {_CONFIG}, so it is no case index" if folder.is_dir() else "there is no such folder",
            where=str(folder),
            remedy="Build the index again, or name the folder that save_pretrained wrote.",
        )
    config = _config(folder)
    if expect_encoder is not None and config["encoder"] != expect_encoder:
        raise ModelError(
            f"was made by the encoder {config['encoder'][:24]}, not by {expect_encoder[:24]}",
            where=str(folder),
            remedy="Build the index again with this encoder.",
        )
    entries = _entries(folder)
    vectors = _map(folder)
    if not (len(entries) == len(vectors) == config["n"]) or vectors.shape[1] != config["dim"]:
        raise _damaged(
            folder,
            f"{len(entries)} cases and embeddings of shape {vectors.shape} where {_CONFIG} says "
            f"{config['n']} of dimension {config['dim']}",
        )
    identity: dict[str, Any] = {key: config[key] for key in ("dataset", "encoder", "pooled")}
    if verify and content_hash(vectors, entries, **identity) != config["version"]:
        raise _damaged(folder, f"the content is not that of version {config['version']}")
    return CaseIndex(vectors, entries, **identity, engine=engine, version=config["version"])


def _config(folder: Path) -> dict[str, Any]:
    types = {"dataset": str, "encoder": str, "version": str, "n": int, "dim": int, "pooled": bool}
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{_CONFIG} cannot be read ({error})") from error
    if not isinstance(config, dict) or config.get("kind") != _KIND:
        raise ModelError("is another kind of folder, not a case index", where=str(folder))
    if config.get("schema") != SCHEMA:
        raise ModelError(
            f"has the format {config.get('schema')!r}; this version reads {SCHEMA}",
            where=str(folder),
            remedy="Update gsco, or build the index again.",
        )
    for key, kind in types.items():
        if not isinstance(config.get(key), kind):
            raise _damaged(folder, f"{_CONFIG} has no valid {key!r}")
    return config


def _entries(folder: Path) -> list[Entry]:
    try:
        text = (folder / _CASES).read_text(encoding="utf-8")
        records = [json.loads(line) for line in text.split("\n") if line]
        return [Entry(str(r["id"]), tuple(r["labels"]), tuple(r["units"])) for r in records]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{_CASES} cannot be read ({error})") from error


def _map(folder: Path) -> NDArray[np.float32]:
    """Map the one tensor of a safetensors file: 8 bytes of header length, a JSON header, the data."""
    path = folder / _VECTORS
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > 100_000_000:
                raise ValueError("the header is too long")
            about = json.loads(file.read(size))[_TENSOR]
        rows, dim = about["shape"]
        start, end = about["data_offsets"]
        if about["dtype"] != "F32" or end - start != 4 * rows * dim or rows * dim == 0:
            raise ValueError("it does not hold one float32 matrix")
        if path.stat().st_size != 8 + size + end:
            raise ValueError("it is cut short")
        return np.memmap(path, dtype="<f4", mode="r", offset=8 + size + start, shape=(rows, dim))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{_VECTORS} cannot be read ({error})") from error


def _damaged(folder: Path, what: str) -> ModelError:
    return ModelError(f"the index is damaged: {what}", where=str(folder), remedy="Build it again.")


def _card(index: CaseIndex) -> str:
    kind = "pooled vectors" if index.pooled else "flattened un-pooled maps"
    return (
        f"# Case index of {index.dataset}\n\n"
        f"{len(index)} training cases; embeddings of dimension {index.dim} ({kind}, unit length).\n\n"
        f"| | |\n|---|---|\n| version | `{index.version}` |\n| encoder | `{index.encoder}` |\n\n"
        "Holds training cases only. Patients and groups are stored as hashes; the ids of cases are those of\n"
        "the dataset. Research use only, not a medical device.\n"
    )
