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
    by_label: dict[str, set[str]] = {}
    label_of: dict[str, str] = {}
    ordered_cases = sorted(cases, key=lambda case: case.id)
    unit_of = {case.id: unit for case, unit in zip(ordered_cases, units_of(ordered_cases), strict=True)}
    for case in ordered_cases:
        label = label_of.setdefault(unit_of[case.id], str(case.label))
        by_label.setdefault(label, set()).add(unit_of[case.id])
    heard: set[str] = set()
    for units in by_label.values():
        drawn = {unit: int(hashlib.sha256(os.fsencode(unit)).hexdigest()[:12], 16) / 16**12 for unit in units}
        # By the unit's own number, so that one image in two collections is drawn alike in both.
        chosen = {unit for unit, number in drawn.items() if number < share}
        if len(units) > 1:
            chosen = chosen or {min(drawn, key=drawn.__getitem__)}
            heard |= chosen if len(chosen) < len(units) else chosen - {max(drawn, key=drawn.__getitem__)}
    return (
        [case for case in cases if unit_of[case.id] not in heard],
        [case for case in cases if unit_of[case.id] in heard],
    )
