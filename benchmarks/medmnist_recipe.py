"""MedMNIST's own recipe, ResNet-18 from random weights at 28 pixels, beside the published figures.

    python benchmarks/medmnist_recipe.py --root path/to/medmnist --out specialists --sets breastmnist

Killed and started again it goes on: finished specialists are read from --out, a training under way from the
cache. Accuracy and AUC are computed with the medmnist package. Published: Yang et al., Sci Data 10:41, 2023,
table 3. On one CPU core a seed takes BreastMNIST about half an hour and PneumoniaMNIST three to four; with
`--precision bf16` half of that, where the processor has AVX512-BF16.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch

from gsco import embedded
from gsco.cases import load_dataset
from gsco.specialists import load_specialist, train_specialist
from gsco.specialists.machine import Machine
from gsco.specialists.procedures import SEEDS

PUBLISHED = {"breastmnist": (0.863, 0.901), "pneumoniamnist": (0.854, 0.944)}
"""Accuracy and AUC of ResNet-18 at 28 pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="folder of the .npz files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the specialists")
    parser.add_argument("--sets", nargs="+", default=list(PUBLISHED))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    from medmnist.evaluator import getACC, getAUC

    for name in options.sets:
        dataset = load_dataset(options.root / f"{name}.npz")
        test = dataset.split("test")
        truth = np.asarray(dataset.targets(test))[:, None]
        task = "binary-class" if len(dataset.task.options) == 2 else "multi-class"
        rows = []
        for seed in options.seeds:
            folder = options.out / f"{name}-{seed}"
            if not (folder / "config.json").is_file():
                train_specialist(
                    "medmnist",
                    dataset,
                    cache=embedded.cache_home(),
                    out=folder,
                    seed=seed,
                    machine=Machine(precision=options.precision),
                    progress=lambda what, done, total: print(f"  {what} {done}/{total}", flush=True),
                )
            found = load_specialist(folder).predict([case.image for case in test])
            score = found[:, 1] if task == "binary-class" else found
            rows.append((getACC(truth, score, task), getAUC(truth, score, task)))
            print(f"{name}, seed {seed}: accuracy {rows[-1][0]:.3f}, AUC {rows[-1][1]:.3f}", flush=True)
        accuracy, area = (statistics.fmean(column) for column in zip(*rows, strict=True))
        print(f"{name}, mean of {len(rows)}: accuracy {accuracy:.3f}, AUC {area:.3f}")
        if name in PUBLISHED:
            print(f"{name}, published: accuracy {PUBLISHED[name][0]:.3f}, AUC {PUBLISHED[name][1]:.3f}")


if __name__ == "__main__":
    main()
