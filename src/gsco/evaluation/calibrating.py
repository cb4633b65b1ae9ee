"""Before the answers count: each generalist arm is asked about labelled validation cases.

A temperature is fitted on what it says (`Temperature`), so that its probabilities mean what they say; it
changes no answer. Cases to be answered, and copies of them, are never used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gsco.cases import Case
from gsco.collaboration import Temperature
from gsco.evaluation.answering import answer_mode, ask_for_calibration
from gsco.evaluation.data import draw
from gsco.evaluation.parts import Parts, gather_evidence
from gsco.evaluation.runfolder import RunFolder
from gsco.evaluation.work import Work
from gsco.generalist import Generalist

_FILE = "calibration.json"


def calibrate(
    work: Work, cases: Sequence[Case], parts: Parts, generalist: Generalist | None
) -> dict[str, Temperature]:
    """Fit on validation what the answers to `cases` are calibrated by, and write ``calibration.json``.

    Args:
        work: folder, settings and progress.
        cases: those to be answered; no more than so many are asked about here.
        parts: specialists and index, and the dataset with the validation cases.
        generalist: who is asked; None where no generalist arm is.

    Returns:
        By arm; empty where nothing is calibrated (`calibration_cases` 0, free generation, validation cases
        answered themselves, no generalist).
    """
    config = work.config
    most = min(config.calibration_cases, len(cases))
    if generalist is None or not most or config.split == "val":
        return {}
    if answer_mode(config.mode, generalist) != "score":
        return {}
    known = read_calibrations(work.folder)
    if known:
        return known
    dataset = parts.taught
    labelled = draw([case for case in dataset.split("val") if case.label is not None], most, config.seed)
    evidence = gather_evidence(work, labelled, parts, "val")
    lines = ask_for_calibration(work, dataset, labelled, evidence, generalist)
    fits = _fit(lines, dataset.task.keys)
    work.folder.write_json(
        _FILE,
        {
            "schema": 1,
            "method": "softmax(log p / temperature), fitted on labelled validation cases",
            "arms": {arm: {"n": fit.n, "temperature": fit.value} for arm, fit in fits.items()},
        },
    )
    return fits


def read_calibrations(folder: RunFolder) -> dict[str, Temperature]:
    """What a run was calibrated by, by arm; empty where it was not."""
    found = folder.read_json(_FILE)
    return {
        arm: Temperature(fit["temperature"], fit["n"]) for arm, fit in (found or {"arms": {}})["arms"].items()
    }


def _fit(lines: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, Temperature]:
    by_arm: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        if line["probabilities"] is not None:  # a request that failed says nothing
            by_arm.setdefault(line["arm"], []).append(line)
    return {
        arm: Temperature.fit(
            np.asarray([[row["probabilities"][key] for key in keys] for row in rows]),
            [keys.index(row["reference"]) for row in rows],
        )
        for arm, rows in by_arm.items()
    }
