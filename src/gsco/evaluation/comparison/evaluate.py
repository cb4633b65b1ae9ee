"""One specialist on one dataset: its own, or one it was never meant for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case, Dataset, load_dataset
from gsco.embedded import cache_home
from gsco.errors import LabelError, ModelError, NoLabelsError, counted
from gsco.evaluation.comparison.answers import (
    Contestant,
    ask,
    check_dataset,
    columns_for,
    labelled,
    load_contestants,
    thresholds_for,
)
from gsco.evaluation.comparison.figures import as_answers, by_key, judge
from gsco.evaluation.comparison.labels import LabelMap, map_labels, option_names
from gsco.evaluation.metrics import Floats
from gsco.evaluation.progress import Reporter, Silent
from gsco.evaluation.statistics import RESAMPLES
from gsco.specialists.chosen import runtime_of

if TYPE_CHECKING:
    from gsco.cases.case import Split


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one specialist is worth on one dataset.

    Attributes:
        figures: by metric ``{value, low, high}``; see `gsco.evaluation.comparison.figures.judge`.
        about: who was judged on what: specialist, dataset, split, n, options, mapping.
        notes: what a reader should know before the figures.
    """

    figures: dict[str, dict[str, float | None]]
    about: dict[str, Any]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return {"schema": 1, **self.about, "figures": self.figures, "notes": list(self.notes)}


def evaluate_specialist(
    folder: Path | str,
    data: Path | str,
    *,
    split: Split = "test",
    external: bool = False,
    mapping: Sequence[str] = (),
    label_column: str | None = None,
    cache: Path | None = None,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Reporter | None = None,
) -> Judgement:
    """Figures of a specialist on a split of a dataset, with 95 % intervals.

    Args:
        folder: of the specialist.
        data: dataset folder, ``.npz``, or whatever `gsco.cases.load_dataset` reads.
        split: which cases.
        external: the specialist was trained on another dataset: labels are mapped by name, cases of labels
            that it does not know are left out, and its probabilities are restricted to the mapped options
            and renormalised (what it says given that one of these is right).
        mapping: ``label=option`` each, where names do not tell; only with `external`.
        label_column: the column of the table that holds the labels, where it is not ``label``.
        cache: for features and predictions; the default cache when None.
        n_resamples, seed: of the bootstrap.
        progress: where progress goes.

    Raises:
        ModelError: no specialist, or its options are not the dataset's and `external` is not said.
        DatasetError, LabelError: nothing to judge it on, or fewer than two options that can be mapped.
    """
    progress, cache = progress or Silent(), cache_home(cache)
    if mapping and not external:
        raise LabelError("--map is given without --external", remedy="Add --external.")
    (who,) = load_contestants([Path(folder)], cache=cache, progress=progress)
    with progress.stage("reading the dataset") as step:
        dataset = load_dataset(data, check_images=True, seed=seed, label_column=label_column, progress=step)
    check_dataset(dataset, split)
    given = _external(who, dataset, split, mapping) if external else _own(who, dataset, split)
    with progress.stage(f"specialist {who.name} on {split}", total=len(given.cases)) as step:
        said = ask(who, [case.image for case in given.cases], cache=cache, step=step)
    said = given.mapping.restrict(said, who.specialist.options) if given.mapping else said[:, given.columns]
    notes = [f"{counted(len(dataset.skipped), 'broken image')} skipped"] if dataset.skipped else []
    if split != "test" and not external:
        notes.append(f"the specialist has seen the {split} split: these figures flatter it")
    missing = [key for key, n in given.counts.items() if not n]
    if missing:
        notes.append(f"no case of {', '.join(missing)}: means over classes leave them out")
    with progress.stage("figures"):
        answers = as_answers(who.name, given.cases, given.truth, said, given.thresholds)
        ordinal = dataset.task.ordinal and not external
        figures = judge(answers, given.keys, ordinal=ordinal, n_resamples=n_resamples, seed=seed)
    about = {
        "specialist": who.name,
        "runtime": runtime_of(who.specialist),
        "fingerprint": who.fingerprint,
        "dataset": dataset.name,
        "split": split,
        "external": external,
        "n": len(given.cases),
        "n_clusters": len({case.cluster for case in given.cases}),
        "options": [{"key": key, "name": given.names.get(key, key)} for key in given.keys],
        "n_per_class": given.counts,
        "thresholds": by_key(given.keys, given.thresholds),
        "mapping": None
        if given.mapping is None
        else {**given.mapping.to_json(), "n_kept": len(given.cases), "n_dropped": given.n_dropped},
    }
    return Judgement(figures, about, tuple(notes))


@dataclass(frozen=True)
class _Given:
    """What a specialist is judged on, as its options or the dataset's labels."""

    cases: tuple[Case, ...]
    truth: NDArray[np.int64]
    keys: tuple[str, ...]
    names: Mapping[str, str]
    columns: tuple[int, ...] = ()
    thresholds: Floats | None = None
    mapping: LabelMap | None = None
    n_dropped: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Cases of each label."""
        several = self.truth.ndim == 2
        each = self.truth.sum(axis=0) if several else np.bincount(self.truth, minlength=len(self.keys))
        return dict(zip(self.keys, each.tolist(), strict=True))


def _own(who: Contestant, dataset: Dataset, split: Split) -> _Given:
    """All labelled cases of a split, whose labels are the specialist's options."""
    columns, cases, task = columns_for(who, dataset), labelled(dataset, split), dataset.task
    return _Given(
        cases,
        dataset.truth(cases),
        task.keys,
        {option.key: option.name for option in task.options},
        columns=tuple(columns),
        thresholds=thresholds_for(who, columns) if task.multi_label else None,
    )


def _external(who: Contestant, dataset: Dataset, split: Split, mapping: Sequence[str]) -> _Given:
    """The cases of a split whose labels are options of a specialist from elsewhere."""
    if getattr(who.specialist, "multi_label", False) or dataset.task.multi_label:
        raise ModelError(
            f"specialist {who.name!r} or {dataset.name} has several labels a case",
            where=str(who.folder),
            remedy="On another dataset, specialists with one label a case can be judged.",
        )
    names = option_names(who.specialist)
    found = map_labels(dataset.task.options, who.specialist.options, names=names, given=mapping)
    cases = labelled(dataset, split)
    known = tuple(case for case in cases if case.label in found.pairs)
    if not known:
        raise NoLabelsError(
            f"split {split!r} has no case of the mapped labels ({', '.join(found.pairs)})",
            where=str(dataset.root),
            remedy="Name another split, or map more labels with --map LABEL=OPTION.",
        )
    truth = np.asarray([found.options.index(found.pairs[str(case.label)]) for case in known])
    return _Given(known, truth, found.options, names, mapping=found, n_dropped=len(cases) - len(known))
