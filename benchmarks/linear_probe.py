"""A linear probe of 100 epochs: on features computed once, against the network run in every epoch.

    python benchmarks/linear_probe.py --data path/to/breastmnist.npz

"every epoch" is the way of the MedMNIST+ benchmark's script: the frozen network sees every training and
validation picture in each epoch, and only the last layer learns. (Its batch norm and dropout are those of
inference here, so that both ways see the same features and their figures can be compared.) Pictures are
decoded once and kept in memory in both ways. The network starts from the embedded weights.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gsco.cases import load_dataset, load_image
from gsco.specialists.backbones import Backbone, load_backbone
from gsco.specialists.calibration import judge, log_loss, softmax
from gsco.specialists.epochs_head import fit_head
from gsco.specialists.procedures import medmnist_plus
from gsco.specialists.registry import training_job
from gsco.specialists.schedule import Schedule
from gsco.specialists.trained import TrainingJob

Arrays = list[NDArray[np.uint8]]


def every_epoch(
    backbone: Backbone, train: Arrays, val: Arrays, job: TrainingJob, schedule: Schedule
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The head as `fit_head` trains it, with the network in the loop; weight and bias of the best epoch."""
    epochs, steps = schedule.epochs(len(train)), math.ceil(len(train) / schedule.batch)
    torch.manual_seed(job.seed)
    width = backbone.prelogits(train[:1]).shape[1]
    layer = torch.nn.Linear(width, len(job.options))
    chance = torch.Generator().manual_seed(job.seed)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=schedule.lr, weight_decay=schedule.weight_decay)
    targets, best, kept = torch.from_numpy(job.train_targets), math.inf, layer.state_dict()
    for epoch in range(epochs):
        order = schedule.order(job.train_targets, chance)
        for step in range(steps):
            rows = order[step * schedule.batch : (step + 1) * schedule.batch]
            for group in optimiser.param_groups:
                group["lr"] = schedule.lr * schedule.share(epoch, step, epochs, steps)
            features = torch.from_numpy(backbone.prelogits([train[i] for i in rows.tolist()]))
            loss = torch.nn.functional.cross_entropy(layer(features), targets[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.inference_mode():
            logits = layer(torch.from_numpy(backbone.prelogits(val))).numpy()
        figure = log_loss(softmax(logits), job.val_targets)
        if figure < best:
            best, kept = figure, {key: value.clone() for key, value in layer.state_dict().items()}
    return kept["weight"].numpy(), kept["bias"].numpy()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="dataset folder or .npz")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, in both ways")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dataset = load_dataset(options.data)
    backbone = load_backbone("embedded", size=options.size)
    schedule = replace(medmnist_plus(options.size, None), least=options.epochs, patience=None)
    with tempfile.TemporaryDirectory() as scratch:
        job = training_job(dataset, cache=Path(scratch))
    test = dataset.split("test")
    arrays = [
        [backbone.prepare(load_image(case.image)) for case in cases] for cases in (job.train, job.val, test)
    ]
    backbone.prelogits(arrays[0][:8])  # the first pass is slow in every way

    def once() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        known, held = backbone.prelogits(arrays[0]), backbone.prelogits(arrays[1])
        return fit_head(known, held, job, schedule)[:2]

    seen = backbone.prelogits(arrays[2])
    truth = np.asarray(dataset.targets(test))
    print(f"{dataset.name}, {len(job.train)} training cases, {backbone.name} at {options.size} px,")
    print(f"{options.epochs} epochs, {options.threads} thread(s)\n")
    print(f"{'way':24} {'wall s':>8} {'CPU s':>8} {'test accuracy':>14} {'AUC':>6}")
    spent: list[tuple[float, float]] = []
    for name, way in (
        ("features once", once),
        ("every epoch", lambda: every_epoch(backbone, arrays[0], arrays[1], job, schedule)),
    ):
        wall, cpu = time.perf_counter(), time.process_time()
        weight, bias = way()
        spent.append((time.perf_counter() - wall, time.process_time() - cpu))
        figures = judge(softmax(seen @ weight.T + bias), truth)
        seconds = f"{spent[-1][0]:8.1f} {spent[-1][1]:8.1f}"
        print(f"{name:24} {seconds} {figures['accuracy']:14.4f} {figures['auc']:6.4f}")
    print(f"\nratio: wall {spent[1][0] / spent[0][0]:.0f}x, CPU {spent[1][1] / spent[0][1]:.0f}x")


if __name__ == "__main__":
    main()
