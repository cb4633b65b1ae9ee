"""Killed at any moment, a conversion goes on and ends with the same bytes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from gsco.generalist.internvl_chat import convert_checkpoint

from .old_layout import THREE_SHARDS

_KILLED = """
import os, signal, sys
from gsco.generalist.internvl_chat import convert_checkpoint

def progress(what, done, total):
    if what.startswith("model-00002"):
        os.kill(os.getpid(), signal.SIGKILL)

convert_checkpoint(sys.argv[1], sys.argv[2], progress=progress)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_kill_minus_nine(tmp_path: Path, converted: Callable[..., Path]) -> None:
    out = tmp_path / "new"
    command = [sys.executable, "-c", _KILLED, str(THREE_SHARDS), str(out)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert (out / "model-00001-of-00003.safetensors").exists()
    assert list(out.glob(".draft-model-00002*"))
    assert not (out / "config.json").exists()  # not a model yet
    made = convert_checkpoint(THREE_SHARDS, out)
    assert made.kept_shards == 1
    assert contents(out) == contents(converted(THREE_SHARDS))


def test_finished_shards_are_verified(tmp_path: Path, converted: Callable[..., Path]) -> None:
    out = tmp_path / "new"
    convert_checkpoint(THREE_SHARDS, out)
    damaged = bytearray((out / "model-00002-of-00003.safetensors").read_bytes())
    damaged[-1] ^= 1
    (out / "model-00002-of-00003.safetensors").write_bytes(damaged)
    (out / "model-00003-of-00003.safetensors").unlink()
    assert convert_checkpoint(THREE_SHARDS, out).kept_shards == 1
    assert contents(out) == contents(converted(THREE_SHARDS))
    assert convert_checkpoint(THREE_SHARDS, out).kept_shards == 3


def test_the_journal_names_no_path(converted: Callable[..., Path]) -> None:
    text = (converted(THREE_SHARDS) / "conversion.json").read_text()
    journal = json.loads(text)
    assert journal["complete"]
    assert journal["source"] == THREE_SHARDS.name
    assert str(THREE_SHARDS.parent) not in text
