"""One round of bootstrapping on disk: prompts, drafts, verdicts, records, statistics and a page.

``boot.jsonl`` has its rounds beside it::

    boot.jsonl                    accepted records of all rounds, in training format
    boot.rounds/round-01/         config.json, leakage.json, drafts.jsonl, accepted.jsonl, rejected.jsonl,
                                  statistics.json, page.html
    boot.rounds/round-02/         the same, by a generator that learnt from the first round
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gsco.bootstrapping.copies import copies_of_later_splits
from gsco.bootstrapping.drafting import draft_prompt, write_drafts
from gsco.bootstrapping.duplicates import Seen
from gsco.bootstrapping.selection import Verdict, select
from gsco.bootstrapping.subjects import Settings, Subject, subjects
from gsco.bootstrapping.vocabulary import Vocabulary
from gsco.cases.case import Dataset
from gsco.cases.conversations import IMAGE_TAG, read_conversations, write_conversations
from gsco.cases.reports import report_question
from gsco.disk import write_atomic
from gsco.errors import RunError, UserError, counted
from gsco.evaluation.progress import Reporter, Silent
from gsco.evaluation.runfolder import RunFolder
from gsco.generalist import Generalist
from gsco.generalist.records import file_of


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
    found, words, unlabelled = subjects(dataset, settings)  # what cannot be made is told before a folder is
    folder = RunFolder(rounds / f"round-{number:02d}")
    with folder.locked():
        left_out: frozenset[str] = frozenset()
        if not settings.keep_copies:
            left_out = copies_of_later_splits(folder, dataset, settings.split, progress)
            found, words, unlabelled = subjects(dataset, settings, without=left_out)
            if left_out:
                progress.note(
                    f"{counted(len(left_out), f'{settings.split} image')} left out, (near) copies of those "
                    "of later splits (leakage.json; --keep-copies lets them pass)"
                )
        _settle(folder, dataset, settings, found, number)
        lines = write_drafts(folder, settings, found, load, progress)
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
            "copies_left_out": len(left_out),
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
    asked = [draft_prompt(s, v, settings) for s in found for v in range(settings.drafts)]
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


def _trace(verdict: Verdict, number: int) -> dict[str, Any]:
    keys = ("generator", "fingerprint", "template", "variant", "seed", "temperature", "prompt")
    return {"round": number, **{key: verdict.draft[key] for key in keys}}


def _record(
    verdict: Verdict, subject: Subject, dataset: Dataset, settings: Settings, number: int, images: Path
) -> dict[str, Any]:
    """An accepted report in training format; its question tells no label."""
    case = subject.case
    question = report_question(subject.told.modality, case_id=case.id, seed=settings.seed)
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
