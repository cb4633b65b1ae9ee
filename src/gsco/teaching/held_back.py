"""Training cases that are kept back from looking, for learning when to trust what is said.

A generalist that has seen an image with its answer reads its own eye as more reliable than it will be on
new images, and then overrules evidence that was right. Just as a specialist never speaks about an image it
was trained on, records with evidence are made from images that were not shown with their answer before.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from gsco.cases import Case, units_of

SHARE = 0.35


def held_back(cases: Sequence[Case], share: float = SHARE) -> tuple[list[Case], list[Case]]:
    """Cases to look at and cases to hear about; the same for the same cases, whatever their order.

    Args:
        cases: labelled training cases; those of one patient or group stay together.
        share: of the units (patients, groups) of each label that are held back; a label's only one never is.

    Returns:
        Two lists in the order of `cases`, which together are `cases`.
    """
    ordered = sorted(cases, key=lambda case: case.id)
    unit_of = dict(zip((case.id for case in ordered), units_of(ordered), strict=True))
    label_of: dict[str, str] = {}
    for case in ordered:
        label_of.setdefault(unit_of[case.id], str(case.label))
    by_label: dict[str, list[str]] = {}
    for unit, label in label_of.items():
        by_label.setdefault(label, []).append(unit)
    heard = {unit for units in by_label.values() for unit in _drawn(units, share)}
    return (
        [case for case in cases if unit_of[case.id] not in heard],
        [case for case in cases if unit_of[case.id] in heard],
    )


def _drawn(units: Sequence[str], share: float) -> list[str]:
    """About a share of the units of one label, at least one and never all.

    Each by its own number, so that one image in two collections is drawn alike in both.
    """
    ordered = sorted(units, key=_number)
    below = sum(_number(unit) < share for unit in ordered)
    return ordered[: min(max(below, 1), len(ordered) - 1)]


def _number(unit: str) -> float:
    """In [0, 1), spread evenly over units."""
    return int(hashlib.sha256(os.fsencode(unit)).hexdigest()[:12], 16) / 16**12
