"""What `gsco_calibrated` is worth: finished runs in, one table out.

    python benchmarks/calibrated.py [--bound] [--heard ARM] RUN...

A run that was made before the arm existed is answered here in memory: the pool is fitted on its
``calibration.jsonl`` and applied to its ``cases.jsonl``, as `gsco run` does it; so is one that heard another
arm of the generalist than ``--heard``. Nothing is written to a run.

With ``--bound`` also: the macro-F1 of weights that are fitted to the test labels themselves. It is
no result, it says how much a better choice of weights could gain at most.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from gsco.collaboration import CALIBRATED
from gsco.collaboration.pool import Pool
from gsco.evaluation.arm_words import barest_arm
from gsco.evaluation.calibrating import read_calibrations
from gsco.evaluation.logline import pooled_line
from gsco.evaluation.metrics import ECE_BINS
from gsco.evaluation.pooling import fit_arbiter, read_arbiter, voices_in
from gsco.evaluation.runfolder import RunFolder
from gsco.evaluation.summary import summarise

BESIDE = ("mean_probability", "gsco", "best_specialist")


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def figures_of(run: Path, heard: str | None) -> tuple[dict[str, Any], dict[str, float]]:
    """``metrics.json`` of a run with the arm in it, and the weights of its voices."""
    folder, record = RunFolder(run), json.loads((run / "dataset.json").read_text())
    keys = tuple(option["key"] for option in record["task"]["options"])
    lines = [line for line in read_lines(folder.log) if line["arm"] != CALIBRATED]
    fits, known = read_calibrations(folder), read_arbiter(folder)
    if known and heard in (None, known[1]):
        arbiter, heard = known
    else:
        heard = heard or barest_arm(fits) or "generalist"
        asked = [line for line in read_lines(folder.calibration_log) if line["arm"] == heard]
        arbiter = fit_arbiter(asked, keys, fits[heard])
    lines += [
        pooled_line(line, arbiter.answer(line["case_id"], keys, voices_in(line, keys)))
        for line in lines
        if line["arm"] == heard
    ]
    wanted = {CALIBRATED, *BESIDE}
    metrics = summarise(
        [line for line in lines if line["arm"] in wanted],
        dataset=record["name"],
        task=record["task"]["kind"],
        options=record["task"]["options"],
        comparisons=((CALIBRATED, "mean_probability"), (CALIBRATED, "gsco")),
    )
    metrics["fitted_on"], metrics["stated"] = arbiter.sets.n, arbiter.sets.coverage
    metrics["by_chance"] = ece_by_chance([line for line in lines if line["arm"] == CALIBRATED])
    return metrics, dict(zip(arbiter.pool.voices, arbiter.pool.weights, strict=True))


def bound_of(run: Path, heard: str | None) -> float:
    """Macro-F1 on test of a pool fitted by likelihood on test, without a pull towards equal weights."""
    record = json.loads((run / "dataset.json").read_text())
    keys = tuple(option["key"] for option in record["task"]["options"])
    heard = heard or barest_arm(read_calibrations(RunFolder(run))) or "generalist"
    lines = [line for line in read_lines(RunFolder(run).log) if line["arm"] == heard]
    voices = [voices_in(line, keys) for line in lines]
    said = {name: np.stack([voice[name] for voice in voices]) for name in voices[0]}
    truth = np.asarray([keys.index(line["reference"]) for line in lines])
    found = Pool.fit(said, truth, evenness=0.0).apply(said).argmax(axis=1)
    return float(f1_score(truth, found, average="macro"))


def ece_by_chance(lines: list[dict[str, Any]], draws: int = 500) -> tuple[float, float]:
    """Mean and 95 % quantile of the ECE of these very probabilities, were they all exactly true.

    An ECE is never 0 on few cases: in each bin the share of right answers scatters around the confidence.
    """
    confidence = np.array([max(line["probabilities"].values()) for line in lines])
    rng = np.random.default_rng(0)
    bins = np.clip(np.ceil(confidence * ECE_BINS - 1e-9).astype(int) - 1, 0, ECE_BINS - 1)
    found = []
    for _ in range(draws):
        gap = np.bincount(bins, confidence - (rng.random(len(confidence)) < confidence))
        found.append(np.abs(gap).sum() / len(confidence))
    return float(np.mean(found)), float(np.quantile(found, 0.95))


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def spread(coverage: float, n: int, fitted: int) -> float:
    """Half-width of the 95 % interval of a coverage that is exactly as stated, from both samples."""
    return 1.96 * math.sqrt(coverage * (1 - coverage) * (1 / n + 1 / (fitted + 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--bound", action="store_true", help="also what no choice of weights exceeds by much")
    parser.add_argument("--heard", help="the generalist's arm that is heard; the run's own by default")
    options = parser.parse_args()
    found = {run.name: figures_of(run, options.heard) for run in options.runs}
    print("macro-F1 with 95 % interval over patients; n: answered / fitted on; ECE, and what it would be by")
    print("chance if every probability were exact (mean, 95 % quantile)")
    print(f"| set | n | {' | '.join((CALIBRATED, *BESIDE))} | ECE | by chance | of mean_probability |")
    print("|---|---|" + "---|" * (len(BESIDE) + 4))
    total = dict.fromkeys((CALIBRATED, *BESIDE), 0.0)
    for name, (metrics, _) in found.items():
        cells = []
        for arm in total:
            f1 = metrics["arms"][arm]["macro_f1"]
            total[arm] += f1["value"] / len(found)
            cells.append(f"{number(f1['value'])} ({number(f1['low'])}–{number(f1['high'])})")
        ece = [number(metrics["arms"][arm]["ece"]["value"]) for arm in (CALIBRATED, "mean_probability")]
        ece.insert(1, "{:.3f}, at most {:.3f}".format(*metrics["by_chance"]))
        print(f"| {name} | {metrics['n']} / {metrics['fitted_on']} | {' | '.join([*cells, *ece])} |")
    print(f"| mean | | {' | '.join(number(value) for value in total.values())} | | | |")
    if options.bound:
        bounds = {run.name: bound_of(run, options.heard) for run in options.runs}
        told = ", ".join(f"{name} {number(value)}" for name, value in bounds.items())
        print(
            f"\nWeights fitted to the test labels: {told}; mean {number(sum(bounds.values()) / len(bounds))}"
        )
    print("\nDifference in macro-F1 with 95 % interval; sets of stated coverage; the surest 80 %")
    print(
        "| set | − mean_probability | − gsco | stated coverage | coverage (± 95 % by chance) | set size "
        "| single | errors removed | by mean_probability | abstained | errors removed |"
    )
    print("|---" * 11 + "|")
    for name, (metrics, _) in found.items():
        arm = metrics["arms"][CALIBRATED]
        rows = [row for row in metrics["comparisons"] if row["metric"] == "macro_f1"]
        cells = [f"{row['difference']:+.3f} ({row['low']:+.3f} … {row['high']:+.3f})" for row in rows]
        by_chance = spread(metrics["stated"], metrics["n"], metrics["fitted_on"])
        cells += [
            number(metrics["stated"]),
            f"{number(arm['sets']['coverage'])} ± {number(by_chance)}",
            number(arm["sets"]["mean_size"], 2),
            number(arm["sets"]["single"], 2),
            number(arm["selective"]["errors_removed"], 2),
            number(metrics["arms"]["mean_probability"]["selective"]["errors_removed"], 2),
            number(arm["abstained"]["share"], 2),
            number(arm["abstained"]["errors_removed"], 2),
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\nWeights of the voices")
    for name, (_, weights) in found.items():
        told = ", ".join(f"{voice.removeprefix('specialist:')} {w:.2f}" for voice, w in weights.items())
        print(f"- {name} (sum {sum(weights.values()):.2f}): {told}")


if __name__ == "__main__":
    main()
