"""The team of each set, chosen on validation, judged once on test, from finished runs.

    gsco run --data DATA/busi --out runs/busi      # one run a set
    python benchmarks/teams.py runs/busi runs/ham10000 ...
    python benchmarks/teams.py --nested runs/busi runs/ham10000 ...

Prints Markdown: macro-F1 and calibration error of the team beside the best specialist (chosen on
validation) and the mean of all. The choice sees the predictions on validation cases only. With --nested,
how good the rule of choice is, without a look at any test case: the team is chosen on three quarters of the
validation cases and judged on the rest, in turn, for several margins.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from gsco.cases import Dataset, load_dataset
from gsco.collaboration import choose_team
from gsco.evaluation import metrics as m
from gsco.evaluation.metrics import Floats
from gsco.evaluation.report.wording import number
from gsco.evaluation.runfolder import RunFolder
from gsco.evaluation.selective import set_figures
from gsco.evaluation.summary import ArmAnswers, figures, rounded
from gsco.specialists import grouped_folds
from gsco.specialists.conformal import ConformalSets
from main_job import table, with_interval

Ints = NDArray[np.int64]
MARGINS = (0.0, 1.0, 2.0, np.inf)


def predictions(run: Path, split: str) -> tuple[list[str], dict[str, Floats]]:
    """Case ids of a split, and what each specialist said about them."""
    spoken, ids = {}, []
    for row in RunFolder(run).read_json("specialists.json")["specialists"]:
        with np.load(run / "predictions" / f"{row['name']}.{split}.npz", allow_pickle=False) as stored:
            spoken[row["name"]] = stored["probabilities"]
            ids = [str(case_id) for case_id in stored["ids"]]
    return ids, spoken


def answers(name: str, dataset: Dataset, ids: list[str], probabilities: Floats) -> ArmAnswers:
    """Answers to cases as the figures want them."""
    known = {case.id: case for case in dataset}
    cases = [known[case_id] for case_id in ids]
    truth = np.asarray(dataset.targets(cases), dtype=np.int64)
    clusters = tuple(case.cluster for case in cases)
    said = probabilities.argmax(axis=1)
    return ArmAnswers(
        name, "specialist", tuple(ids), clusters, truth, said, probabilities, probabilities.shape[1]
    )


def coverage(val: Floats, val_truth: Ints, test: Floats, truth: Ints) -> str:
    """How often the team's label sets hold the truth on test, of how often that is stated."""
    made = ConformalSets.fit(val, val_truth)
    held = set_figures(made.sets(test), truth)["coverage"]
    return f"{number(held)} of {number(made.coverage)}"


def nested(dataset: Dataset, ids: list[str], spoken: dict[str, Floats], repeats: int = 3) -> list[str]:
    """Macro-F1 and log loss on held-out validation cases of the teams that each margin chooses."""
    everything = answers("val", dataset, ids, next(iter(spoken.values())))
    truth, clusters = everything.reference, everything.clusters
    n_options = len(dataset.task.options)
    found: dict[float, list[tuple[float, float]]] = {margin: [] for margin in MARGINS}
    for repeat in range(repeats):
        folds = grouped_folds(truth, clusters, folds=4, seed=repeat)
        held = {margin: np.zeros((len(truth), n_options)) for margin in MARGINS}
        for fold in range(4):
            known, rest = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            seen = {name: p[known] for name, p in spoken.items()}
            new = {name: p[rest] for name, p in spoken.items()}
            for margin in MARGINS:
                team = choose_team(seen, truth[known], [clusters[i] for i in known], margin=margin)
                held[margin][rest] = team.probabilities(new)
        for margin, p in held.items():
            found[margin].append((m.macro_f1(truth, p.argmax(axis=1), n_options), m.nll(truth, p)))
    means = [np.mean(pairs, axis=0) for pairs in found.values()]
    return [f"{number(float(f1))} / {loss:.3f}" for f1, loss in means]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="finished run folders")
    parser.add_argument("--nested", action="store_true", help="judge the rule of choice on validation")
    args = parser.parse_args()
    rows, sums = [], []
    if args.nested:
        for run in args.runs:
            dataset = load_dataset(yaml.safe_load((run / "config.yaml").read_text())["data"])
            rows.append([dataset.name, *nested(dataset, *predictions(run, "val"))])
        heads = [{0.0: "lowest loss", np.inf: "all"}.get(margin, f"{margin:g} SE") for margin in MARGINS]
        print(table(["held-out macro-F1 / log loss", *heads], rows))
        return
    for run in args.runs:
        dataset = load_dataset(yaml.safe_load((run / "config.yaml").read_text())["data"])
        val_ids, val = predictions(run, "val")
        test_ids, test = predictions(run, "test")
        val_answers = answers("val", dataset, val_ids, next(iter(val.values())))
        team = choose_team(val, val_answers.reference, val_answers.clusters)
        best = RunFolder(run).read_json("specialists.json")["best"]
        everyone = np.mean(list(test.values()), axis=0)
        found = [
            rounded(figures(answers(name, dataset, test_ids, p), dataset.task.keys, 2000, 0))
            for name, p in (("best", test[best]), ("all", everyone), ("team", team.probabilities(test)))
        ]
        members = "all" if len(team.members) == len(val) else ", ".join(team.members)
        truth = answers("test", dataset, test_ids, everyone).reference
        rows.append(
            [dataset.name, f"{team.n} / {len(test_ids)}"]
            + [with_interval(arm["macro_f1"]) for arm in found]
            + [number(arm["ece"]["value"]) for arm in found]
            + [coverage(team.probabilities(val), val_answers.reference, team.probabilities(test), truth)]
            + [members]
        )
        sums.append([arm["macro_f1"]["value"] for arm in found] + [arm["ece"]["value"] for arm in found])
    rows.append(["mean", "", *(number(float(value)) for value in np.mean(sums, axis=0)), "", ""])
    head = ["set", "n val / test", "best specialist", "mean of all", "team"]
    print(table([*head, "ECE best", "ECE all", "ECE team", "sets: held of stated", "members"], rows))


if __name__ == "__main__":
    main()
