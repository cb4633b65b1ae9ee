"""The last stages: figures and page, from the log and what was recorded beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gsco.cases import Dataset
from gsco.disk import write_atomic
from gsco.errors import DatasetError, RunError, counted
from gsco.evaluation.copies import validation_note
from gsco.evaluation.data import read_record
from gsco.evaluation.foreign import foreign_note, sign_facts
from gsco.evaluation.heatmaps import stored_heatmap
from gsco.evaluation.report import file_thumbnail, render_report
from gsco.evaluation.report.wording import comparison_sentence, faultless, headline
from gsco.evaluation.summary import summarise
from gsco.evaluation.work import Work

PURGED = {
    "purge": "left out of the index, not of the specialists' training",
    "purge_all": "left out of the index and of the specialists' training",
}
_AGAINST = ("best_specialist", "mean_probability")  # whom the verdict names with figures


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: the run folder.
        metrics: content of ``metrics.json``.
        notes: what a reader of the figures should know first, one line each.
        verdict: whether the collaboration helped, in a few lines; empty without a ``gsco`` arm.
    """

    folder: Path
    metrics: dict[str, Any]
    notes: tuple[str, ...] = ()
    verdict: str = ""

    @property
    def report(self) -> Path:
        """The page to read."""
        return self.folder / "report.html"

    @property
    def log(self) -> Path:
        """One line per case and arm, with prompt and evidence."""
        return self.folder / "cases.jsonl"


def check_complete(work: Work, lines: Sequence[dict[str, Any]]) -> None:
    """RunError where an arm that was run has not answered every case."""
    record = read_record(work.folder)
    answered = Counter(str(line["arm"]) for line in {(x["arm"], x["case_id"]): x for x in lines}.values())
    for arm in {*answered, *work.config.arms}:
        if answered[arm] < record["answered"]:
            raise RunError(
                f"{arm} has answered {answered[arm]} of {record['answered']} cases",
                where=str(work.folder.log),
                remedy=f"Continue it with `gsco run --resume {work.folder.path}`.",
            )


def conclude(work: Work, lines: Sequence[dict[str, Any]], *, dataset: Dataset | None = None) -> RunResult:
    """Write ``metrics.json`` and ``report.html``.

    Args:
        work: folder, settings and progress.
        lines: the log.
        dataset: for pictures of the similar cases; read again where it is not given and still there.
    """
    folder, config = work.folder, work.config
    record = read_record(folder)
    with work.stage("figures"):
        metrics = summarise(
            lines,
            dataset=record["name"],
            task=record["task"]["kind"],
            options=record["task"]["options"],
            split=config.split,
            seed=config.seed,
            n_resamples=config.resamples,
        )
        folder.write_json("metrics.json", metrics)
    notes = tuple(_notes(work, lines, metrics))
    with work.stage("page"):
        page = render_report(
            metrics=metrics,
            lines=lines,
            config=config.model_dump(mode="json"),
            environment=folder.read_json("environment.json") or {},
            extras=_extras(work, record, lines, notes, dataset),
            thumbnail=file_thumbnail,
            stored=partial(stored_heatmap, folder.heatmaps),
        )
        write_atomic(folder.report, page)
    return RunResult(folder.path, metrics, notes, _verdict(metrics))


def _extras(
    work: Work,
    record: dict[str, Any],
    lines: Sequence[dict[str, Any]],
    notes: Sequence[str],
    dataset: Dataset | None,
) -> dict[str, Any]:
    """What the page shows beside the figures."""
    chosen = work.folder.read_json("specialists.json") or {"specialists": [], "best": None}
    leakage = work.folder.read_json("leakage.json") or {}
    generalist = work.folder.read_json("generalist.json")
    return {
        "modality": record["task"]["modality"],
        "cases": record["cases"][work.config.split],
        "synthetic": bool(record["card"].get("synthetic")),
        "card": record["card"],
        "specialists": [
            {
                "name": row["name"],
                "description": row["recipe"],
                "reliability": row["reliability"],
                "validation macro-F1": row["validation"]["macro_f1"],
            }
            for row in chosen["specialists"]
        ],
        "best_specialist": chosen["best"],
        "generalist": generalist
        and {"name": generalist["name"], "fingerprint": generalist["fingerprint"][:16]},
        "leakage": leakage
        and {"found": leakage["summary"], "rule": leakage["rule"], "purged": len(leakage["purged"])},
        "calibration": work.folder.read_json("calibration.json"),
        "foreign": sign_facts(work.folder),
        "pool": work.folder.read_json("pool.json"),
        "skipped": record["skipped"],
        "notes": list(notes),
        "images": _known_images(work, lines, dataset),
    }


def _known_images(work: Work, lines: Sequence[dict[str, Any]], dataset: Dataset | None) -> dict[str, str]:
    """Image reference by id of every known case that the log names; {} where the data are gone."""
    if dataset is None:
        from gsco.cases import load_dataset

        try:
            dataset = load_dataset(work.config.data, max_broken=1.0, seed=work.config.seed)
        except DatasetError:
            return {}
    named = {
        neighbour["case_id"]
        for line in lines
        if line["evidence"]
        for neighbour in line["evidence"]["neighbours"]
    }
    return {case.id: str(case.image) for case in dataset if case.id in named}


def _verdict(metrics: dict[str, Any]) -> str:
    if "gsco" not in metrics["arms"]:
        return ""
    rows = [
        row
        for row in metrics["comparisons"]
        if row["a"] == "gsco" and row["b"] in _AGAINST and row["metric"] == "macro_f1"
    ]
    sentences = [headline(metrics["comparisons"], "gsco")]
    return "\n".join([*sentences, *(comparison_sentence(row, metrics["arms"]) for row in rows)])


def _notes(work: Work, lines: Sequence[dict[str, Any]], metrics: dict[str, Any]) -> Iterator[str]:
    """What a reader of the figures should know first."""
    config, record = work.config, read_record(work.folder)
    if record["card"].get("synthetic"):
        yield "These are synthetic phantoms: the figures say nothing about patients."
    if config.quick:
        yield "Quick setting: specialists were trained for fewer epochs."
    if config.folds:
        yield (
            f"Each specialist is the mean of {config.folds + 1} trainings: on all training cases, and "
            f"without each of {config.folds} folds."
        )
    if record["answered"] < record["cases"][config.split]:
        yield f"Only {record['answered']} of {record['cases'][config.split]} cases were answered (--limit)."
    if sure := faultless(metrics["arms"], metrics["n"]):
        yield sure
    for line in record.get("absent", ()):  # runs of earlier versions did not write it
        yield f"{line[0].upper()}{line[1:]}."
    if record["skipped"]:
        yield f"{counted(len(record['skipped']), 'broken image')} left out; dataset.json names them."
    if config.generalist.startswith("scripted:"):
        yield "The generalist is scripted, a stand-in for tests: its arms mean nothing."
    leakage = work.folder.read_json("leakage.json") or {}
    if leakage.get("purged"):
        cases = counted(len(leakage["purged"]), "training case")
        yield f"{cases} {PURGED[config.leakage]}: (near) copies of answered ones (leakage.json)."
    if leakage.get("validation", {}).get("left_out"):
        yield validation_note(leakage["validation"])
    foreign = foreign_note(lines)
    if foreign:
        yield foreign
    asked = work.folder.read_json("generalist.json") or {}
    if asked.get("remark"):
        yield f"{asked['name']}: {asked['remark']}"
    failed = [line for line in lines if line.get("failed")]
    if failed:
        n = len(failed)
        count = "1 answer of the generalist failed" if n == 1 else f"{n} answers of the generalist failed"
        yield (
            f"{count} for good, counted as wrong (the first: {failed[0]['failed']}); "
            f"gsco run --resume {work.folder.path} asks again."
        )
    if config.split == "val":
        yield "These cases are validation cases: the specialists were stopped, scaled and chosen by them."
    allowed = {
        kind: leakage["counts"][kind] for kind in leakage.get("allowed", ()) if leakage["counts"][kind]
    }
    if allowed:
        yield f"Leakage allowed by name: {', '.join(f'{n} pairs of {kind}' for kind, n in allowed.items())}."
