"""One specialist on one dataset: its own, or one it was never meant for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsco.cases import load_dataset
from gsco.embedded import cache_home
from gsco.errors import LabelError, NoLabelsError
from gsco.evaluation.comparison.answers import (
    as_answers,
    ask,
    check_dataset,
    columns_for,
    labelled,
    load_contestants,
    trained_on,
)
from gsco.evaluation.comparison.figures import judge
from gsco.evaluation.comparison.labels import map_labels, readable_names
from gsco.evaluation.progress import Reporter, Silent
from gsco.evaluation.statistics import RESAMPLES

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
    (who,) = load_contestants([Path(folder)], cache=cache)
    with progress.stage("reading the dataset") as step:
        dataset = load_dataset(data, check_images=True, seed=seed, progress=step)
    check_dataset(dataset, split)
    cases, own = labelled(dataset, split), who.specialist.options
    notes = [f"{len(dataset.skipped)} broken image(s) skipped"] if dataset.skipped else []
    keys, about_map, pairs = dataset.task.keys, None, None
    if external:
        found = map_labels(dataset.task.options, own, trained_on=trained_on(who), given=mapping)
        known = tuple(case for case in cases if case.label in found.pairs)
        if not known:
            raise NoLabelsError(
                f"split {split!r} has no case of the mapped labels ({', '.join(found.pairs)})",
                where=str(data),
                remedy="Name another split, or map more labels with --map LABEL=OPTION.",
            )
        about_map = {**found.to_json(), "n_kept": len(known), "n_dropped": len(cases) - len(known)}
        cases, keys, pairs = known, found.options, found.pairs
    else:
        columns = columns_for(who, dataset)
    with progress.stage(f"specialist {who.name} on {split}", total=len(cases)) as step:
        said = ask(who, [case.image for case in cases], cache=cache, step=step)
    said = found.restrict(said, own) if external else said[:, columns]
    reference = [keys.index(pairs[str(case.label)] if pairs else str(case.label)) for case in cases]
    if split != "test" and not external:
        notes.append(f"the specialist has seen the {split} split: these figures flatter it")
    names = (
        readable_names(own, trained_on(who))
        if external
        else {option.key: option.name for option in dataset.task.options}
    )
    missing = [key for i, key in enumerate(keys) if i not in reference]
    if missing:
        notes.append(f"no case of {', '.join(missing)}: means over classes leave them out")
    answers = as_answers(who.name, cases, reference, said)
    with progress.stage("figures"):
        ordinal = dataset.task.ordinal and not external
        figures = judge(answers, keys, ordinal=ordinal, n_resamples=n_resamples, seed=seed)
    about = {
        "specialist": who.name,
        "fingerprint": who.fingerprint,
        "dataset": dataset.name,
        "split": split,
        "external": external,
        "n": len(cases),
        "n_clusters": answers.cluster_positions[1],
        "options": [{"key": key, "name": names.get(key, key)} for key in keys],
        "n_per_class": {key: reference.count(i) for i, key in enumerate(keys)},
        "mapping": about_map,
    }
    return Judgement(figures, about, tuple(notes))
