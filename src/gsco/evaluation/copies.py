"""Copies between the splits, found before anything is learned, so that none of them counts.

A training case that is, or nearly is, a case to be answered would be found again by the index. A validation
case that is a training case makes whatever learned from it look better than it is, and one that is a case
to be answered is no validation at all: specialists are chosen, and answers calibrated, without either.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from gsco.cases import Case, Dataset
from gsco.errors import counted
from gsco.evaluation.work import Work
from gsco.progress import Count

_FILE = "leakage.json"


@dataclass(frozen=True, slots=True)
class Copies:
    """Ids of cases that are left out.

    Attributes:
        train: training cases that are, or nearly are, cases to be answered.
        val: validation cases that are, or nearly are, training cases or cases to be answered.
    """

    train: frozenset[str]
    val: frozenset[str]


def find_copies(work: Work, dataset: Dataset, cases: Sequence[Case]) -> Copies:
    """Compare the splits once and write ``leakage.json``.

    Args:
        work: folder, settings and progress.
        dataset: all cases.
        cases: those to be answered.

    Raises:
        LeakageError: a training case has the id or the patient of a case to be answered, or, where the
            config says to refuse, is (nearly) one.
    """
    from gsco.retrieval import check_leakage

    config, known = work.config, work.folder.read_json(_FILE)
    if known is None:
        train = _labelled(dataset, "train")
        with work.stage("leakage check") as step:
            report = check_leakage(train, cases, progress=step)
        report.raise_if(config.allow_leakage, strict=config.leakage == "refuse")
        known = {
            **report.to_json(),
            "purged": sorted(report.purge(config.allow_leakage)),
            "allowed": list(config.allow_leakage),
            "summary": report.summary(),
            "validation": _validation(work, dataset, train, cases),
        }
        work.folder.write_json(_FILE, known)
    if known["purged"]:
        work.progress.note(
            f"{known['summary']}; {counted(len(known['purged']), 'training case')} purged ({config.leakage})"
        )
    if known["validation"]["left_out"]:
        work.progress.note(validation_note(known["validation"]))
    return Copies(frozenset(known["purged"]), frozenset(known["validation"]["left_out"]))


def validation_note(found: dict[str, list[str]]) -> str:
    """What was left out of validation, in a sentence."""
    return (
        f"{counted(len(found['left_out']), 'validation case')} left out, (near) copies of training cases "
        f"({len(found['copies_of_training'])}) or of answered ones ({len(found['copies_of_answered'])}): "
        "specialists were judged, and answers calibrated, without them (leakage.json)."
    )


def _validation(
    work: Work, dataset: Dataset, train: Sequence[Case], cases: Sequence[Case]
) -> dict[str, list[str]]:
    """Validation cases that copy others; none is left out where an option would be without any."""
    val = [] if work.config.split == "val" else _labelled(dataset, "val")
    with work.stage("leakage check of validation") as step:
        return validation_copies(train, val, cases, allowed=work.config.allow_leakage, progress=step)


def validation_copies(
    train: Sequence[Case],
    val: Sequence[Case],
    answered: Sequence[Case],
    *,
    allowed: Collection[str] = (),
    progress: Count | None = None,
) -> dict[str, list[str]]:
    """Ids of validation cases that copy others, and of those to leave out: all, or none where an option
    would be without any.

    Args:
        train, val: labelled cases.
        answered: cases to be answered.
        allowed: kinds of leakage to let pass (`gsco.retrieval.leakage.KINDS`).
        progress: called with (images read, images in all).
    """
    from gsco.retrieval import check_leakage

    of_training = check_leakage(train, val, progress=progress).copies(allowed)
    of_answered = check_leakage(answered, val, progress=progress).copies(allowed)
    copies = of_training | of_answered

    def labels(cases: Iterable[Case]) -> set[str]:
        return {label for case in cases for label in case.labels}

    whole = labels(case for case in val if case.id not in copies) == labels(val)
    return {
        "copies_of_training": sorted(of_training),
        "copies_of_answered": sorted(of_answered),
        "left_out": sorted(copies) if whole else [],
    }


def _labelled(dataset: Dataset, split: Literal["train", "val"]) -> list[Case]:
    return [case for case in dataset.split(split) if case.label is not None]
