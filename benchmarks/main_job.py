"""The table of docs/results.md, from finished runs.

    gsco run --data DATA/busi --out runs/busi      # one run a set
    python benchmarks/main_job.py runs/busi runs/ham10000 ...

Prints Markdown: the arms of every set, what the generalist adds to the same evidence (paired, with interval
and p-value, Holm-corrected over the sets), and how often it repaired or broke a majority vote. Nothing is
computed that is not in the runs' ``metrics.json``, but for the correction and the means over sets.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from gsco.evaluation.report.wording import interval, number, p_text, signed
from gsco.evaluation.statistics import holm

ARMS = (
    "best_specialist",
    "majority_vote",
    "mean_probability",
    "neighbour_vote",
    "generalist",
    "rad",
    "moed",
    "gsco",
)
WITH_INTERVAL = ("best_specialist", "mean_probability", "gsco")


def with_interval(figure: dict[str, float] | None) -> str:
    """A value with its interval, as people read it."""
    if figure is None or figure["value"] is None:
        return "–"
    return f"{number(figure['value'])} {interval(figure, 2)}".strip()


def cell(arm: str, figure: dict[str, float] | None) -> str:
    """A figure; with its interval for the arms that the targets speak of."""
    if arm in WITH_INTERVAL or figure is None or figure["value"] is None:
        return with_interval(figure)
    return number(figure["value"])


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def arms_table(runs: list[dict[str, Any]], metric: str) -> str:
    """One row per set, one column per arm; the last row is the mean over sets."""
    rows = [
        [run["dataset"], str(run["n"]), *(cell(arm, run["arms"].get(arm, {}).get(metric)) for arm in ARMS)]
        for run in runs
    ]
    means = []
    for arm in ARMS:
        values = [run["arms"][arm][metric]["value"] for run in runs if run["arms"].get(arm, {}).get(metric)]
        means.append(number(sum(values) / len(values)) if values else "–")
    head = ["set", "n", *(arm.replace("_", " ") for arm in ARMS)]
    return table(head, [*rows, ["mean", "", *means]])


def comparison_table(runs: list[dict[str, Any]], other: str, metric: str) -> str:
    """gsco against one control on every set, Holm-corrected over the sets."""
    found = [
        (run["dataset"], c)
        for run in runs
        for c in run["comparisons"]
        if (c["a"], c["b"], c["metric"]) == ("gsco", other, metric)
    ]
    corrected = holm([c["p_value"] for _, c in found])
    rows = [
        [
            name,
            f"{signed(c['difference'])} [{signed(c['low'])}, {signed(c['high'])}]",
            p_text(c["p_value"]).removeprefix("p ").removeprefix("= "),
            p_text(p).removeprefix("p ").removeprefix("= "),
        ]
        for (name, c), p in zip(found, corrected, strict=True)
    ]
    mean = sum(c["difference"] for _, c in found) / max(len(found), 1)
    head = ["set", f"gsco − {other}, {metric}", "p", "p (Holm over sets)"]
    return table(head, [*rows, ["mean", signed(mean), "", ""]])


def constant_table(runs: list[dict[str, Any]]) -> str:
    """The generalist alone against the best constant answer."""
    rows = []
    for run in runs:
        alone = run["arms"]["generalist"]["macro_f1"]
        constant = run["constant"]["macro_f1"]
        ahead = signed(alone["value"] - constant)
        rows.append([run["dataset"], with_interval(alone), number(constant), ahead])
    return table(["set", "generalist alone, macro-F1", "best constant answer", "difference"], rows)


def repair_table(runs: list[dict[str, Any]]) -> str:
    """How often gsco repaired a wrong majority, and broke a right one."""
    rows = []
    for run in runs:
        r = run["repairs"]["gsco"]
        rows.append(
            [
                run["dataset"],
                f"{r['repaired']} of {r['wrong_majority']}",
                f"{r['broken']} of {r['right_majority']}",
            ]
        )
    return table(["set", "wrong majority repaired", "right majority broken"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="finished run folders")
    args = parser.parse_args()
    runs = [json.loads((folder / "metrics.json").read_text()) for folder in args.runs]
    for metric in ("macro_f1", "accuracy", "auc", "ece"):
        print(f"\n### {metric}\n\n{arms_table(runs, metric)}")
    print(f"\n### The generalist alone\n\n{constant_table(runs)}")
    for other in ("best_specialist", "mean_probability", "majority_vote"):
        print(f"\n### gsco against {other}\n\n{comparison_table(runs, other, 'macro_f1')}")
    print(f"\n### Repaired and broken\n\n{repair_table(runs)}")
    unparsed = {run["dataset"]: sum(arm["unparsed"] for arm in run["arms"].values()) for run in runs}
    print(f"\nUnparsed answers, all arms: {unparsed}")


if __name__ == "__main__":
    main()
