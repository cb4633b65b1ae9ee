"""The out-of-distribution sign in a run: fitted once, kept in ``foreign.json``, put into words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.evaluation.runfolder import RunFolder
from gsco.retrieval import CaseIndex, Foreignness, ForeignSign

_FILE = "foreign.json"
_NAMED = 5  # most foreign cases that the note names


def settle_sign(
    folder: RunFolder, index: CaseIndex, validation: Callable[[], NDArray[np.floating] | None]
) -> ForeignSign:
    """The run's sign: what stands in ``foreign.json``, or fitted and written there.

    Args:
        folder: the run.
        index: its index.
        validation: gives embeddings of validation cases that copy no known one; None without any.
    """
    known = read_sign(folder, index)
    if known is None:
        known = ForeignSign.fit(index, validation())
        folder.write_json(_FILE, known.to_dict())
    return known


def read_sign(folder: RunFolder, index: CaseIndex) -> ForeignSign | None:
    """What a run wrote about its index; None where it is an older run, which wrote nothing.

    Raises:
        ModelError: the file is damaged.
    """
    found = _read(folder)
    return found if found is not None and found.index_version == index.version else None


def sign_facts(folder: RunFolder) -> dict[str, Any] | None:
    """What the page says of the sign; None for an older run."""
    sign = _read(folder)
    if sign is None:
        return None
    return {
        "k": sign.k,
        "known": len(sign.known),
        "validation": len(sign.validation),
        "percent": f"{100 * sign.rate:.2g}",
    }


def _read(folder: RunFolder) -> ForeignSign | None:
    stored = folder.read_json(_FILE)
    return None if stored is None else ForeignSign.from_dict(stored, where=str(folder.path / _FILE))


def percent_nearer(nearer: float) -> str:
    """A share as percent, never rounded up to all of them: ``"99.6 %"``, ``"100 %"``."""
    return f"{math.floor(1000 * nearer) / 10:g} %"


def warning(found: Foreignness | None) -> str | None:
    """The line that stands before an answer about a foreign image; None where it is not foreign."""
    if found is None or not found.is_foreign:
        return None
    return (
        "This image does not look like any of the known cases (farther from them than "
        f"{percent_nearer(found.nearer)} of them are from each other): do not trust the answer."
    )


def foreign_note(lines: Iterable[Mapping[str, Any]]) -> str | None:
    """How many cases of a log look foreign, and which; None where the log does not know."""
    signs = {
        str(line["case_id"]): bool(line["evidence"]["foreignness"]["is_foreign"])
        for line in lines
        if (line.get("evidence") or {}).get("foreignness")
    }
    if not signs:
        return None
    foreign = sorted(case_id for case_id, sign in signs.items() if sign)
    if not foreign:
        return f"None of {len(signs)} cases looks foreign to the training cases (foreign.json)."
    more = f" and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
    verb = "looks" if len(foreign) == 1 else "look"
    return (
        f"{len(foreign)} of {len(signs)} cases {verb} foreign to the training cases "
        f"(foreign.json): {', '.join(foreign[:_NAMED])}{more}."
    )
