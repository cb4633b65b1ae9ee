"""The costly stage: every case is answered in every arm; each batch is on disk before the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gsco.cases import Case, Dataset
from gsco.collaboration import (
    CALIBRATED,
    Answer,
    Collaboration,
    Evidence,
    Temperature,
    controls,
    get_template,
)
from gsco.collaboration.arms import Mode
from gsco.errors import RunError
from gsco.evaluation.logline import make_line
from gsco.evaluation.parsing import parse_option
from gsco.evaluation.work import Work
from gsco.generalist import Generalist, can_score


def answer_cases(
    work: Work,
    dataset: Dataset,
    cases: Sequence[Case],
    evidence: Sequence[Evidence],
    *,
    best: str,
    generalist: Generalist | None,
    calibrations: Mapping[str, Temperature] | None = None,
) -> list[dict[str, Any]]:
    """Append a line per case and arm to the log, leaving out those that stand in it already.

    Args:
        work: folder, settings and progress.
        dataset: where the cases are from.
        cases: the cases to answer, in order.
        evidence: what is known about each, aligned with `cases`.
        best: the specialist that was best on validation.
        generalist: None where no generalist arm is asked for.
        calibrations: by arm; such an arm's probabilities are logged calibrated, with what they were.

    Returns:
        All lines of the log, in its order.
    """

    def voices(case: Case, known: Evidence, answers: list[Answer]) -> list[Answer]:
        said = [calibrated(answer, calibrations or {}) for answer in answers]
        return [*said, *controls(case, dataset.task, known, best=best)]

    return _ask(work, work.folder.log, "answering", dataset, cases, evidence, generalist, voices)


def ask_for_calibration(
    work: Work,
    dataset: Dataset,
    cases: Sequence[Case],
    evidence: Sequence[Evidence],
    generalist: Generalist,
) -> list[dict[str, Any]]:
    """The same for labelled validation cases and the generalist's arms alone, to a log of their own."""
    return _ask(
        work,
        work.folder.calibration_log,
        "asking about validation cases",
        dataset,
        cases,
        evidence,
        generalist,
        lambda _case, _known, answers: answers,
    )


def calibrated(answer: Answer, fits: Mapping[str, Temperature]) -> Answer:
    """The answer with its arm's temperature applied; the answer itself where there is none."""
    fit = fits.get(answer.arm)
    if fit is None or answer.probabilities is None:
        return answer
    p = fit.apply(list(answer.probabilities.values()))
    return replace(
        answer,
        probabilities=dict(zip(answer.probabilities, map(float, p), strict=True)),
        uncalibrated=answer.probabilities,
    )


def answer_mode(wanted: Mode, generalist: Generalist) -> Mode:
    """How it is asked: as wanted, but by free text where it cannot tell the probabilities of options."""
    return wanted if can_score(generalist) else "generate"


def _ask(
    work: Work,
    log: Path,
    stage: str,
    dataset: Dataset,
    cases: Sequence[Case],
    evidence: Sequence[Evidence],
    generalist: Generalist | None,
    voices: Callable[[Case, Evidence, list[Answer]], list[Answer]],
) -> list[dict[str, Any]]:
    """Go through the cases in batches formed by position, never by what is left.

    So a resumed run hands the generalist the same batches as an unbroken one, and its answers are the
    same to the last digit. What failed for good before is asked again.
    """
    config, folder = work.config, work.folder
    lines = folder.recover_log(log)
    failed = {line["case_id"] for line in lines if line.get("failed")}
    if failed and generalist is not None:
        lines = [line for line in lines if not (line["case_id"] in failed and _to_ask_again(line))]
        folder.rewrite(lines, log)
    done = {(line["case_id"], line["arm"]) for line in lines}
    wanted = {case.id for case in cases}
    strange = sorted({case_id for case_id, _ in done} - wanted)
    if strange:
        raise RunError(
            f"has answers to a case that is not to be answered: {strange[0]}",
            where=str(log),
            remedy="Start a new run with another --out.",
        )
    arms = config.arms if generalist is not None else ()
    collaboration = None
    if generalist is not None:
        collaboration = Collaboration(
            generalist,
            get_template(config.template),
            answer_mode(config.mode, generalist),
            parse_option,
            known_images={case.id: case.image for case in dataset.split("train")},
            examples=config.examples,
        )
    with work.stage(stage, total=len(cases)) as step:
        for start in range(0, len(cases), config.batch_cases):
            batch = cases[start : start + config.batch_cases]
            known = evidence[start : start + config.batch_cases]
            by_case: dict[str, list[Answer]] = {case.id: [] for case in batch}
            if collaboration is not None and any((c.id, arm) not in done for c in batch for arm in arms):
                for answer in collaboration.answer(batch, dataset.task, known, arms):
                    by_case[answer.case_id].append(answer)
            fresh = [
                make_line(case, answer, found, dataset=dataset.name)
                for case, found in zip(batch, known, strict=True)
                for answer in voices(case, found, by_case[case.id])
                if (case.id, answer.arm) not in done
            ]
            folder.append(fresh, log)
            lines.extend(fresh)
            step(start + len(batch))
    return lines


def _to_ask_again(line: Mapping[str, Any]) -> bool:
    """Whether a line of a case with a failed answer goes: that answer, and what was pooled without it."""
    return bool(line.get("failed")) or line["arm"] == CALIBRATED
