"""Which voices `gsco_calibrated` should hear: cross-validation within the validation cases of finished runs.

    python benchmarks/pool_choices.py RUN...

Five folds by patient, eight deals; a pool is fitted on four folds and judged on the fifth. Prints the mean
over runs of log-loss and macro-F1 for each choice of voices and each strength of the pull towards equal
weights, beside the mean probability. For runs with --folds also: whether the weights should be fitted on the
out-of-fold opinions about training cases, too, all of them or as many as there are validation cases. No test
case is looked at.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from gsco.cases import load_dataset
from gsco.collaboration import Spoken
from gsco.collaboration.pool import EVENNESS, GENERALIST, NEIGHBOURS, Floats, Pool
from gsco.evaluation.calibrating import read_calibrations
from gsco.evaluation.config import RunConfig
from gsco.evaluation.pooling import voices_in
from gsco.evaluation.predictions import read_predictions
from gsco.evaluation.runfolder import RunFolder
from main_job import table

FOLDS, DEALS = 5, 8
PULLS = (0.3, EVENNESS, 3.0)


@dataclass(frozen=True)
class Answered:
    """Validation cases of a run: what each voice says, the truth, and who is one patient."""

    said: dict[str, Floats]
    truth: NDArray[np.int64]
    patients: list[str]
    beside: Spoken | None  # training cases, out of fold


def answered(run: Path) -> Answered:
    """Voices by name; the generalist's by arm (``generalist:gsco``), and the specialists' mean."""
    folder, record = RunFolder(run), json.loads((run / "dataset.json").read_text())
    keys = tuple(option["key"] for option in record["task"]["options"])
    fits = read_calibrations(folder)
    by_arm: dict[str, list[dict[str, object]]] = {}
    for text in folder.calibration_log.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        by_arm.setdefault(line["arm"], []).append(line)
    said: dict[str, Floats] = {}
    for arm, lines in by_arm.items():
        voices = [voices_in(line, keys, fits[arm]) for line in lines]
        for name in voices[0]:
            said[f"{name}:{arm}" if name == GENERALIST else name] = np.stack([v[name] for v in voices])
    said["mean"] = np.mean([p for name, p in said.items() if name.startswith("specialist:")], axis=0)
    lines = next(iter(by_arm.values()))
    truth = np.asarray([keys.index(str(line["reference"])) for line in lines])
    return Answered(said, truth, [str(line["cluster"]) for line in lines], beside(run, keys))


def beside(run: Path, keys: tuple[str, ...]) -> Spoken | None:
    """What the voices of a run with --folds said about training cases that they never saw."""
    said = {}
    for path in sorted((run / "predictions").glob("*.out_of_fold.npz")):
        name = path.name.removesuffix(".out_of_fold.npz")
        ids, said[name if name == NEIGHBOURS else f"specialist:{name}"] = read_predictions(path)
    if not said:
        return None
    config = RunConfig.from_yaml(run / "config.yaml")
    dataset = load_dataset(config.data, modality=config.modality, seed=config.seed)
    label = {case.id: str(case.label) for case in dataset}
    return Spoken(said, np.asarray([keys.index(label[case_id]) for case_id in ids]))


def some_of(spoken: Spoken, n: int, deal: int) -> Spoken:
    """At most n of the cases, drawn."""
    rows = np.random.default_rng(deal).permutation(len(spoken.targets))[:n]
    return Spoken({name: p[rows] for name, p in spoken.said.items()}, spoken.targets[rows])


def judged(cases: Answered, voices: Sequence[str], pull: float, beside: float = 0.0) -> tuple[float, float]:
    """Log-loss (nats) and macro-F1 of held-out cases, mean over the deals.

    Args:
        cases: validation cases.
        voices: those heard.
        pull: towards equal weights.
        beside: at most so many training cases for each validation case enter the fit.
    """
    said, found = {name: cases.said[name] for name in voices}, []
    patients = sorted(set(cases.patients))
    for deal in range(DEALS):
        order = np.random.default_rng(deal).permutation(len(patients))
        fold_of = {patients[p]: number % FOLDS for number, p in enumerate(order)}
        folds = np.asarray([fold_of[patient] for patient in cases.patients])
        p = np.zeros_like(cases.said["mean"])
        for number in range(FOLDS):
            held = folds == number
            known, truth = {k: v[~held] for k, v in said.items()}, cases.truth[~held]
            if beside and cases.beside is not None:
                most = min(len(cases.beside.targets), beside * len(truth))
                more = some_of(cases.beside, int(most), deal)
                even = np.full((len(more.targets), p.shape[1]), 1 / p.shape[1])
                known = {k: np.concatenate([v, more.said.get(k, even)]) for k, v in known.items()}
                truth = np.concatenate([truth, more.targets])
            pool = Pool.fit(known, truth, evenness=pull)
            p[held] = pool.apply({k: v[held] for k, v in said.items()})
        found.append(scores(p, cases.truth))
    loss, f1 = np.mean(found, axis=0)
    return float(loss), float(f1)


def scores(p: Floats, truth: NDArray[np.int64]) -> tuple[float, float]:
    """Log-loss in nats, and macro-F1."""
    loss = -np.log(np.maximum(p[np.arange(len(truth)), truth], 1e-12)).mean()
    return float(loss), float(f1_score(truth, p.argmax(axis=1), average="macro"))


def _beside(arm: str, others: list[str]) -> list[str]:
    return [*others, arm]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    runs = [answered(run) for run in parser.parse_args().runs]
    arms = [name for name in runs[0].said if name.startswith(GENERALIST)]
    choices: dict[str, Callable[[list[str]], list[str]]] = {
        "no generalist": lambda others: others,
        **{arm: partial(_beside, arm) for arm in arms},
        "all generalist arms": lambda others: [*others, *arms],
        f"{arms[0]}, no similar cases": lambda others: [*(o for o in others if o != NEIGHBOURS), arms[0]],
        f"{arms[0]}, and the mean": lambda others: [*others, arms[0], "mean"],
    }
    tried = [(what, choose, pull, 0.0) for what, choose in choices.items() for pull in PULLS]
    if all(run.beside for run in runs):
        tried += [
            (f"{arms[0]}, training cases: {what}", choices[arms[0]], EVENNESS, most)
            for what, most in (("as many", 1.0), ("three times as many", 3.0), ("all", math.inf))
        ]
    loss, f1 = np.mean([scores(run.said["mean"], run.truth) for run in runs], axis=0)
    rows = [["mean probability", "", f"{loss:.4f}", f"{f1:.4f}"]]
    for what, choose, pull, most in tried:
        others = [[name for name in run.said if name != "mean" and name not in arms] for run in runs]
        each = [judged(run, choose(mine), pull, most) for run, mine in zip(runs, others, strict=True)]
        loss, f1 = np.mean(each, axis=0)
        rows.append([what, f"{pull:g}", f"{loss:.4f}", f"{f1:.4f}"])
    print(table(["voices", "pull", "log-loss", "macro-F1"], rows))


if __name__ == "__main__":
    main()
