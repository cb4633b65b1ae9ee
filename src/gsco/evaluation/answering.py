"""The costly stage: every case is answered in every arm; each batch is on disk before the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gsco.cases import Case, Dataset
from gsco.collaboration import Collaboration, Evidence, controls, get_template
from gsco.errors import RunError
from gsco.evaluation.logline import make_line
from gsco.evaluation.parsing import parse_option
from gsco.evaluation.work import Work
from gsco.generalist import Generalist


def answer_cases(
    work: Work,
    dataset: Dataset,
    cases: Sequence[Case],
    evidence: Sequence[Evidence],
    *,
    best: str,
    generalist: Generalist | None,
) -> list[dict[str, Any]]:
    """Append a line per case and arm to the log, leaving out those that stand in it already.

    Batches are formed by position, never by what is left: a resumed run hands the generalist the same
    batches as an unbroken one, so that its answers are the same to the last digit.

    Args:
        work: folder, settings and progress.
        dataset: where the cases are from.
        cases: the cases to answer, in order.
        evidence: what is known about each, aligned with `cases`.
        best: the specialist that was best on validation.
        generalist: None where no generalist arm is asked for.

    Returns:
        All lines of the log, in its order.
    """
    config, folder = work.config, work.folder
    lines = folder.recover_log()
    done = {(line["case_id"], line["arm"]) for line in lines}
    wanted = {case.id for case in cases}
    strange = sorted({case_id for case_id, _ in done} - wanted)
    if strange:
        raise RunError(
            f"has answers to a case that is not to be answered: {strange[0]}",
            where=str(folder.log),
            remedy="Start a new run with another --out.",
        )
    collaboration = None
    if generalist is not None:
        collaboration = Collaboration(generalist, get_template(config.template), config.mode, parse_option)
    with work.stage("answering", total=len(cases)) as step:
        for start in range(0, len(cases), config.batch_cases):
            batch = cases[start : start + config.batch_cases]
            known = evidence[start : start + config.batch_cases]
            fresh = _answer_batch(work, dataset, batch, known, best, collaboration, done)
            folder.append(fresh)
            lines.extend(fresh)
            step(start + len(batch))
    return lines


def _answer_batch(
    work: Work,
    dataset: Dataset,
    batch: Sequence[Case],
    known: Sequence[Evidence],
    best: str,
    collaboration: Collaboration | None,
    done: set[tuple[str, str]],
) -> list[dict[str, Any]]:
    """Lines of one batch that are not in the log yet, case by case, generalist arms before controls."""
    arms = work.config.arms if collaboration is not None else ()
    asked = any((case.id, arm) not in done for case in batch for arm in arms)
    by_case: dict[str, list[Any]] = {case.id: [] for case in batch}
    if collaboration is not None and asked:
        for answer in collaboration.answer(batch, dataset.task, known, arms):
            by_case[answer.case_id].append(answer)
    fresh = []
    for case, evidence in zip(batch, known, strict=True):
        answers = by_case[case.id] + controls(case, dataset.task, evidence, best=best)
        fresh += [
            make_line(case, answer, evidence, dataset=dataset.name)
            for answer in answers
            if (case.id, answer.arm) not in done
        ]
    return fresh
