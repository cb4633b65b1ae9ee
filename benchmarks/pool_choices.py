"""Which voices `gsco_calibrated` should hear: cross-validation within the validation cases of finished runs.

    python benchmarks/pool_choices.py RUN...

Five folds by patient, eight deals; a pool is fitted on four folds and judged on the fifth. Prints the mean
over runs of log-loss and macro-F1 for each choice of voices and each strength of the pull towards equal
weights, beside the mean probability. No test case is looked at.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from gsco.collaboration.pool import EVENNESS, GENERALIST, NEIGHBOURS, Floats, Pool
from gsco.evaluation.calibrating import read_calibrations
from gsco.evaluation.pooling import voices_in
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
    return Answered(said, truth, [str(line["cluster"]) for line in lines])


def judged(cases: Answered, voices: Sequence[str], pull: float) -> tuple[float, float]:
    """Log-loss (nats) and macro-F1 of held-out cases, mean over the deals."""
    said, found = {name: cases.said[name] for name in voices}, []
    patients = sorted(set(cases.patients))
    for deal in range(DEALS):
        order = np.random.default_rng(deal).permutation(len(patients))
        fold_of = {patients[p]: number % FOLDS for number, p in enumerate(order)}
        folds = np.asarray([fold_of[patient] for patient in cases.patients])
        p = np.zeros_like(cases.said["mean"])
        for number in range(FOLDS):
            held = folds == number
            pool = Pool.fit({k: v[~held] for k, v in said.items()}, cases.truth[~held], evenness=pull)
            p[held] = pool.apply({k: v[held] for k, v in said.items()})
        found.append(scores(p, cases.truth))
    loss, f1 = np.mean(found, axis=0)
    return float(loss), float(f1)


def scores(p: Floats, truth: NDArray[np.int64]) -> tuple[float, float]:
    """Log-loss in nats, and macro-F1."""
    loss = -np.log(np.maximum(p[np.arange(len(truth)), truth], 1e-12)).mean()
    return float(loss), float(f1_score(truth, p.argmax(axis=1), average="macro"))


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
        **{arm: (lambda others, arm=arm: [*others, arm]) for arm in arms},
        "all generalist arms": lambda others: [*others, *arms],
        f"{arms[0]}, no similar cases": lambda others: [*(o for o in others if o != NEIGHBOURS), arms[0]],
        f"{arms[0]}, and the mean": lambda others: [*others, arms[0], "mean"],
    }
    loss, f1 = np.mean([scores(run.said["mean"], run.truth) for run in runs], axis=0)
    rows = [["mean probability", "", f"{loss:.4f}", f"{f1:.4f}"]]
    for what, choose in choices.items():
        for pull in PULLS:
            each = [
                judged(run, choose([n for n in run.said if n != "mean" and n not in arms]), pull)
                for run in runs
            ]
            loss, f1 = np.mean(each, axis=0)
            rows.append([what, f"{pull:g}", f"{loss:.4f}", f"{f1:.4f}"])
    print(table(["voices", "pull", "log-loss", "macro-F1"], rows))


if __name__ == "__main__":
    main()
