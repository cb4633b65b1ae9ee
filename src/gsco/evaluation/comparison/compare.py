"""All specialists of a dataset side by side, and the team to take: chosen on validation, judged on test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case, Dataset, load_dataset
from gsco.collaboration.team import Team, choose_team, mean_of
from gsco.embedded import cache_home
from gsco.errors import ModelError
from gsco.evaluation import statistics as s
from gsco.evaluation.comparison.answers import (
    Contestant,
    as_answers,
    ask,
    check_dataset,
    columns_for,
    folders_of_run,
    labelled,
    load_contestants,
)
from gsco.evaluation.comparison.cost import measure, size_of
from gsco.evaluation.comparison.figures import judge
from gsco.evaluation.comparison.neighbours import find_alike, summary
from gsco.evaluation.copies import validation_copies
from gsco.evaluation.data import draw, fingerprint
from gsco.evaluation.metrics import Floats
from gsco.evaluation.progress import Reporter, Silent
from gsco.evaluation.runfolder import dump_json, storage_errors, write_atomic
from gsco.evaluation.summary import COUNTED, ArmAnswers, rounded

SEARCHED = 2000
"""Most training cases in which embeddings look for neighbours."""
ASKED = 500
"""Most cases whose neighbours are looked for, of each split."""
Row = dict[str, Any]


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
    answers: Mapping[str, ArmAnswers]
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
        DatasetError: not single-label diagnosis, or nothing labelled to test on.
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
    val, left_out = _validation_cases(dataset, cache, progress)
    cases = labelled(dataset, "test")
    spoken: dict[str, dict[str, Floats]] = {"val": {}, "test": {}}
    for who in contestants:
        for part, asked in (("val", val), ("test", cases)):
            with progress.stage(f"specialist {who.name} on {part}", total=len(asked)) as step:
                said = ask(who, [case.image for case in asked], cache=cache, step=step)
            spoken[part][who.name] = said[:, columns[who.name]]

    team = _team(dataset, val, spoken["val"])
    best = _best(dataset, val, spoken["val"])
    with progress.stage("figures"):
        result, answers = _figures(dataset, cases, spoken["test"], team, best, n_resamples, seed)
    result = {
        **_head(dataset, cases, val, left_out, n_resamples, seed),
        **result,
        "embeddings": _embeddings(
            dataset, contestants, val, cases, unpooled, cache, n_resamples, seed, progress
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
    notes = [f"{len(dataset.skipped)} broken image(s) skipped"] if dataset.skipped else []
    if left_out:
        notes.append(
            f"{len(left_out)} validation case(s) are (near) copies of training or test cases: "
            "the team was chosen without them"
        )
    if not val:
        notes.append("no validation cases: no team is chosen, and no best specialist")
    return {
        "schema": 1,
        "dataset": dataset.name,
        "modality": dataset.task.modality,
        "fingerprint": fingerprint(dataset),
        "split": "test",
        "n": len(cases),
        "n_clusters": len({case.cluster for case in cases}),
        "n_validation": len(val),
        "options": [{"key": option.key, "name": option.name} for option in dataset.task.options],
        "n_per_class": {key: sum(case.label == key for case in cases) for key in dataset.task.keys},
        "notes": notes,
        "method": {"seed": seed, "n_resamples": n_resamples, "searched": SEARCHED, "asked": ASKED},
    }


def _validation_cases(
    dataset: Dataset, cache: Path, progress: Reporter
) -> tuple[tuple[Case, ...], list[str]]:
    """Labelled validation cases without copies of others, and the ids of those; found once for a dataset."""
    val, train, cases = labelled(dataset, "val"), labelled(dataset, "train"), labelled(dataset, "test")
    if not val:
        return (), []
    path = cache / "copies" / f"{fingerprint(dataset)[:32]}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["left_out"]
    except (OSError, ValueError, KeyError):
        with progress.stage("leakage check of validation") as step:
            known = validation_copies(train, val, cases, progress=step)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, dump_json(known))
        found = known["left_out"]
    gone = set(found)
    return tuple(case for case in val if case.id not in gone), list(found)


def _team(dataset: Dataset, val: Sequence[Case], spoken: Mapping[str, Floats]) -> Team | None:
    if not val:
        return None
    return choose_team(spoken, dataset.targets(val), [case.cluster for case in val])


def _best(dataset: Dataset, val: Sequence[Case], spoken: Mapping[str, Floats]) -> str | None:
    """The specialist with the best macro-F1 on validation (ties: AUC, then the order given)."""
    from gsco.evaluation import metrics as m

    if not val:
        return None
    truth = np.asarray(dataset.targets(val), dtype=np.int64)

    def worth(name: str) -> tuple[float, float]:
        p = spoken[name]
        area = m.auc(truth, p)
        return m.macro_f1(truth, p.argmax(axis=1), p.shape[1]), 0.0 if np.isnan(area) else area

    return max(spoken, key=worth)


def _figures(
    dataset: Dataset,
    cases: Sequence[Case],
    spoken: Mapping[str, Floats],
    team: Team | None,
    best: str | None,
    n_resamples: int,
    seed: int,
) -> tuple[Row, dict[str, ArmAnswers]]:
    """Figures of specialists and team, what the team adds, and how alike the specialists' errors are."""
    reference = dataset.targets(cases)

    def judged(each: ArmAnswers) -> dict[str, dict[str, float | None]]:
        task = dataset.task
        return judge(each, task.keys, ordinal=task.ordinal, n_resamples=n_resamples, seed=seed)

    answers = {name: as_answers(name, cases, reference, p) for name, p in spoken.items()}
    figures = {name: judged(each) for name, each in answers.items()}
    everyone = as_answers("mean of all", cases, reference, mean_of(spoken.values()))
    out: Row = {
        "specialists": figures,
        "team": None,
        "best_specialist": best,
        "mean_of_all": judged(everyone),
        "choice": None,
        "comparisons": [],
        "agreement": _agreement(answers),
    }
    if team is not None and best is not None:
        together = as_answers("team", cases, reference, team.probabilities(spoken))
        out["team"] = {
            "members": list(team.members),
            **judged(together),
        }
        out["choice"] = {
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
        out["comparisons"] = [
            {
                "a": "team",
                "b": name,
                "metric": "macro_f1",
                **s.compare(
                    together.cluster_confusions,
                    other.cluster_confusions,
                    COUNTED["macro_f1"],
                    n_resamples=n_resamples,
                    seed=seed,
                )._asdict(),
            }
            for name, other in (("best_specialist", answers[best]), ("mean_of_all", everyone))
        ]
        answers["team"] = together
    return out, answers


def _agreement(answers: Mapping[str, ArmAnswers]) -> Row:
    """Pairs of specialists: how often they say the same, and how often both are wrong, as shares of cases."""
    names = list(answers)

    def table(share: Any) -> list[list[float]]:
        return [[float(np.mean(share(answers[a], answers[b]))) for b in names] for a in names]

    def same(a: ArmAnswers, b: ArmAnswers) -> NDArray[np.bool_]:
        return np.equal(a.prediction, b.prediction)

    def both_wrong(a: ArmAnswers, b: ArmAnswers) -> NDArray[np.bool_]:
        return ~a.right & ~b.right

    return {
        "names": names,
        "same_answer": table(same),
        "both_wrong": table(both_wrong),
        "all_wrong": float(np.mean(~np.any([each.right for each in answers.values()], axis=0))),
    }


def _embeddings(
    dataset: Dataset,
    contestants: Sequence[Contestant],
    val: Sequence[Case],
    cases: Sequence[Case],
    unpooled: bool,
    cache: Path,
    n_resamples: int,
    seed: int,
    progress: Reporter,
) -> Row | None:
    """Whose embeddings find same-label training cases: figures on the split, the best by validation."""
    from gsco.specialists.embeddings import embed

    searched = draw(labelled(dataset, "train"), SEARCHED, seed)
    parts = {"val": draw(val, ASKED, seed), "test": draw(cases, ASKED, seed)}
    if not searched:
        return None
    found: dict[str, dict[str, Row]] = {}
    for who in contestants:
        for pooled in (True, False) if unpooled else (True,):
            kind = "pooled" if pooled else "unpooled"

            def of(some: Sequence[Case], what: str, who: Contestant = who, pooled: bool = pooled) -> Any:
                images = [case.image for case in some]
                with progress.stage(f"embeddings of {who.name}: {what}", total=len(images)) as step:
                    return embed(who.specialist, images, pooled=pooled, cache=cache, progress=step)

            try:
                rows = of(searched, "training cases")
            except ModelError as error:
                progress.note(f"{error.what}: it is left out of the comparison of embeddings")
                continue
            row: Row = {}
            for part, asked in parts.items():
                if asked:
                    alike = find_alike(of(asked, part), asked, rows, searched)
                    row[part] = summary(alike, asked, n_resamples=n_resamples, seed=seed)
            if row:
                chosen = row.get("val", {}).get("map", {}).get("value")
                found.setdefault(who.name, {})[kind] = {**row["test"], "validation_map": chosen}
    ranked = [
        (figures["validation_map"], name, kind)
        for name, kinds in found.items()
        for kind, figures in kinds.items()
        if figures["validation_map"] is not None and not np.isnan(figures["validation_map"])
    ]
    best = max(ranked, key=lambda row: row[0]) if ranked else None
    return {
        "n_searched": len(searched),
        "n_asked": len(parts["test"]),
        "best": None if best is None else {"specialist": best[1], "kind": best[2]},
        "specialists": found,
    }
