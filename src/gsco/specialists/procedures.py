"""The reference's training procedures, by its names, and MedMNIST's own recipe.

``endToEnd``, ``linearProbing`` and ``kNN`` are those of the MedMNIST+ benchmark (Doerrich et al., Sci Rep
15:7669, 2025; section "Training" and its code), with any architecture: AdamW at 1e-4, a cosine over 100
epochs without warm-up, batches of 64, no augmentation, all cases weighed the same, pictures normalised and
then padded with zeros to 224 pixels, early stopping after 5 epochs without a lower validation loss.
``medmnist`` is the recipe behind the published 28-pixel figures (Yang et al., Sci Data 10:41, 2023).

A head that is trained for a hundred epochs on a frozen network sees the same features in each: they are
computed once. So dropout and batch norm before the head are those of inference.
"""

from __future__ import annotations

from typing import Any

import torch

from gsco.specialists.architectures import REFERENCE
from gsco.specialists.epochs_head import EpochsHead
from gsco.specialists.named_networks import DEFAULT_BACKBONE, create_network
from gsco.specialists.networks import NetworkSpecialist, architecture_of, own_size
from gsco.specialists.plain_knn import PlainNeighbours
from gsco.specialists.schedule import Schedule
from gsco.specialists.trained import TrainedSpecialist, TrainingJob

PROCEDURES: tuple[str, ...] = ("endToEnd", "linearProbing", "kNN")
SEEDS: tuple[int, ...] = (9930641, 115149041, 252139603)
"""Seeds of the benchmark."""
SIZES: tuple[int, ...] = (28, 64, 128, 224)
PADDED = 224
NEIGHBOURS = 11


def medmnist_plus(size: int, pad: int | None, *, quick: bool = False) -> Schedule:
    """The benchmark's schedule; `quick` runs two epochs of it."""
    return Schedule(
        size=size,
        images=0,
        least=2 if quick else 100,
        batch=64,
        lr=1e-4,
        weight_decay=0.01,
        smoothing=0.0,
        average=0.0,
        patience=5,
        pad=pad,
        decay_all=True,
        rate="cosine",
        balance=0.0,
        clip=None,
    )


def medmnist(size: int, pad: int | None = None, *, quick: bool = False) -> Schedule:
    """MedMNIST's schedule: Adam at 1e-3, a tenth at half and at three quarters of 100 epochs.

    The epoch with the highest validation AUC is kept, as the article says. (The code that was published
    with it names that epoch, but saves the last one.)
    """
    return Schedule(
        size=size,
        images=0,
        least=2 if quick else 100,
        batch=128,
        pad=pad,
        lr=1e-3,
        smoothing=0.0,
        average=0.0,
        patience=None,
        optimiser="adam",
        rate="steps",
        balance=0.0,
        clip=None,
        keep="auc",
    )


def geometry(job: TrainingJob, architecture: str) -> tuple[int, int | None]:
    """The side pictures are stretched to, and the side that is padded to, or None.

    Asked for neither, a network of the benchmark gets 224 pixels, another the size it was made for. A
    size below 224 is padded to 224 unless the job says otherwise (``pad=0``).
    """
    own = None if architecture in REFERENCE else own_size(architecture)
    size = job.size or own or PADDED
    pad = PADDED if job.pad is None else job.pad
    return size, pad if pad > size else None


def end_to_end(job: TrainingJob, name: str, recipe: str, architecture: str | None) -> TrainedSpecialist:
    """Every weight of a (pretrained) network trained as in the benchmark."""
    architecture = architecture or DEFAULT_BACKBONE
    size, pad = geometry(job, architecture)
    return _network(job, name, recipe, architecture, medmnist_plus(size, pad, quick=job.quick), learned=True)


def from_scratch_28(job: TrainingJob, name: str, recipe: str, architecture: str | None) -> TrainedSpecialist:
    """MedMNIST's recipe: from random weights; its own ResNet-18 unless another network is named."""
    size = job.size or 28
    schedule = medmnist(size, job.padding(size), quick=job.quick)
    return _network(job, name, recipe, architecture or "medmnist_resnet18", schedule, learned=False)


def linear_probing(job: TrainingJob, name: str, recipe: str, architecture: str | None) -> TrainedSpecialist:
    """The last layer alone trained as in the benchmark, on features computed once."""
    seen = _what_the_last_layer_sees(job, name, recipe, architecture)
    schedule = medmnist_plus(seen["size"], seen["pad"], quick=job.quick)
    return EpochsHead(**seen).fit(job, schedule)


def k_nearest(job: TrainingJob, name: str, recipe: str, architecture: str | None) -> TrainedSpecialist:
    """The vote of the 11 nearest training cases, by the Euclidean distance of what the last layer sees."""
    seen = _what_the_last_layer_sees(job, name, recipe, architecture)
    return PlainNeighbours(k=NEIGHBOURS, **seen).fit(job)


def _what_the_last_layer_sees(
    job: TrainingJob, name: str, recipe: str, architecture: str | None
) -> dict[str, Any]:
    """The arguments of a head on the features that the network's own last layer would see."""
    architecture = architecture or DEFAULT_BACKBONE
    size, pad = geometry(job, architecture)
    return {
        "name": name,
        "recipe": recipe,
        "options": job.options,
        "features": "prelogits",
        "backbone_name": architecture,
        "size": size,
        "pad": pad,
        "cache": job.cache,
        "multi_label": job.multi_label,
    }


def _network(
    job: TrainingJob, name: str, recipe: str, architecture: str, schedule: Schedule, *, learned: bool
) -> TrainedSpecialist:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        model, pretrained = create_network(
            architecture,
            pretrained=learned,
            scratch_ok=True,
            num_classes=len(job.options),
            side=schedule.pad or schedule.size,
        )
    if learned and not pretrained:
        job.say(f"{name}: no pretrained weights within reach, so it starts from random ones", 0, 1)
    config = model.pretrained_cfg
    made = NetworkSpecialist(
        name=name,
        recipe=recipe,
        options=job.options,
        architecture=architecture_of(model, architecture),
        size=schedule.size,
        mean=config["mean"],
        std=config["std"],
        pad=schedule.pad,
        multi_label=job.multi_label,
    )
    made.details["pretrained"] = pretrained
    return made.fit(job, model, schedule, None)
