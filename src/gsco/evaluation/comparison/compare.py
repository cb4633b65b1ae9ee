"""All specialists of a dataset side by side, and the team to take: chosen on validation, judged on test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case, Dataset, load_dataset
from gsco.collaboration.team import Team, mean_of
from gsco.embedded import cache_home
from gsco.errors import ModelError, counted
from gsco.evaluation import statistics as s
from gsco.evaluation.comparison.answers import (
    ask,
    check_dataset,
    columns_for,
    folders_of_run,
    labelled,
    load_contestants,
    thresholds_for,
)
from gsco.evaluation.comparison.choosing import Chosen, choose, validation_cases
from gsco.evaluation.comparison.cost import measure, size_of
from gsco.evaluation.comparison.embeddings import ASKED, SEARCHED, embedding_figures
from gsco.evaluation.comparison.figures import Answers, as_answers, by_key, compare_macro_f1, judge
from gsco.evaluation.data import fingerprint
from gsco.evaluation.metrics import Floats
from gsco.evaluation.progress import Reporter, Silent
from gsco.evaluation.selective import set_figures
from gsco.evaluation.summary import rounded
from gsco.specialists.conformal import ConformalSets

Row = dict[str, Any]
_TEAM, _EVERYONE = "team", "mean of all"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that the comparison page shows.

    Attributes:
        result: the content of ``--json``; it depends on specialists, data, settings and seed only.
        timing: what depends on the clock: milliseconds an image, by specialist; empty where not measured.
        answers: answers on test, by specialist, then ``team``.
        card: of the dataset.
    """

    result: dict[str, Any]
    timing: dict[str, Any]
    answers: Mapping[str, Answers]
    card: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values; what depends on the clock stands under ``timing`` and nowhere else."""
        return {**self.result, "timing": self.timing}


def compare_specialists(
    data: Path | str,
    folders: Sequence[Path | str] = (),
    *,
    run: Path | str | None = None,
    unpooled: bool = False,
    timed: bool = True,
    label_column: str | None = None,
    cache: Path | None = None,
    n_resamples: int = s.RESAMPLES,
    seed: int = 0,
    progress: Reporter | None = None,
) -> Comparison:
    """Compare specialists on a dataset and recommend a team.

    What was predicted or embedded before is read from the cache, so a killed comparison goes on where it was.

    Args:
        data: the dataset whose options the specialists choose among.
        folders: of specialists.
        run: a run folder, all of whose specialists take part, too.
        unpooled: compare un-pooled embeddings, too (slower, and large in the cache).
        timed: measure milliseconds an image.
        label_column: the column of the table that holds the labels, where it is not ``label``.
        cache: for features and predictions; the default cache when None.
        n_resamples, seed: of the bootstrap, and of what is drawn of large sets for the embeddings.
        progress: where progress goes.

    Raises:
        ModelError: no specialists, a folder that is none, or options that are not the dataset's.
        DatasetError: not diagnosis, or nothing labelled to test on.
    """
    progress, cache = progress or Silent(), cache_home(cache)
    paths = [*map(Path, folders), *(folders_of_run(Path(run)) if run is not None else [])]
    if not paths:
        raise ModelError("no specialists are named", remedy="Give their folders, or a run folder with --run.")
    contestants = load_contestants(paths, cache=cache, progress=progress)
    with progress.stage("reading the dataset") as step:
        dataset = load_dataset(data, check_images=True, seed=seed, label_column=label_column, progress=step)
    check_dataset(dataset, "test")
    columns = {c.name: columns_for(c, dataset) for c in contestants}
    val, left_out = validation_cases(dataset, cache, progress)
    cases = labelled(dataset, "test")
    spoken: dict[str, dict[str, Floats]] = {"val": {}, "test": {}}
    for who in contestants:
        for part, asked in (("val", val), ("test", cases)):
            with progress.stage(f"specialist {who.name} on {part}", total=len(asked)) as step:
                said = ask(who, [case.image for case in asked], cache=cache, step=step)
            spoken[part][who.name] = said[:, columns[who.name]]

    chosen = choose(dataset, val, spoken["val"])
    thresholds: dict[str, Floats] = {}
    if dataset.task.multi_label:
        thresholds = {c.name: thresholds_for(c, columns[c.name]) for c in contestants}
        thresholds |= chosen.thresholds or {_EVERYONE: np.full(len(dataset.task.keys), 0.5)}
    with progress.stage("figures"):
        result, answers = _figures(dataset, cases, spoken["test"], chosen, thresholds, n_resamples, seed)
    result = {
        **_head(dataset, cases, val, left_out, n_resamples, seed),
        **result,
        "embeddings": embedding_figures(
            dataset,
            contestants,
            val,
            cases,
            unpooled=unpooled,
            cache=cache,
            n_resamples=n_resamples,
            seed=seed,
            progress=progress,
        ),
        "about": {who.name: size_of(who) for who in contestants},
    }
    timing: dict[str, Any] = {}
    if timed:
        with progress.stage("timing", total=len(contestants)) as step:
            for done, who in enumerate(contestants, start=1):
                timing[who.name] = measure(who, [case.image for case in cases])
                step(done)
    return Comparison(rounded(result), timing, answers, dataset.card)


def _head(
    dataset: Dataset,
    cases: Sequence[Case],
    val: Sequence[Case],
    left_out: Sequence[str],
    n_resamples: int,
    seed: int,
) -> Row:
    task = dataset.task
    counts = {key: sum(key in case.labels for case in cases) for key in task.keys}
    notes = [f"{counted(len(dataset.skipped), 'broken image')} skipped"] if dataset.skipped else []
    if left_out:
        notes.append(
            f"{counted(len(left_out), 'validation case')} left out, (near) copies of training or test cases: "
            "the team was chosen without them"
        )
    if not val:
        notes.append("no validation cases: no team is chosen, and no best specialist")
    missing = [option.name for option in task.options if not counts[option.key]]
    if missing:
        notes.append(f"no test case of {', '.join(missing)}: means leave them out")
    return {
        "schema": 1,
        "dataset": dataset.name,
        "modality": task.modality,
        "fingerprint": fingerprint(dataset),
        "split": "test",
        "n": len(cases),
        "n_clusters": len({case.cluster for case in cases}),
        "n_validation": len(val),
        "multi_label": task.multi_label,
        "options": [{"key": option.key, "name": option.name} for option in task.options],
        "n_per_class": counts,
        "notes": notes,
        "method": {"seed": seed, "n_resamples": n_resamples, "searched": SEARCHED, "asked": ASKED},
    }


def _figures(
    dataset: Dataset,
    cases: Sequence[Case],
    spoken: Mapping[str, Floats],
    chosen: Chosen,
    thresholds: Mapping[str, Floats],
    n_resamples: int,
    seed: int,
) -> tuple[Row, dict[str, Answers]]:
    """Figures of specialists and team, what the team adds, and how alike the specialists' errors are."""
    task, truth = dataset.task, dataset.truth(cases)

    def answered(name: str, probabilities: Floats) -> Answers:
        return as_answers(name, cases, truth, probabilities, thresholds.get(name))

    def judged(each: Answers) -> dict[str, dict[str, float | None]]:
        return judge(each, task.keys, ordinal=task.ordinal, n_resamples=n_resamples, seed=seed)

    answers = {name: answered(name, p) for name, p in spoken.items()}
    everyone = answered(_EVERYONE, mean_of(spoken.values()))
    out: Row = {
        "specialists": {name: judged(each) for name, each in answers.items()},
        "team": None,
        "best_specialist": chosen.best,
        "mean_of_all": judged(everyone),
        "choice": None,
        "thresholds": {name: by_key(task.keys, values) for name, values in thresholds.items()},
        "comparisons": [],
        "sets": {
            name: _held(made, spoken[name], truth) for name, made in chosen.sets.items() if name in spoken
        },
        "agreement": _agreement(answers),
    }
    if chosen.team is not None and chosen.best is not None:
        together = answered(_TEAM, chosen.team.probabilities(spoken))
        out["team"] = {"members": list(chosen.team.members), **judged(together)}
        out["choice"] = _choice(chosen.team)
        if _TEAM in chosen.sets:
            out["sets"][_TEAM] = _held(chosen.sets[_TEAM], chosen.team.probabilities(spoken), truth)
        others = (("best_specialist", answers[chosen.best]), ("mean_of_all", everyone))
        for name, other in others:
            difference = compare_macro_f1(together, other, n_resamples=n_resamples, seed=seed)
            out["comparisons"].append({"a": "team", "b": name, "metric": "macro_f1", **difference})
        answers["team"] = together
    return out, answers


def _held(made: ConformalSets, probabilities: Floats, truth: NDArray[np.int64]) -> Row:
    """What the label sets state and what they hold; see `set_figures`."""
    found = set_figures(made.sets(probabilities), truth)
    del found["per_class"]
    return {"stated": made.coverage, "threshold": made.threshold, **found}


def _choice(team: Team) -> Row:
    return {
        "reason": team.reason,
        "temperature": team.temperature.value,
        "log_loss": team.loss,
        "lowest": {"members": list(team.best_members), "log_loss": team.best_loss},
        "left_out": {
            name: {"log_loss_added": cost, "standard_error": error}
            for name, (cost, error) in team.left_out.items()
        },
        "subsets_tried": team.tried,
    }


def _agreement(answers: Mapping[str, Answers]) -> Row:
    """Pairs of specialists: how often they say the same, and how often both are wrong.

    Shares of cases; where a case may have several labels, of all yes-or-no answers to each label of each.
    """
    names = list(answers)

    def table(share: Any) -> list[list[float]]:
        return [[float(np.mean(share(answers[a], answers[b]))) for b in names] for a in names]

    def same(a: Answers, b: Answers) -> NDArray[np.bool_]:
        return np.equal(a.prediction, b.prediction)

    def both_wrong(a: Answers, b: Answers) -> NDArray[np.bool_]:
        return ~a.right & ~b.right

    return {
        "names": names,
        "same_answer": table(same),
        "both_wrong": table(both_wrong),
        "all_wrong": float(np.mean(~np.any([each.right for each in answers.values()], axis=0))),
    }
