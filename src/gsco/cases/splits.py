"""Splits: checked for leaks when they are given, drawn by group when they are not."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

from gsco.cases.case import SPLITS, Case, Dataset, Split
from gsco.errors import DatasetError, SplitLeakError

SHARES: tuple[float, float, float] = (0.7, 0.1, 0.2)
"""Shares of train, val and test in a drawn split."""


def check_splits(cases: Sequence[Case], *, where: str | None = None) -> None:
    """Refuse a patient or group that stands in two splits.

    A patient id may identify a person and never reaches a message: the offenders are named by their
    first cases.

    Raises:
        SplitLeakError: naming how many patients or groups, and two cases of the first one.
    """
    for kind in ("patient_id", "group"):
        first: dict[str, dict[Split, str]] = defaultdict(dict)
        for case in cases:
            unit = getattr(case, kind)
            if unit:
                first[unit].setdefault(case.split, case.id)
        leaks = [splits for splits in first.values() if len(splits) > 1]
        if leaks:
            examples = " and ".join(f"{case_id} ({split})" for split, case_id in list(leaks[0].items())[:2])
            noun = "patient" if kind == "patient_id" else "group"
            stand = "stands" if len(leaks) == 1 else "stand"
            raise SplitLeakError(
                f"{len(leaks)} {noun}{'' if len(leaks) == 1 else 's'} {stand} in more than one split, "
                f"for example that of {examples}",
                where=where,
                remedy=f"Keep all images of one {noun} in one split.",
            )


def check_ids(cases: Sequence[Case], *, where: str | None = None) -> None:
    """DatasetError where two cases have one id."""
    seen: set[str] = set()
    double = [case.id for case in cases if case.id in seen or seen.add(case.id)]  # type: ignore[func-returns-value]
    if double:
        raise DatasetError(
            f"{double[0]} is listed more than once ({len(double)} repeated in all)",
            where=where,
            remedy="List each case once; join several labels of an image with |.",
        )


def require_splits(dataset: Dataset, needed: Iterable[Split] = SPLITS) -> None:
    """DatasetError naming the splits in `needed` that hold no case."""
    empty = [name for name in needed if not dataset.split(name)]
    if empty:
        raise DatasetError(
            f"no case in split {' and '.join(empty)}",
            where=str(dataset.root),
            remedy="Give each split some cases, or leave the split column out to have splits drawn.",
        )


def draw_splits(
    cases: Sequence[Case], *, seed: int = 0, shares: tuple[float, float, float] = SHARES
) -> tuple[Case, ...]:
    """Assign splits that do not exist yet, by class and by group.

    The unit that is assigned is the patient, else the group, else the case; cases that share a patient
    **or** a group come together. Units are stratified by the labels of their first case and ordered by a
    hash of seed and unit, so that the draw is the same on every machine and hardly changes when cases
    are added. A class of at least three units has one in every split.

    Args:
        cases: in any order; their present ``split`` is not looked at.
        seed: another seed, another draw.
        shares: of train, val and test; they sum to 1.

    Returns:
        The same cases, in the same order, with a split each.
    """
    units = units_of(cases)
    members: dict[str, list[Case]] = defaultdict(list)
    for case, unit in zip(cases, units, strict=True):
        members[unit].append(case)
    strata: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for unit, own in members.items():
        strata[own[0].labels].append(unit)
    chosen: dict[str, Split] = {}
    for stratum in sorted(strata):
        order = sorted(strata[stratum], key=lambda u: hashlib.sha256(os.fsencode(f"{seed}:{u}")).hexdigest())
        total = sum(len(members[unit]) for unit in order)
        wanted = (("test", shares[2]), ("val", shares[1]))
        filled = {"test": 0, "val": 0}
        for unit in order:
            split: Split = "train"
            size = len(members[unit])
            for name, share in wanted:
                # A unit goes where it leaves the share nearer to what is wanted than without it.
                if 2 * (round(share * total) - filled[name]) >= size:
                    split = cast(Split, name)
                    break
            if split != "train":
                filled[split] += size
            chosen[unit] = split
        _share_out(order, members, chosen, [name for name, share in wanted if share > 0])
    return tuple(replace(case, split=chosen[unit]) for case, unit in zip(cases, units, strict=True))


def _share_out(
    order: Sequence[str], members: dict[str, list[Case]], chosen: dict[str, Split], wanted: Sequence[str]
) -> None:
    """Give each split of a class of at least three units one: the smallest that another can spare."""
    for name in ("train", *wanted) if len(order) >= 3 else ("train",):
        held = Counter(chosen[unit] for unit in order)
        if not held[cast(Split, name)]:
            spare = [unit for unit in order if held[chosen[unit]] > 1 or len(order) < 3]
            chosen[min(spare, key=lambda unit: len(members[unit]))] = cast(Split, name)


class UnionFind:
    """Names that are joined pair by pair; each set of them is called by one of its own."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        """What the set of `name` is called; the name itself where it was never joined."""
        while self._parent.setdefault(name, name) != name:
            self._parent[name] = self._parent[self._parent[name]]
            name = self._parent[name]
        return name

    def join(self, name: str, other: str) -> None:
        """Make the sets of both one, called as that of `other` is."""
        self._parent[self.find(name)] = self.find(other)


def units_of(cases: Sequence[Case]) -> list[str]:
    """The unit that stays together of each case: joined by a patient **or** a group, named by its first."""
    sets = UnionFind()
    first: dict[str, str] = {}
    for case in cases:
        nodes = [f"p:{case.patient_id}"] if case.patient_id else []
        nodes += [f"g:{case.group}"] if case.group else []
        nodes = nodes or [f"c:{case.id}"]
        for node in nodes[1:]:
            sets.join(node, nodes[0])
    units = []
    for case in cases:
        node = (
            f"p:{case.patient_id}" if case.patient_id else f"g:{case.group}" if case.group else f"c:{case.id}"
        )
        units.append(first.setdefault(sets.find(node), case.cluster))
    return units
