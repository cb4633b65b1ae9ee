"""Images with what they show, for teaching MedDr-nano's eye."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gsco.cases import Dataset
from gsco.generalist.nano.naming import Shown
from gsco.teaching.held_back import held_back
from gsco.teaching.out_of_fold import thin_dataset
from gsco.teaching.vocabulary import SYNONYMS


def shown_examples(datasets: Sequence[Dataset], *, most: int, seed: int = 0) -> list[Shown]:
    """Training images of diagnosis datasets, each option under all its names; none that is `held_back`.

    Args:
        datasets: closed single-label diagnosis datasets.
        most: images of a dataset at most, labels as even as they allow.
        seed: of the choice.
    """
    out = []
    for dataset in datasets:
        options = tuple(SYNONYMS.get(o.name.lower(), (o.name,)) for o in dataset.task.options)
        to_look, _ = held_back([case for case in dataset.split("train") if case.label is not None])
        part = thin_dataset(replace(dataset, cases=tuple(to_look)), most=most, seed=seed)
        for case in part.split("train"):
            cluster = f"{dataset.name}:{case.cluster}"
            out.append(Shown(case.image, options, dataset.task.index(case.labels[0]), cluster))
    return out
