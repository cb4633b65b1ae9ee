"""One round of bootstrapping on disk: prompts, drafts, verdicts, records, statistics and a page.

``boot.jsonl`` has its rounds beside it::

    boot.jsonl                    accepted records of all rounds, in training format
    boot.rounds/round-01/         config.json, drafts.jsonl, accepted.jsonl, rejected.jsonl, statistics.json,
                                  page.html
    boot.rounds/round-02/         the same, by a generator that learnt from the first round
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gsco.bootstrapping.checks import Known
from gsco.bootstrapping.duplicates import Seen
from gsco.bootstrapping.prompts import Told, check_template, make_prompt, pupil_question
from gsco.bootstrapping.selection import Verdict, select
from gsco.bootstrapping.vocabulary import Vocabulary, vocabulary
from gsco.cases.case import Case, Dataset, Option, Split, Task
from gsco.cases.conversations import IMAGE_TAG, read_conversations, write_conversations
from gsco.disk import write_atomic
from gsco.errors import DatasetError, ModelError, RequestsFailedError, RunError, UserError
from gsco.evaluation.progress import Reporter, Silent
from gsco.evaluation.runfolder import RunFolder
from gsco.generalist import Generalist, Request, Sampling
from gsco.generalist.records import file_of

BATCH = 16
POSITION_COLUMNS = ("position", "finding_side")
_NOTHING = Option("no finding", "no finding")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a round is made with.

    Attributes:
        generalists: how each generator is named to `gsco.generalist.load_generalist`.
        template: of the prompts.
        drafts: prompts of each generator for each image, differently worded.
        agreement: generators that must say the same (drafts, where there is one generator).
        keep: accepted reports of one image.
        seed: of the wording, and of what is drawn.
        temperature: of drawing the drafts' words (`gsco.generalist.Sampling`); 0 writes the most probable.
        split: whose cases; reports of test cases would teach what is to be tested.
        limit: at most so many images, spread over the labels.
        max_new_tokens: of one report.
        position_column: column of ``labels.csv`` with the finding's place.
    """

    generalists: tuple[str, ...]
    template: str = "guided"
    drafts: int = 1
    agreement: int = 1
    keep: int = 1
    seed: int = 0
    temperature: float = 0.0
    split: Split = "train"
    limit: int | None = None
    max_new_tokens: int = 192
    position_column: str | None = None

    def __post_init__(self) -> None:
        check_template(self.template)
        voices = len(set(self.generalists)) if len(self.generalists) > 1 else self.drafts
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature:g}", remedy="0 is greedy; 0.7 is usual.")
        if not self.generalists:
            raise UserError("no generator", remedy="Name one: --generalist nano.")
        if len(set(self.generalists)) < len(self.generalists):
            raise UserError("a generator is named twice", remedy="Use --drafts for several drafts of one.")
        if not 1 <= self.agreement <= voices:
            raise UserError(
                f"agreement of {self.agreement} among {voices} cannot be reached",
                remedy="Name more generators, ask for more --drafts, or lower --agreement.",
            )


@dataclass(frozen=True, slots=True)
class Subject:
    """An image to be reported, with what is told and known of it."""

    case: Case
    told: Told
    known: Known


def subjects(dataset: Dataset, settings: Settings) -> tuple[list[Subject], Vocabulary, int]:
    """The images of a round, the words of the task, and how many cases were left out for want of a label.

    Raises:
        DatasetError: the data are no diagnosis task, or no case of the split has a label.
    """
    if dataset.task.kind != "diagnosis" or not dataset.task.options:
        raise DatasetError(
            f"is a {dataset.task.kind!r} task; bootstrapping needs labels",
            where=str(dataset.root),
            remedy="Give a dataset with labels.csv, or task=diagnosis.",
        )
    task, multi = dataset.task, dataset.task.multi_label
    words = vocabulary(task)
    if multi and not any(option.normal for option in words.options):
        task = Task(task.kind, task.modality, (*task.options, _NOTHING), True)
        words = vocabulary(task)
    normal = next((option.key for option in words.options if option.normal), None)
    columns = (settings.position_column,) if settings.position_column else POSITION_COLUMNS
    out, unlabelled = [], 0
    for case in dataset.split(settings.split):
        labels = case.labels or ((normal,) if multi and normal else ())
        if not labels:
            unlabelled += 1
            continue
        terms = [words.of(key) for key in labels]
        place = next((case.extra[c] for c in columns if case.extra.get(c)), "")
        here = {labels[0]: place} if place and len(labels) == 1 and not terms[0].normal else {}
        told = Told(
            task.modality,
            tuple(term.name for term in terms),
            {words.of(key).name: where for key, where in here.items()},
            all(term.normal for term in terms),
        )
        out.append(Subject(case, told, Known(tuple(labels), here)))
    if not out:
        raise DatasetError(f"has no labelled {settings.split} case", where=str(dataset.root))
    return _limited(out, settings.limit), words, unlabelled


def _limited(found: list[Subject], limit: int | None) -> list[Subject]:
    """The first `limit` cases in turn of their labels, in their old order."""
    if limit is None or limit >= len(found):
        return found
    queues: dict[tuple[str, ...], list[int]] = {}
    for place, subject in enumerate(found):
        queues.setdefault(subject.known.labels, []).append(place)
    taken: list[int] = []
    while len(taken) < limit:
        for queue in queues.values():
            if queue and len(taken) < limit:
                taken.append(queue.pop(0))
    return [found[place] for place in sorted(taken)]


def bootstrap(
    dataset: Dataset,
    settings: Settings,
    out: Path,
    *,
    load: Callable[[str], Generalist],
    number: int = 1,
    progress: Reporter | None = None,
) -> dict[str, Any]:
    """Make or continue one round, and write the records of all rounds.

    Killed at any moment, the same call continues: drafts that stand in the log are not asked for again, and
    batches are formed by position.

    Args:
        dataset: labelled images.
        settings: of this round.
        out: the training file, ``.jsonl``; the rounds stand beside it.
        load: from a generator's name to a generalist; one is loaded at a time.
        number: of the round, from 1; a round needs the one before it.
        progress: where progress goes.

    Returns:
        The round's statistics.

    Raises:
        RunError: the round exists with other settings or data, a generator changed on the way, or the round
            before is missing.
        DatasetError: see `subjects`.
    """
    progress = progress or Silent()
    if out.suffix != ".jsonl":
        raise UserError(
            f"{out.name} is no .jsonl file", where="--out", remedy="Name it boot.jsonl, for example."
        )
    rounds = out.with_suffix(".rounds")
    if number < 1 or (number > 1 and not (rounds / f"round-{number - 1:02d}" / "statistics.json").is_file()):
        raise RunError(
            f"there is no finished round {number - 1}",
            where=str(rounds),
            remedy=f"Make round {max(1, number - 1)} first.",
        )
    found, words, unlabelled = subjects(dataset, settings)
    folder = RunFolder(rounds / f"round-{number:02d}")
    with folder.locked():
        _settle(folder, dataset, settings, found, number)
        lines = _draft(folder, settings, found, load, progress)
        seen = Seen()
        for earlier in range(1, number):
            for record in read_conversations(rounds / f"round-{earlier:02d}" / "accepted.jsonl"):
                seen.add(record["conversations"][1]["value"], record["case_id"])
        by_id = {subject.case.id: subject for subject in found}
        with progress.stage("judging drafts", len(lines)) as step:
            verdicts = select(
                lines,
                {case_id: subject.known for case_id, subject in by_id.items()},
                words,
                agreement=settings.agreement,
                keep=settings.keep,
                seen=seen,
                progress=step,
            )
        statistics = {
            "schema": 1,
            "dataset": dataset.name,
            "round": number,
            "unlabelled": unlabelled,
            **summarise(verdicts, by_id, words),
        }
        records = [
            _record(
                verdict, by_id[verdict.draft["case_id"]], dataset, settings, number, folder.path / "images"
            )
            for verdict in verdicts
            if verdict.outcome == "accepted"
        ]
        write_conversations(folder.path / "accepted.jsonl", records)
        rejected = [
            _rejected(verdict, by_id[verdict.draft["case_id"]])
            for verdict in verdicts
            if verdict.outcome != "accepted"
        ]
        write_atomic(
            folder.path / "rejected.jsonl",
            "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in rejected),
        )
        from gsco.bootstrapping.page import render_page

        with progress.stage("drawing the page"):
            page = render_page(statistics, verdicts, by_id, asdict(settings), dataset, words)
            write_atomic(folder.path / "page.html", page)
        folder.write_json("statistics.json", statistics)
        _merge(rounds, out)
    return statistics


def _settle(
    folder: RunFolder, dataset: Dataset, settings: Settings, found: Sequence[Subject], number: int
) -> None:
    """Write what the round is made with, or check that it is the same."""
    told = [(s.case.id, str(s.case.image), s.known.labels, sorted(s.known.positions.items())) for s in found]
    asked = [_prompt(s, v, settings) for s in found for v in range(settings.drafts)]
    config = {
        "schema": 1,
        "round": number,
        "dataset": dataset.name,
        "cases": len(found),
        "told": _mark(told),
        "prompts": _mark(asked),  # their wording may change with the version of this package
        **json.loads(json.dumps(asdict(settings))),
    }
    before = folder.read_json("config.json")
    if before is None:
        folder.write_json("config.json", config)
        return
    changed = sorted(key for key in {*config, *before} if config.get(key) != before.get(key))
    if changed:
        raise RunError(
            f"was begun with other {', '.join(changed)}",
            where=str(folder.path),
            remedy="Give the same options to continue, make the next --round, or name another --out.",
        )


def _mark(what: Any) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _prompt(subject: Subject, variant: int, settings: Settings) -> str:
    return make_prompt(
        settings.template, subject.told, case_id=subject.case.id, variant=variant, seed=settings.seed
    )


def _sampling(subject: Subject, variant: int, settings: Settings) -> Sampling | None:
    if not settings.temperature:
        return None
    rng = random.Random(f"{settings.seed}:draft:{variant}:{subject.case.id}")
    return Sampling(settings.temperature, rng.getrandbits(31))


def _draft(
    folder: RunFolder,
    settings: Settings,
    found: Sequence[Subject],
    load: Callable[[str], Generalist],
    progress: Reporter,
) -> list[dict[str, Any]]:
    """All drafts, in order of case, generator and variant; those that stand in the log are not made again.

    Raises:
        ModelError: some have no answer, though they were tried again; all others stand in the log.
    """
    log = folder.path / "drafts.jsonl"
    lines = folder.recover_log(log, ("case_id", "draft"))
    done = {(line["case_id"], line["draft"]) for line in lines}
    failed: list[str] = []
    for place, spec in enumerate(settings.generalists):
        wanted = [(subject, variant) for subject in found for variant in range(settings.drafts)]
        if all((s.case.id, f"{place}.{v}") in done for s, v in wanted):
            continue
        generalist = load(spec)
        others = {line["fingerprint"] for line in lines if line["draft"].startswith(f"{place}.")}
        if others - {generalist.fingerprint}:
            raise RunError(
                f"{spec} is not the generator that the round was begun with",
                where=str(folder.path),
                remedy="Make the next --round with it, or name another --out.",
            )
        with progress.stage(f"asking {generalist.name}", len(wanted)) as step:
            for start in range(0, len(wanted), BATCH):
                batch = wanted[start : start + BATCH]
                missing = [(s, v) for s, v in batch if (s.case.id, f"{place}.{v}") not in done]
                if missing:
                    made, reasons = _ask(generalist, spec, place, missing, settings, folder, log)
                    lines += made
                    failed += reasons
                step(start + len(batch))
        del generalist
    if failed:
        raise ModelError(
            f"{len(failed)} drafts have no answer ({failed[0]})",
            where=str(folder.path),
            remedy="Give the same command again: it asks for these alone.",
        )
    order = {subject.case.id: place for place, subject in enumerate(found)}
    return sorted(
        lines, key=lambda line: (order[line["case_id"]], [int(part) for part in line["draft"].split(".")])
    )


def _ask(
    generalist: Generalist,
    spec: str,
    place: int,
    batch: Sequence[tuple[Subject, int]],
    settings: Settings,
    folder: RunFolder,
    log: Path,
) -> tuple[list[dict[str, Any]], list[str]]:
    """The drafts of a batch, which are in the log by then, and why others have no answer."""
    prompts = [_prompt(subject, variant, settings) for subject, variant in batch]
    requests = [
        Request(prompt, subject.case.image, sampling=_sampling(subject, variant, settings))
        for prompt, (subject, variant) in zip(prompts, batch, strict=True)
    ]
    texts: Sequence[str | None]
    reasons: Sequence[str | None] = []
    try:
        texts = generalist.generate(requests, max_new_tokens=settings.max_new_tokens)
    except RequestsFailedError as error:
        texts, reasons = error.results, error.reasons
    made = [
        {
            "case_id": subject.case.id,
            "draft": f"{place}.{variant}",
            "generator": spec,
            "fingerprint": generalist.fingerprint,
            "template": settings.template,
            "variant": variant,
            "seed": settings.seed,
            "temperature": settings.temperature,
            "prompt": prompt,
            "raw": text,
        }
        for (subject, variant), prompt, text in zip(batch, prompts, texts, strict=True)
        if text is not None
    ]
    folder.append(made, log)
    return made, [reason for reason in reasons if reason]


def _trace(verdict: Verdict, number: int) -> dict[str, Any]:
    keys = ("generator", "fingerprint", "template", "variant", "seed", "temperature", "prompt")
    return {"round": number, **{key: verdict.draft[key] for key in keys}}


def _record(
    verdict: Verdict, subject: Subject, dataset: Dataset, settings: Settings, number: int, images: Path
) -> dict[str, Any]:
    """An accepted report in training format; its question tells no label."""
    case = subject.case
    question = pupil_question(subject.told.modality, case_id=case.id, seed=settings.seed)
    return {
        "id": f"{dataset.name}:{case.id}#{number}.{verdict.draft['draft']}",
        "kind": "report",
        "source": dataset.name,
        "case_id": case.id,
        "image": str(file_of(case.image, images)),
        "split": case.split,
        "group": hashlib.sha256(case.cluster.encode()).hexdigest()[:16],
        "conversations": [
            {"from": "human", "value": f"{IMAGE_TAG}\n{question}"},
            {"from": "gpt", "value": verdict.report.text},
        ],
        "labels": list(subject.known.labels),
        "bootstrap": _trace(verdict, number),
    }


def _rejected(verdict: Verdict, subject: Subject) -> dict[str, Any]:
    return {
        **verdict.draft,
        "labels": list(subject.known.labels),
        "outcome": verdict.outcome,
        "reasons": [{"code": reason.code, "detail": reason.detail} for reason in verdict.reasons],
    }


def summarise(
    verdicts: Sequence[Verdict], subjects: Mapping[str, Subject], words: Vocabulary
) -> dict[str, Any]:
    """Counts by outcome, reason, generator and label."""
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    images = {verdict.draft["case_id"] for verdict in verdicts if verdict.outcome == "accepted"}
    generators: dict[str, Counter[str]] = {}
    labels: dict[str, Counter[str]] = {}
    for subject in subjects.values():
        for key in subject.known.labels:
            labels.setdefault(words.of(key).name, Counter())["images"] += 1
            labels[words.of(key).name]["reported"] += subject.case.id in images
    for verdict in verdicts:
        generators.setdefault(verdict.draft["generator"], Counter())[verdict.outcome] += 1
    reasons = Counter(code for v in verdicts for code in {reason.code for reason in v.reasons})
    return {
        "images": len(subjects),
        "reported": len(images),
        "drafts": len(verdicts),
        **{outcome: outcomes[outcome] for outcome in ("accepted", "spare", "rejected")},
        "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        "generators": {
            name: {o: counts[o] for o in ("accepted", "spare", "rejected")}
            for name, counts in generators.items()
        },
        "labels": {name: dict(counts) for name, counts in labels.items()},
    }


def _merge(rounds: Path, out: Path) -> None:
    """Records of all rounds: of each image those of its latest round that has any."""
    latest: dict[str, list[dict[str, Any]]] = {}
    for folder in sorted(rounds.glob("round-*")):
        path = folder / "accepted.jsonl"
        if not path.is_file() or not path.stat().st_size:
            continue
        mine: dict[str, list[dict[str, Any]]] = {}
        for record in read_conversations(path):
            mine.setdefault(record["case_id"], []).append(record)
        latest |= mine
    write_conversations(out, [record for case_id in sorted(latest) for record in latest[case_id]])
