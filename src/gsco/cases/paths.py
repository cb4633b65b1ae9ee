"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: Path | str) -> Path:
    """The path with ``~`` and ``~user`` replaced; as it stands where there is no such user."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  (pathlib raises for an unknown user)
