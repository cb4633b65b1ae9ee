"""Real evidence about training cases, from specialists and neighbours that never saw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gsco.cases import Dataset
from gsco.collaboration import Evidence, assemble, neighbour_choices, similar_to_known
from gsco.progress import Progress
from gsco.specialists import Opinion


def thin_dataset(dataset: Dataset, *, most: int, seed: int = 0) -> Dataset:
    """The same dataset with at most `most` training cases, labels as even as they allow."""
    train = dataset.split("train")
    if len(train) <= most:
        return dataset
    rng = np.random.default_rng(seed)
    by_label: dict[tuple[str, ...], list[int]] = {}
    for i in rng.permutation(len(train)):
        by_label.setdefault(train[i].labels, []).append(int(i))
    kept: set[int] = set()
    queues = [list(reversed(positions)) for _, positions in sorted(by_label.items())]
    while len(kept) < most:
        for queue in queues:
            if queue and len(kept) < most:
                kept.add(queue.pop())
    ids = {train[i].id for i in kept}
    return replace(dataset, cases=tuple(c for c in dataset.cases if c.split != "train" or c.id in ids))


def out_of_fold_evidence(
    dataset: Dataset,
    recipes: Sequence[str],
    *,
    cache: Path,
    k: int = 10,
    folds: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Evidence]:
    """Evidence about every training case, as it would be had the case been new.

    Opinions come from specialists trained without the case's fold; the reliability they state is the
    balanced accuracy of those answers. Neighbours never include the case itself or its patient or group.

    Args:
        dataset: a single-label diagnosis dataset.
        recipes: specialists' recipes.
        cache: folder for features and finished folds.
        k: neighbours of each case.
        folds: of the cross-fitting, grouped by patient.
        seed: of folds and training.
        progress: told what, done, in all.

    Returns:
        Case id -> evidence.
    """
    from sklearn.metrics import balanced_accuracy_score

    from gsco.retrieval import CaseIndex
    from gsco.specialists.backbones import load_backbone
    from gsco.specialists.features import extract
    from gsco.specialists.folds import out_of_fold

    train = dataset.split("train")
    truth = dataset.targets(train)
    voices = []
    for recipe in recipes:
        p = out_of_fold(recipe, dataset, folds=folds, seed=seed, cache=cache, progress=progress)
        reliability = float(balanced_accuracy_score(truth, p.argmax(axis=1)))
        name = recipe.replace(":", "-")
        voices.append([Opinion(name, tuple(map(float, row)), reliability) for row in p])
    backbone = load_backbone()
    embeddings = extract(backbone, [case.image for case in train], cache=cache)
    index = CaseIndex.build(embeddings, train, dataset=dataset.name, encoder=backbone.fingerprint)
    found = similar_to_known(index, embeddings, train, k)
    votes = neighbour_choices(found, dataset.task.keys)
    evidence = assemble(voices, found, float(balanced_accuracy_score(truth, votes)))
    return {case.id: known for case, known in zip(train, evidence, strict=True)}
