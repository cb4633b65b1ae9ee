"""A linear head trained by epochs of a gradient method on frozen features, as networks' last layers are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gsco.specialists.calibration import as_probabilities, log_loss
from gsco.specialists.heads import FeatureSpecialist, images_of
from gsco.specialists.named_networks import frozen_network
from gsco.specialists.schedule import Schedule
from gsco.specialists.trained import Fields, Tensors, TrainedSpecialist, TrainingJob


class EpochsHead(FeatureSpecialist):
    """One linear layer on what a frozen network's own last layer would see.

    It is the linear probe of the MedMNIST+ benchmark, at the cost of one pass of the network.
    """

    kind: ClassVar[str] = "epochs_head"

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.weight = np.zeros((len(self.options), 0), dtype=np.float32)
        self.bias = np.zeros(len(self.options), dtype=np.float32)

    def fit(self, job: TrainingJob, schedule: Schedule) -> EpochsHead:
        """Train on the job's training cases, stop and calibrate on its validation cases."""
        features = self.embed(images_of([*job.train, *job.val]), job)
        known, held = features[: len(job.train)], features[len(job.train) :]
        self.weight, self.bias, epochs, best = fit_head(known, held, job, schedule, what=self.name)
        self.details.update(
            epochs=epochs, best_epoch=best, schedule=str(schedule), pretrained=self.backbone.pretrained
        )
        self.calibrate(job)
        return self

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Features (N, D) to logits (N, options)."""
        # one row at a time, so that no number depends on which images are asked about together
        return np.stack([self.weight @ row + self.bias for row in features]).astype(np.float64)

    def plain_network(self) -> nn.Module:
        """The network with this head for its last layer, in eval mode, with nothing fused."""
        model, _ = frozen_network(
            self.backbone_name, pretrained=True, scratch_ok=True, side=self.pad or self.size
        )
        layer = nn.Linear(self.weight.shape[1], len(self.options))
        layer.load_state_dict({"weight": torch.from_numpy(self.weight), "bias": torch.from_numpy(self.bias)})
        last = model.get_classifier()
        parent, _, leaf = next(n for n, module in model.named_modules() if module is last).rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer)
        network: nn.Module = model.eval()
        return network

    def _tensors(self) -> dict[str, NDArray[Any]]:
        return {"weight": self.weight, "bias": self.bias}

    @classmethod
    def _restore(
        cls, base: Fields, config: Fields, tensors: Tensors, cache: Path | None
    ) -> TrainedSpecialist:
        made = cls(**cls._arguments(base, config, cache))
        made.weight, made.bias = tensors["weight"], tensors["bias"]
        return made


def fit_head(
    train: NDArray[np.float32],
    val: NDArray[np.float32],
    job: TrainingJob,
    schedule: Schedule,
    *,
    what: str = "head",
) -> tuple[NDArray[np.float32], NDArray[np.float32], int, int]:
    """Train one linear layer by AdamW.

    Args:
        train: features of the job's training cases, (N, D).
        val: features of its validation cases, (M, D); without any, all epochs run and the last is kept.
        job: targets, seed, progress.
        schedule: epochs, batch, learning rate and its course, weight decay, patience.
        what: name for progress lines.

    Returns:
        Weight (options, D), bias (options,), epochs run, and the epoch kept (from 1).
    """
    targets = torch.from_numpy(job.train_targets)
    inputs, held = torch.from_numpy(train), torch.from_numpy(val)
    epochs, steps = schedule.epochs(len(train)), math.ceil(len(train) / schedule.batch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        layer = nn.Linear(train.shape[1], len(job.options))
        chance = torch.Generator().manual_seed(job.seed)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=schedule.lr, weight_decay=schedule.weight_decay)
    best, kept, epoch = (math.inf, 0), layer.state_dict(), 0
    for epoch in range(epochs):
        if epoch % 10 == 0:
            job.say(f"{what}: epoch {epoch + 1}", epoch, epochs)
        order = schedule.order(job.train_targets, chance)
        for step in range(steps):
            rows = order[step * schedule.batch : (step + 1) * schedule.batch]
            for group in optimiser.param_groups:
                group["lr"] = schedule.lr * schedule.share(epoch, step, epochs, steps)
            logits = layer(inputs[rows])
            loss = (
                nn.functional.binary_cross_entropy_with_logits(logits, targets[rows].float())
                if job.multi_label
                else nn.functional.cross_entropy(logits, targets[rows])
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        figure = -math.inf
        if len(held):
            with torch.inference_mode():
                logits = layer(held).numpy()
            figure = log_loss(as_probabilities(logits, multi_label=job.multi_label), job.val_targets)
        if figure < best[0] or not len(held):
            best = (figure, epoch + 1)
            kept = {key: value.clone() for key, value in layer.state_dict().items()}
        elif schedule.patience is not None and epoch + 1 - best[1] >= schedule.patience:
            break
    job.say(f"{what}: trained", epochs, epochs)
    return kept["weight"].numpy(), kept["bias"].numpy(), epoch + 1, best[1]
