"""What is chosen on validation, never on test: the team, the best specialist, thresholds of labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case, Dataset
from gsco.collaboration.team import Team, choose_team, mean_of
from gsco.disk import dump_json, storage_errors, write_atomic
from gsco.evaluation import metrics as m
from gsco.evaluation.comparison.answers import labelled
from gsco.evaluation.copies import validation_copies
from gsco.evaluation.data import fingerprint
from gsco.evaluation.metrics import Floats
from gsco.evaluation.progress import Reporter
from gsco.specialists.calibration import fit_thresholds
from gsco.specialists.conformal import ConformalSets


@dataclass(frozen=True, slots=True)
class Chosen:
    """What validation says; None where there are no validation cases.

    Attributes:
        team: who speaks together.
        best: the specialist with the best macro-F1 (ties: AUC, then the order given); of several labels a
            case with the best mean average precision, since thresholds were fitted on the same cases.
        thresholds: of ``team`` and ``mean of all``, above which each label is said; empty where a case has
            one label.
        sets: how label sets of ``team`` and of each specialist are made; empty where a case may have several
            labels.
    """

    team: Team | None = None
    best: str | None = None
    thresholds: Mapping[str, Floats] = field(default_factory=dict)
    sets: Mapping[str, ConformalSets] = field(default_factory=dict)


def choose(dataset: Dataset, val: Sequence[Case], spoken: Mapping[str, Floats]) -> Chosen:
    """Choose by what the specialists say, each (n, options), of n validation cases."""
    if not val:
        return Chosen()
    truth = dataset.truth(val)
    team = choose_team(spoken, truth, [case.cluster for case in val])
    if not dataset.task.multi_label:
        answers = {**spoken, "team": team.probabilities(spoken)}
        return Chosen(
            team,
            max(spoken, key=lambda name: _single_merit(truth, spoken[name])),
            sets={name: ConformalSets.fit(p, truth) for name, p in answers.items()},
        )
    together = {"team": team.probabilities(spoken), "mean of all": mean_of(spoken.values())}
    return Chosen(
        team,
        max(spoken, key=lambda name: _label_merit(truth, spoken[name])),
        {name: fit_thresholds(p, truth) for name, p in together.items()},
    )


def _single_merit(truth: NDArray[np.int64], p: Floats) -> tuple[float, float]:
    return m.macro_f1(truth, p.argmax(axis=1), p.shape[1]), float(np.nan_to_num(m.auc(truth, p)))


def _label_merit(truth: NDArray[np.int64], p: Floats) -> float:
    whole = np.ones((1, len(p)))
    each = [m.average_precision_of(truth[:, k] > 0, p[:, k], whole)[0] for k in range(p.shape[1])]
    return float(np.mean([value for value in each if not np.isnan(value)] or [0.0]))


def validation_cases(dataset: Dataset, cache: Path, progress: Reporter) -> tuple[tuple[Case, ...], list[str]]:
    """Labelled validation cases without copies of others, and the ids of those; found once for a dataset."""
    val, train, cases = labelled(dataset, "val"), labelled(dataset, "train"), labelled(dataset, "test")
    if not val:
        return (), []
    path = cache / "copies" / f"{fingerprint(dataset)[:32]}.json"
    try:
        left_out = list(json.loads(path.read_text(encoding="utf-8"))["left_out"])
    except (OSError, ValueError, KeyError):
        with progress.stage("leakage check of validation") as step:
            found = validation_copies(train, val, cases, progress=step)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, dump_json(found))
        left_out = found["left_out"]
    return tuple(case for case in val if case.id not in left_out), left_out
