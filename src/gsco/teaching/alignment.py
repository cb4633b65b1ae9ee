"""Images with what they show, for aligning MedDr-nano's eye with words."""

from __future__ import annotations

from collections.abc import Sequence

from gsco.cases import Dataset
from gsco.generalist.nano.align import Shown
from gsco.teaching.out_of_fold import thin_dataset
from gsco.teaching.vocabulary import SYNONYMS


def shown_examples(datasets: Sequence[Dataset], *, most: int, seed: int = 0) -> list[Shown]:
    """Training images of diagnosis datasets, each option under all its names.

    Args:
        datasets: closed single-label diagnosis datasets.
        most: images of a dataset at most, labels as even as they allow.
        seed: of the choice.
    """
    out = []
    for dataset in datasets:
        options = tuple(SYNONYMS.get(o.name.lower(), (o.name,)) for o in dataset.task.options)
        for case in thin_dataset(dataset, most=most, seed=seed).split("train"):
            if case.label is not None:
                cluster = f"{dataset.name}:{case.cluster}"
                out.append(Shown(case.image, options, dataset.task.index(case.label), cluster))
    return out
