"""Files appear whole, and as readable as any other new file."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from gsco.disk import as_readable_as_others, whole_file


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_whole_file_has_the_permissions_of_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    with whole_file(tmp_path / "a.safetensors") as draft:
        save_file({"x": np.zeros(2)}, draft)
    assert mode(tmp_path / "a.safetensors") == mode(tmp_path / "new")
    (tmp_path / "b").touch(mode=0o600)
    as_readable_as_others(tmp_path / "b")
    assert mode(tmp_path / "b") == mode(tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b", "new"]


def test_what_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ValueError, match="half"), whole_file(path) as draft:
        draft.write_text("ne")
        raise ValueError("half")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
