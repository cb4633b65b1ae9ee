"""How thresholds of rare labels should be chosen: macro-F1 of each rule, out of fold on training cases.

    python benchmarks/thresholds.py path/to/cxr_nih --label-column findings

Specialists answer training cases out of fold. Some patients, as many as a small validation set has, are drawn
again and again; thresholds are chosen on them and judged on all others. No test case is looked at.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gsco.cases import load_dataset
from gsco.embedded import cache_home
from gsco.specialists import calibration, out_of_fold

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def half(p: Floats, _: Labels) -> Floats:
    """.5 for every label."""
    return np.full(p.shape[1], 0.5)


def own(p: Floats, truth: Labels) -> Floats:
    """The highest F1 of the labels as they are; .5 for a label that nobody has."""
    return np.where(truth.any(axis=0), calibration.fit_thresholds(p, truth, trusted_half=0), 0.5)


def shared(p: Floats, truth: Labels) -> Floats:
    """One threshold for all labels."""
    tried = np.linspace(0.01, 0.99, 99)
    best = max(tried, key=lambda at: macro_f1(p, truth, np.full(p.shape[1], at)))
    return np.full(p.shape[1], best)


def probabilities_alone(p: Floats, truth: Labels) -> Floats:
    """The highest expected F1 by the probabilities, whatever the labels are."""
    return calibration.fit_thresholds(p, truth, trusted_half=np.inf)


def macro_f1(p: Floats, truth: Labels, thresholds: Floats) -> float:
    """Over labels that some cases have and others do not."""
    said, there = p > thresholds, truth.astype(bool)
    counts = there.any(axis=0) & ~there.all(axis=0)
    f1 = 2 * (said & there).sum(axis=0) / np.maximum(said.sum(axis=0) + there.sum(axis=0), 1)
    return float(f1[counts].mean())


RULES: dict[str, Callable[[Floats, Labels], Floats]] = {
    ".5": half,
    "own F1": own,
    "one for all": shared,
    "probabilities alone": probabilities_alone,
    "as shipped": calibration.fit_thresholds,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--label-column")
    parser.add_argument("--recipes", nargs="+", default=["linear_probe", "knn", "texture_probe"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[80, 160, 280])
    parser.add_argument("--draws", type=int, default=20)
    given = parser.parse_args()
    dataset = load_dataset(given.data, label_column=given.label_column)
    cases = dataset.split("train")
    truth, clusters = dataset.truth(cases), np.asarray([case.cluster for case in cases])
    said = {recipe: out_of_fold(recipe, dataset, cache=cache_home(None)) for recipe in given.recipes}
    print(f"{'cases':>5}  {'rule':20}", *(f"{recipe:>14}" for recipe in said), f"{'mean':>8}")
    for size in given.sizes:
        drawn = list(_draws(clusters, size, given.draws))
        for name, rule in RULES.items():
            means = [
                np.mean([macro_f1(p[~on], truth[~on], rule(p[on], truth[on])) for on in drawn])
                for p in said.values()
            ]
            print(f"{size:5}  {name:20}", *(f"{mean:14.3f}" for mean in means), f"{np.mean(means):8.3f}")


def _draws(clusters: NDArray[np.str_], size: int, times: int) -> list[NDArray[np.bool_]]:
    """Whole patients, until there are `size` cases."""
    rng, out = np.random.default_rng(0), []
    names, counts = np.unique(clusters, return_counts=True)
    for _ in range(times):
        order = rng.permutation(len(names))
        enough = np.searchsorted(counts[order].cumsum(), size) + 1
        out.append(np.isin(clusters, names[order[:enough]]))
    return out


if __name__ == "__main__":
    main()
