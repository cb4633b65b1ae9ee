"""Folds that keep patients and groups together, and out-of-fold predictions of any recipe."""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case, Dataset, units_of
from gsco.disk import whole_file, writing
from gsco.errors import DatasetError, ModelError
from gsco.progress import Progress
from gsco.specialists.features import image_keys
from gsco.specialists.trained import TrainedSpecialist, TrainingJob


def grouped_folds(
    targets: Sequence[int] | NDArray[np.int64], groups: Sequence[str], *, folds: int, seed: int = 0
) -> NDArray[np.int64]:
    """Number of the fold of each case; a group is never divided, classes are spread evenly.

    Args:
        targets: N option positions.
        groups: what stays together of N cases (`gsco.cases.units_of`).
        folds: how many.
        seed: of the draw.

    Returns:
        (N,) integers in [0, folds).

    Raises:
        DatasetError: fewer than two folds, fewer groups than folds, or no option with so many cases.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if folds < 2:
        raise DatasetError("one fold leaves nothing to train on", remedy="Ask for two folds or more.")
    if len(set(groups)) < folds:
        raise DatasetError(
            f"{len(set(groups))} patients or groups cannot be dealt into {folds} folds",
            remedy="Ask for fewer folds, or give more training cases.",
        )
    fullest = max(Counter(targets).values())
    if fullest < folds:
        raise DatasetError(
            f"no option has {folds} training cases, so they cannot be dealt into {folds} folds",
            remedy="Give more training cases.",
        )
    assigned = np.zeros(len(groups), dtype=np.int64)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a class with fewer cases than folds is spread as far as it goes
        warnings.simplefilter("ignore", UserWarning)
        for number, (_, held) in enumerate(
            splitter.split(np.zeros(len(groups)), np.asarray(targets), list(groups))
        ):
            assigned[held] = number
    return assigned


def out_of_fold(
    recipe: str,
    dataset: Dataset,
    *,
    folds: int = 3,
    seed: int = 0,
    cache: Path,
    quick: bool = False,
    size: int | None = None,
    pad: int | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Calibrated probabilities for every training case from specialists that never saw it.

    Each fold's cases are answered by a specialist trained on the other folds, calibrated (and stopped)
    on the validation split as the final one is. What a generalist hears in training thus looks like what
    it will hear in use. Finished folds are kept in the cache, so a killed call goes on where it was.

    Args:
        recipe: a name from `gsco.specialists.registry.RECIPES`, perhaps with a backbone.
        dataset: diagnosis.
        folds: how many.
        seed: of folds and training.
        cache: folder for features, checkpoints and finished folds.
        quick, size, pad: as for `gsco.specialists.train_specialist`.
        progress: called with (what, done, in all).

    Returns:
        (labelled training cases, options), in the order of ``dataset.split("train")``; rows sum to 1 where a
        case has one label.

    Raises:
        DatasetError: too few groups for the folds, or nothing to learn from.
    """
    from gsco.specialists.registry import training_job

    job = training_job(dataset, cache=cache, seed=seed, quick=quick, size=size, pad=pad, progress=progress)
    out = np.zeros((len(job.train), len(dataset.task.options)))
    for fold in deal(recipe, job, folds):
        held = [job.train[row].image for row in fold.held]
        opinions = fold.kept.with_suffix(".npy")
        probabilities = _read(opinions, (len(held), out.shape[1]))
        if probabilities is None:
            probabilities = fold_specialist(recipe, fold).predict(held)
            _write(opinions, probabilities)
        out[fold.held] = probabilities
    return out


@dataclass(frozen=True, slots=True)
class Fold:
    """Some training cases held back, and the training without them.

    Attributes:
        held: (M,) positions of the cases held back among the training cases.
        job: learns from the others.
        kept: folder in the cache where the specialist is kept that was trained so.
    """

    held: NDArray[np.int64]
    job: TrainingJob
    kept: Path


def deal(recipe: str, job: TrainingJob, folds: int) -> list[Fold]:
    """The folds of a job's training cases; see `grouped_folds`, by the job's seed."""
    assigned = grouped_folds(strata(job.train_targets), units_of(job.train), folds=folds, seed=job.seed)
    start, out = _starting_point(recipe), []
    for number in range(folds):
        held = np.flatnonzero(assigned == number)
        rest = tuple(case for case, fold in zip(job.train, assigned, strict=True) if fold != number)
        part = job.with_train(rest, tag=f"fold {number + 1}/{folds}")
        out.append(Fold(held, part, _kept(recipe, start, part, [job.train[row] for row in held])))
    return out


def whole(recipe: str, job: TrainingJob) -> Fold:
    """The training that holds nothing back."""
    return Fold(np.zeros(0, dtype=np.int64), job, _kept(recipe, _starting_point(recipe), job, ()))


def fold_specialist(recipe: str, fold: Fold) -> TrainedSpecialist:
    """The specialist of a fold, trained unless the cache has it."""
    from gsco.specialists.loading import load_specialist
    from gsco.specialists.registry import fit_specialist

    if (fold.kept / "config.json").is_file():
        with contextlib.suppress(ModelError):  # damage costs time, not correctness
            return load_specialist(fold.kept, cache=fold.job.cache, runtime="pytorch")
    made = fit_specialist(recipe, fold.job)
    if not fold.job.machine.is_first:
        return made
    made.save_pretrained(fold.kept)
    # as it stands on disk: what is trained and what is found may not differ by a rounding
    return load_specialist(fold.kept, cache=fold.job.cache, runtime="pytorch")


def strata(targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """What is spread evenly over folds: the option, or the combination of labels."""
    return targets if targets.ndim == 1 else np.unique(targets, axis=0, return_inverse=True)[1].reshape(-1)


def _starting_point(recipe: str) -> str:
    """Hash of the backbone weights that a recipe starts from; ``random`` where it has none to start from."""
    from gsco.specialists.backbones import weights_mark
    from gsco.specialists.named_networks import DEFAULT_BACKBONE, create_network
    from gsco.specialists.registry import find_recipe

    name, _, backbone = recipe.partition(":")
    entry = find_recipe(name)
    if entry.origin != "gsco":
        return entry.origin  # another version of the package may train otherwise
    if not entry.backbone:
        return "random"
    # a recipe that cannot do without learned weights says so itself
    model, learned = create_network(backbone or DEFAULT_BACKBONE, pretrained=True, scratch_ok=True)
    return weights_mark(model) if learned else "random"


def _kept(recipe: str, start: str, job: TrainingJob, held: Sequence[Case]) -> Path:
    """Folder named by a hash of all that decides the answers about `held`, to the last digit."""
    import torch

    content = [key.hex() for key in image_keys([case.image for case in held])]
    machine = asdict(replace(job.machine, rank=0))  # all processes of one training share what they leave
    by = [version("gsco"), torch.__version__, torch.get_num_threads(), machine]
    text = json.dumps([recipe, start, job.key(), [case.id for case in held], content, by])
    return job.cache / "folds" / hashlib.sha256(text.encode()).hexdigest()[:32]


def _read(path: Path, shape: tuple[int, int]) -> NDArray[np.float64] | None:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return values if values.shape == shape else None


def _write(path: Path, values: NDArray[np.float64]) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as draft, draft.open("wb") as file:
            np.save(file, values, allow_pickle=False)
