"""Features computed once and kept on disk.

`extract` gives the features of a list of images in their order. What was computed before, by any run on
any dataset, is read from the store; the rest is computed and stored as it comes, so a killed run loses
at most one small transaction. A feature is found by *what was shown to what*: SHA-256 of the file's
bytes (with the array name and row for ``.npz``, the frame for a multi-frame file) under a database named
after the backbone's fingerprint, which covers weights and transform. File names and dates play no part.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from gsco.cases import ImageRef
from gsco.errors import ImageError, StorageError
from gsco.progress import Count

if TYPE_CHECKING:
    from PIL import Image

    from gsco.specialists.backbones import Backbone

T = TypeVar("T")
Kind = Literal["pooled", "texture", "maps", "prelogits"]


def extract(
    backbone: Backbone,
    refs: Sequence[ImageRef],
    *,
    cache: Path | None,
    pooled: bool = True,
    kind: Kind | None = None,
    batch_size: int = 16,
    progress: Count | None = None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Features of images, from the store or computed.

    Args:
        backbone: the frozen network.
        refs: the images; the same one may occur more than once.
        cache: folder of the store (``features/`` is made inside it); None computes without a store.
        pooled: pooled vectors when True, un-pooled maps when False.
        kind: overrides `pooled`: ``"pooled"``, ``"maps"``, ``"prelogits"`` (see `Backbone.prelogits`) or
            ``"texture"`` (see `describe_pixels` and `Backbone.pooled_and_texture`).
        batch_size: images per transaction; it decides how much a kill can lose, never a number.
        progress: called with (images done, images in all).
        threads: threads that decode while the network computes; by default one per core, at most 4.

    Returns:
        float32, (N, channels) for pooled vectors, (N, channels, H, W) for maps.

    Raises:
        ImageError: an image cannot be read.
        StorageError: the store cannot be written.
    """
    wanted: Kind = kind or ("pooled" if pooled else "maps")
    if not refs:
        raise ValueError("no images to describe")
    keys = image_keys(refs)
    with closing(_Store(None if cache is None else cache / "features", backbone.fingerprint)) as store:
        found = {key: value for key in dict.fromkeys(keys) if (value := store.get(wanted, key)) is not None}
        missing: dict[bytes, ImageRef] = {}
        for key, ref in zip(keys, refs, strict=True):
            if key not in found:
                missing.setdefault(key, ref)
        done = sum(key in found for key in keys)
        if progress:
            progress(done, len(refs))
        todo = list(missing.items())
        prepare = _prepare_with_pixels if _both(backbone, wanted) else _prepare
        ready = decoded([ref for _, ref in todo], partial(prepare, backbone), threads, ahead=2 * batch_size)
        for start in range(0, len(todo), batch_size):
            block = todo[start : start + batch_size]
            for name, values in _compute(backbone, [next(ready) for _ in block], wanted).items():
                store.put(name, [key for key, _ in block], values)
                if name == wanted:
                    found.update(zip((key for key, _ in block), values, strict=True))
            store.commit()
            done += len(block)
            if progress:
                progress(min(done, len(refs)), len(refs))
    if progress and todo:
        progress(len(refs), len(refs))
    return np.stack([found[key] for key in keys])


@dataclass(frozen=True, slots=True)
class _Ready:
    """One picture as the network takes it and, where asked for, its description."""

    array: NDArray[np.uint8]
    pixels: NDArray[np.float32] | None = None


def _prepare(backbone: Backbone, image: Image.Image) -> _Ready:
    return _Ready(backbone.prepare(image))


def _prepare_with_pixels(backbone: Backbone, image: Image.Image) -> _Ready:
    array = backbone.prepare(image)
    return _Ready(array, describe_pixels(array))


def _both(backbone: Backbone, kind: Kind) -> bool:
    """Whether pooled vectors and texture are computed together: one pass of the network gives both."""
    return kind == "texture" or (kind == "pooled" and hasattr(backbone.model, "forward_intermediates"))


def _compute(backbone: Backbone, ready: Sequence[_Ready], kind: Kind) -> dict[Kind, NDArray[np.float32]]:
    """Features of prepared pictures, of the kind asked for and of what comes with it."""
    arrays = [one.array for one in ready]
    if not _both(backbone, kind):
        by_kind = {"maps": backbone.maps, "prelogits": backbone.prelogits, "pooled": backbone.pooled}
        return {kind: by_kind[kind](arrays)}
    pooled, stages = backbone.pooled_and_texture(arrays)
    pixels = np.stack([one.pixels for one in ready if one.pixels is not None])
    return {"pooled": pooled, "texture": np.concatenate([stages, pixels], axis=1)}


def describe_pixels(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colour and fine texture of one picture, without any network.

    Args:
        image: (H, W, 3) uint8.

    Returns:
        float32 (98,): 16-bin histograms of R, G, B (48); histograms of the number of brighter
        neighbours (0 to 8) among the eight at distance 1 and 3 (18), a rotation-invariant relative of
        local binary patterns (Ojala et al., 2002); mean and deviation of grey on a 4 x 4 grid (32).
    """
    pixels = image.reshape(-1, 3).astype(np.int64)
    parts = [np.bincount(pixels[:, c] >> 4, minlength=16) / len(pixels) for c in range(3)]
    grey = image.astype(np.float32) @ np.asarray([0.299, 0.587, 0.114], dtype=np.float32)
    height, width = grey.shape
    for step in (1, 3):
        centre = grey[step : height - step, step : width - step]
        brighter = np.zeros(centre.shape, dtype=np.uint8)
        for dy in (-step, 0, step):
            for dx in (-step, 0, step):
                if dy or dx:
                    brighter += grey[step + dy : height - step + dy, step + dx : width - step + dx] > centre
        parts.append(np.bincount(brighter.ravel(), minlength=9) / max(1, brighter.size))
    cells = grey[: height // 4 * 4, : width // 4 * 4].reshape(4, height // 4, 4, width // 4) / 255
    parts += [cells.mean(axis=(1, 3)).ravel(), cells.std(axis=(1, 3)).ravel()]
    return np.concatenate(parts).astype(np.float32)


def image_keys(refs: Sequence[ImageRef]) -> list[bytes]:
    """Content keys, 32 bytes each: SHA-256 of the file's bytes, with array name and row where given.

    Raises:
        ImageError: a file cannot be opened.
    """
    hashes: dict[Path, bytes] = {}
    keys = []
    for ref in refs:
        if ref.path not in hashes:
            try:
                with ref.path.open("rb") as file:
                    hashes[ref.path] = hashlib.file_digest(file, "sha256").digest()
            except OSError as error:
                raise ImageError(f"cannot be opened ({error.strerror})", where=str(ref.path)) from error
        digest = hashes[ref.path]
        if ref.key is not None or ref.index is not None:
            digest = hashlib.sha256(digest + f"\n{ref.key}\n{ref.index}".encode()).digest()
        keys.append(digest)
    return keys


def decoded(
    refs: Sequence[ImageRef],
    prepare: Callable[[Image.Image], T],
    threads: int | None,
    *,
    ahead: int,
) -> Iterator[T]:
    """Prepared pictures in order, decoded by threads a bounded number of pictures ahead."""
    from gsco.cases.images import load_image

    workers = threads or min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="gsco-decode") as pool:
        waiting: list[Future[T]] = []
        position = 0
        try:
            while position < len(refs) or waiting:
                while position < len(refs) and len(waiting) < ahead:
                    waiting.append(pool.submit(lambda ref: prepare(load_image(ref)), refs[position]))
                    position += 1
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


class _Store:
    """One SQLite file per backbone fingerprint, one table per kind; a kill leaves the last commit."""

    def __init__(self, folder: Path | None, fingerprint: str) -> None:
        self._path = ":memory:" if folder is None else str(folder / f"{fingerprint[:32]}.sqlite")
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._path, timeout=60)
            # NORMAL: a power cut may lose the last commit, a kill loses nothing
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._tables: set[Kind] = set()
        except (OSError, sqlite3.Error) as error:
            raise self._failure(error) from error

    def get(self, kind: Kind, key: bytes) -> NDArray[np.float32] | None:
        """The stored value, or None."""
        try:
            self._table(kind)
            row = self._db.execute(f"SELECT shape, value FROM {kind} WHERE key = ?", (key,)).fetchone()  # noqa: S608
        except sqlite3.Error as error:
            raise self._failure(error) from error
        if row is None:
            return None
        shape = tuple(int(side) for side in row[0].split("x"))
        return np.frombuffer(row[1], dtype="<f4").reshape(shape)

    def put(self, kind: Kind, keys: Sequence[bytes], values: NDArray[np.float32]) -> None:
        """Store one value per key; the first value written for a key is the one that stays."""
        rows = [
            (key, "x".join(map(str, v.shape)), v.astype("<f4").tobytes())
            for key, v in zip(keys, values, strict=True)
        ]
        try:
            self._table(kind)
            self._db.executemany(f"INSERT OR IGNORE INTO {kind} VALUES (?, ?, ?)", rows)  # noqa: S608
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def commit(self) -> None:
        """Make everything put so far safe from a kill."""
        try:
            self._db.commit()
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Close the file; what was not committed is dropped."""
        self._db.close()

    def _table(self, kind: Kind) -> None:
        if kind not in self._tables:
            self._db.execute(
                f"CREATE TABLE IF NOT EXISTS {kind} (key BLOB PRIMARY KEY, shape TEXT, value BLOB)"
            )
            self._tables.add(kind)

    def _failure(self, error: Exception) -> StorageError:
        return StorageError(
            f"the feature store cannot be used ({error})",
            where=self._path,
            remedy="Free some space or delete the file; it is made anew.",
        )
