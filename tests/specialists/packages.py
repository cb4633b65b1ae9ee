"""A package with entry points, written into a folder that is put on the path, as pip would install it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

import pytest


def install(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    code: str,
    entries: Mapping[str, Mapping[str, str]],
) -> None:
    """Write module `name` and its metadata into a folder of its own and put that on ``sys.path``."""
    place = folder / name
    metadata = place / f"{name}-1.2.dist-info"
    metadata.mkdir(parents=True)
    (place / f"{name}.py").write_text(code)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    groups = (
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in names.items())
        for group, names in entries.items()
    )
    (metadata / "entry_points.txt").write_text("\n".join(groups))
    monkeypatch.syspath_prepend(place)
    importlib.invalidate_caches()
