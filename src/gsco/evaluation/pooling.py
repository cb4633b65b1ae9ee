"""The arm ``gsco_calibrated``: computed from the log, without asking the generalist again.

Of the generalist's arms the one is heard that hears the least itself: what it says repeats the other
voices the least. Its weights are fitted on the validation cases of ``calibration.jsonl`` and stand in
``pool.json``. Its lines come after those of all other arms. Where the generalist's answers are not
calibrated, there is no such arm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gsco.collaboration import (
    CALIBRATED,
    Arbiter,
    Evidence,
    Spoken,
    Temperature,
    similar_to_known,
    voices_of,
)
from gsco.collaboration.pool import NEIGHBOURS, Floats
from gsco.evaluation.arm_words import barest_arm
from gsco.evaluation.logline import pooled_line, read_evidence
from gsco.evaluation.parts import Parts, speak_out_of_fold
from gsco.evaluation.predictions import write_predictions
from gsco.evaluation.runfolder import RunFolder
from gsco.evaluation.work import Work

_FILE = "pool.json"
_VOTES = "neighbour_vote.out_of_fold.npz"
Line = Mapping[str, Any]


def pool_answers(
    work: Work, parts: Parts, lines: list[dict[str, Any]], fits: Mapping[str, Temperature]
) -> list[dict[str, Any]]:
    """Append the pooled answers that the log does not hold yet, and return all its lines.

    Args:
        work: folder, settings and progress.
        parts: what was trained, and on what.
        lines: the log, with the answers of all other arms.
        fits: by what the generalist's arms were calibrated; empty where they were not.
    """
    folder, keys = work.folder, parts.taught.task.keys
    known = read_arbiter(folder)
    heard = known[1] if known else barest_arm(fits)
    if heard is None:
        return lines
    more = out_of_fold_evidence(work, parts) if known is None and work.config.folds else None
    with work.stage("pooling all voices") as step:
        asked = folder.recover_log(folder.calibration_log)
        arbiter = known[0] if known else _fit(work, keys, asked, heard, fits[heard], more)
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
    lines: Sequence[Line],
    keys: tuple[str, ...],
    fit: Temperature | None = None,
    *,
    more: Spoken | None = None,
    seed: int = 0,
) -> Arbiter:
    """Fit the pool on lines of one generalist arm about labelled cases.

    Args:
        lines: one per case, with evidence, reference and probabilities.
        keys: option keys in the task's order.
        fit: the temperature to apply to the arm's probabilities first, where the lines hold them without.
        more: further cases, for the weights alone.
        seed: of the folds.
    """
    voices = [voices_in(line, keys, fit) for line in lines]
    names = list(dict.fromkeys(name for voice in voices for name in voice))
    even = np.full(len(keys), 1 / len(keys))  # who is silent moves nothing
    said = {name: np.stack([voice.get(name, even) for voice in voices]) for name in names}
    targets = [keys.index(line["reference"]) for line in lines]
    return Arbiter.fit(said, targets, [line["cluster"] for line in lines], more=more, seed=seed)


def voices_in(line: Line, keys: tuple[str, ...], fit: Temperature | None = None) -> dict[str, Floats]:
    """What each voice says in a generalist arm's line, by name; see `voices_of`."""
    evidence: Evidence = read_evidence(line["evidence"])
    if line["probabilities"] is None:  # the request failed: the others speak without the generalist
        return voices_of(evidence, keys)
    scores = [line["probabilities"][key] for key in keys]
    return voices_of(evidence, keys, scores if fit is None else fit.apply(scores).tolist())


def out_of_fold_evidence(work: Work, parts: Parts) -> Spoken:
    """What the specialists and the similar cases would say of training cases, had they not seen them.

    Each case is answered by the member of each specialist that was trained without its fold. The generalist
    is not asked. Members are found in the cache; where that was emptied they are trained again. What is said
    is kept: the specialists' as of split ``out_of_fold``, the vote of the similar cases beside the log.
    """
    from gsco.specialists.features import extract

    config, dataset = work.config, parts.taught
    train = [case for case in dataset.split("train") if case.label is not None]
    said: dict[str, Floats] = {}
    for specialist, recipe in zip(parts.specialists, config.specialists, strict=True):
        said[f"specialist:{specialist.name}"] = speak_out_of_fold(
            work,
            specialist.name,
            recipe,
            dataset,
            folds=config.folds,
            seed=config.seed,
            quick=config.quick,
        )
    with work.stage("features of training cases", total=len(train)) as step:
        features = extract(parts.backbone, [case.image for case in train], cache=work.cache, progress=step)
    found = similar_to_known(parts.index, features, train, config.neighbours)
    keys = dataset.task.keys
    even = {NEIGHBOURS: np.full(len(keys), 1 / len(keys))}
    votes = [{**even, **voices_of(Evidence(neighbours=near), keys)}[NEIGHBOURS] for near in found]
    said[NEIGHBOURS] = np.stack(votes)
    kept = work.folder.path / _VOTES  # not among the predictions, where a specialist may have any name
    write_predictions(kept, [case.id for case in train], said[NEIGHBOURS])
    return Spoken(said, np.asarray(dataset.targets(train), dtype=np.int64))


def _fit(
    work: Work,
    keys: tuple[str, ...],
    asked: Sequence[Line],
    heard: str,
    fit: Temperature,
    more: Spoken | None,
) -> Arbiter:
    mine = [line for line in asked if line["arm"] == heard and line["probabilities"] is not None]
    arbiter = fit_arbiter(mine, keys, fit, more=more, seed=work.config.seed)
    work.folder.write_json(
        _FILE,
        {
            "schema": 1,
            "method": "p ∝ exp(Σ weight · log p of each voice), fitted on labelled validation cases",
            "generalist_arm": heard,
            "out_of_fold": 0 if more is None else len(more.targets),
            **arbiter.to_dict(),
        },
    )
    return arbiter
