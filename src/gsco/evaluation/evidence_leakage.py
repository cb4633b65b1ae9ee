"""What evidence must not rest on: copies across the splits of a dataset, and within its training cases."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from gsco.cases import SPLITS, Case, Dataset, Split
from gsco.errors import UserError
from gsco.evaluation.copies import validation_copies
from gsco.evaluation.work import Means

LEAKAGE = "leakage.json"


def find_leakage(
    means: Means, dataset: Dataset, allowed: Collection[str], note: Callable[[str], None]
) -> dict[str, Any]:
    """What is too close to what, found once and kept in ``leakage.json``.

    Args:
        means: folder and progress.
        dataset: all cases.
        allowed: kinds of leakage to let pass, by name.
        note: told the summary.

    Returns:
        The report of `check_leakage` of validation and test cases against training cases (``purged``: what
        the index must not hold), ``validation`` (see `validation_copies`), and ``groups``: ids of
        training cases that stand together, by patient, group or looks.

    Raises:
        LeakageError: an id or a patient stands on both sides, and is not allowed to.
    """
    from gsco.retrieval import check_leakage
    from gsco.retrieval.likeness import group_alike

    known: dict[str, Any] | None = means.folder.read_json(LEAKAGE)
    if known is not None:
        return known
    train, val, test = (known_cases(dataset, split) for split in SPLITS)
    with means.stage("leakage check") as step:
        report = check_leakage(train, [*val, *test], progress=step)
    report.raise_if(allowed)
    judged = [case for case in val if case.label is not None]
    with means.stage("leakage check of validation") as step:
        validation = validation_copies(train, judged, test, allowed=allowed, progress=step)
    with means.stage("copies within training") as step:
        (grouped,) = group_alike([dataset], progress=step)
    groups: dict[str, list[str]] = {}
    for case in grouped.split("train"):
        if case.group is not None:
            groups.setdefault(case.group, []).append(case.id)
    known = {
        **report.to_json(),
        "purged": sorted(report.purge(allowed)),
        "allowed": sorted(allowed),
        "summary": report.summary(),
        "validation": validation,
        "groups": [members for members in groups.values() if len(members) > 1],
    }
    means.folder.write_json(LEAKAGE, known)
    note(known["summary"])
    return known


def with_groups(dataset: Dataset, groups: Sequence[Sequence[str]]) -> Dataset:
    """The dataset whose training cases of one group, by patient, group or looks, share ``group``."""
    number = {case_id: f"alike {i}" for i, members in enumerate(groups) for case_id in members}
    cases = (
        replace(case, group=number[case.id]) if case.split == "train" and case.id in number else case
        for case in dataset
    )
    return replace(dataset, cases=tuple(cases))


def check_kinds(allowed: Collection[str]) -> None:
    """UserError where there is no such kind of leakage."""
    from gsco.retrieval import KINDS

    for kind in allowed:
        if kind not in KINDS:
            raise UserError(f"no kind of leakage {kind!r}", remedy=f"Choose of: {', '.join(KINDS)}.")


def known_cases(dataset: Dataset, split: Split) -> tuple[Case, ...]:
    """The cases of a split that evidence is about: all of them, but of training cases those with a label."""
    return tuple(case for case in dataset.split(split) if split != "train" or case.label is not None)
