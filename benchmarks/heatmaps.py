"""Do heat maps lie on what a specialist should see, do they change with its weights, and what do they cost?

Specialists are trained on phantoms, whose records say where a nodule or consolidation lies.

    python benchmarks/heatmaps.py                              # a few minutes
    python benchmarks/heatmaps.py --specialist linear_probe    # one of them

"on it" is the share of a map's mass that falls on the finding, "area" the finding's share of the image, which
is what a map without any knowledge would have; "hit" says how often the strongest place lies on it (the
pointing game of Zhang et al., 2018). "rank" is the mean rank correlation with the maps after all weights were
randomised (Adebayo et al., 2018): near 0 is good, near 1 means that the map shows the image and not what was
learned. Only test images with a nodule or consolidation count, explained for that option; a margin of a fifth
of the finding's radius is allowed. "cost" is one map against one prediction, in CPU time.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gsco.cases import Case, load_dataset
from gsco.cases.phantoms import generate_phantoms
from gsco.specialists import TrainedSpecialist, train_specialist
from gsco.specialists.heatmaps import explainer
from gsco.specialists.randomisation import randomisation_test

PLACED = ("nodule", "consolidation")
TEAM = ("linear_probe", "knn", "finetuned", "small_cnn")


def places(folder: Path) -> dict[str, tuple[float, float, float]]:
    """Centre and diameter of each placed finding, as fractions of the image's side, by case id."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] in PLACED]
    return {
        r["image"]: (float(r["finding_x"]), float(r["finding_y"]), float(r["finding_size"])) for r in rows
    }


def judge(specialist: TrainedSpecialist, cases: Sequence[Case], folder: Path) -> dict[str, float]:
    where, makes = places(folder), explainer(specialist)
    shares, areas, hits = [], [], []
    for case in cases:
        values = makes.explain(case.image, case.label).values
        height, width = values.shape
        x, y, size = where[case.id]
        rows, columns = (np.mgrid[:height, :width] + 0.5) / np.array([height, width])[:, None, None]
        inside = np.hypot(columns - x, rows - y) < 0.6 * size
        shares.append(float(values[inside].sum() / max(values.sum(), 1e-9)))
        areas.append(float(inside.mean()))
        hits.append(float(values.any() and inside.ravel()[values.argmax()]))
    some = [case.image for case in cases[:8]]
    started = time.process_time()
    for image in some:
        makes.explain(image)
    mapped = time.process_time() - started
    specialist.cache = None  # type: ignore[attr-defined]  # or a head would read its features
    started = time.process_time()
    for image in some:
        specialist.predict([image])
    predicted = time.process_time() - started
    (after,) = randomisation_test(specialist, some, cascade=False)
    return {
        "on it": float(np.mean(shares)),
        "area": float(np.mean(areas)),
        "hit": float(np.mean(hits)),
        "rank": after.correlation,
        "cost": mapped / predicted,
        "ms": 1000 * mapped / len(some),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--specialist", action="append", help=f"default: {', '.join(TEAM)}")
    parser.add_argument("--n", type=int, default=400, help="phantoms")
    parser.add_argument("--size", type=int, default=224, help="side of the phantoms in pixels")
    parser.add_argument("--quick", action="store_true", help="fewer training epochs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = generate_phantoms(Path(temporary) / "phantoms", n=given.n, seed=0, size=given.size)
        dataset = load_dataset(folder)
        cases = [case for case in dataset.split("test") if case.label in PLACED]
        print(f"{len(cases)} test phantoms with a nodule or consolidation, of {given.n} in all\n")
        head = ("val bal. acc.", "on it", "area", "ratio", "hit", "rank", "cost", "ms/map")
        print(f"{'specialist':14} " + " ".join(f"{name:>12}" for name in head))
        for recipe in given.specialist or TEAM:
            made = train_specialist(recipe, dataset, cache=Path(temporary) / "cache", quick=given.quick)
            found = judge(made, cases, folder)
            cells = (
                made.val_metrics["balanced_accuracy"],
                found["on it"],
                found["area"],
                found["on it"] / found["area"],
                found["hit"],
                found["rank"],
                found["cost"],
                found["ms"],
            )
            print(f"{recipe:14} " + " ".join(f"{value:12.3f}" for value in cells), flush=True)


if __name__ == "__main__":
    main()
