"""Consoles: what a person reads goes to stderr, what a program reads goes to stdout."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

RESEARCH_ONLY = "Research use only, not a medical device."


def stderr() -> Console:
    """Console for progress and notes."""
    from rich.console import Console

    return Console(stderr=True)


def stdout() -> Console:
    """Console for results; plain and wide when it is not a terminal."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=120)


def print_json(value: Any) -> None:
    """One JSON document on stdout, and nothing else."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()
