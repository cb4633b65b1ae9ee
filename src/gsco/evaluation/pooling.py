"""The arm ``gsco_calibrated``: computed from the log, without asking the generalist again.

Its weights are fitted on the validation cases of ``calibration.jsonl`` and stand in ``pool.json``. Its lines
come after those of all other arms. Where the generalist's answers are not calibrated, there is no such arm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gsco.collaboration import CALIBRATED, Arbiter, Evidence, Temperature, voices_of
from gsco.collaboration.pool import Floats
from gsco.evaluation.arm_words import fullest_arm
from gsco.evaluation.logline import pooled_line, read_evidence
from gsco.evaluation.runfolder import RunFolder
from gsco.evaluation.work import Work

_FILE = "pool.json"
Line = Mapping[str, Any]


def pool_answers(
    work: Work, keys: tuple[str, ...], lines: list[dict[str, Any]], fits: Mapping[str, Temperature]
) -> list[dict[str, Any]]:
    """Append the pooled answers that the log does not hold yet, and return all its lines.

    Args:
        work: folder, settings and progress.
        keys: option keys in the task's order.
        lines: the log, with the answers of all other arms.
        fits: by what the generalist's arms were calibrated; empty where they were not.
    """
    heard = fullest_arm(fits)
    if heard is None:
        return lines
    folder = work.folder
    with work.stage("pooling all voices") as step:
        asked = folder.recover_log(folder.calibration_log)
        known = read_arbiter(folder)
        arbiter = known[0] if known else _fit(work, keys, asked, heard, fits[heard])
        done = {line["case_id"] for line in lines if line["arm"] == CALIBRATED}
        fresh = [
            pooled_line(line, arbiter.answer(line["case_id"], keys, voices_in(line, keys)))
            for line in lines
            if line["arm"] == heard and line["case_id"] not in done
        ]
        folder.append(fresh)
        step(len(fresh))
    return [*lines, *fresh]


def read_arbiter(folder: RunFolder) -> tuple[Arbiter, str] | None:
    """What a run pooled by, and the arm whose answer is the generalist's voice; None where it did not."""
    found = folder.read_json(_FILE)
    return None if found is None else (Arbiter.from_dict(found), str(found["generalist_arm"]))


def fit_arbiter(
    lines: Sequence[Line], keys: tuple[str, ...], fit: Temperature | None = None, *, seed: int = 0
) -> Arbiter:
    """Fit the pool on lines of one generalist arm about labelled cases.

    Args:
        lines: one per case, with evidence, reference and probabilities.
        keys: option keys in the task's order.
        fit: the temperature to apply to the arm's probabilities first, where the lines hold them without.
        seed: of the folds.
    """
    voices = [voices_in(line, keys, fit) for line in lines]
    names = list(dict.fromkeys(name for voice in voices for name in voice))
    even = np.full(len(keys), 1 / len(keys))  # who is silent moves nothing
    said = {name: np.stack([voice.get(name, even) for voice in voices]) for name in names}
    targets = [keys.index(line["reference"]) for line in lines]
    return Arbiter.fit(said, targets, [line["cluster"] for line in lines], seed=seed)


def voices_in(line: Line, keys: tuple[str, ...], fit: Temperature | None = None) -> dict[str, Floats]:
    """What each voice says in a generalist arm's line, by name; see `voices_of`."""
    evidence: Evidence = read_evidence(line["evidence"])
    scores = [line["probabilities"][key] for key in keys]
    return voices_of(evidence, keys, scores if fit is None else fit.apply(scores).tolist())


def _fit(work: Work, keys: tuple[str, ...], asked: Sequence[Line], heard: str, fit: Temperature) -> Arbiter:
    arbiter = fit_arbiter([x for x in asked if x["arm"] == heard], keys, fit, seed=work.config.seed)
    work.folder.write_json(
        _FILE,
        {
            "schema": 1,
            "method": "p ∝ exp(Σ weight · log p of each voice), fitted on labelled validation cases",
            "generalist_arm": heard,
            **arbiter.to_dict(),
        },
    )
    return arbiter
