"""Training records for a generalist, in InternVL conversation form, made from datasets.

Nine kinds of record, mixed as a stage of the recipe says (`Shares`):

``see``      a training case without evidence: learn to look
``hear``     a training case with evidence (out-of-fold where given, else simulated): learn when to trust it;
             never one that is shown in a ``see`` record (`held_back`)
``doubt``    a training case whose specialists agree, are sure and have the reliability of chance: learn to
             look all the same; cases as in ``hear``
``foreign``  an invented label set with simulated evidence, with a foreign image or none: learn to read
             evidence about names never met; now and then one able specialist is wrong and sure, or
             (`wavering`) the evidence wavers; or (`familiar`) so about the options of a known set, unseen
``blank``    an invented label set without evidence, with a foreign image or none, and any option as the
             answer: learn to like no name where nothing is known; or (`bare`) the options of a known set
             without an image
``ask``      closed questions of a VQA dataset
``confirm``  a training case without evidence, and one of its options: is it that, yes or no
``report``   a training image and its own report, asked for without a hint: learn to say what is there
``given``    a record from a file, as it stands: reports of `gsco bootstrap`, for example; like
             those of ``report``, none about a case that is heard about

Options come in random order under varied names. Evidence about a training case must be out-of-fold: a
specialist never speaks about an image it was trained on, or the generalist would learn to copy it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case, Dataset
from gsco.cases.reports import parse_report, report_question
from gsco.collaboration.arms import restrict
from gsco.collaboration.evidence import Evidence
from gsco.collaboration.templates import ask_closed
from gsco.errors import DatasetError
from gsco.generalist.records import Record
from gsco.teaching.held_back import held_back
from gsco.teaching.invented_sets import bare_record, familiar_record, foreign_record
from gsco.teaching.shares import Shares
from gsco.teaching.simulate import simulate_bluff, simulate_evidence
from gsco.teaching.varied import ArmDraw, permuted, renamed, render

T = TypeVar("T")
_CONFIRM = ("Does this image show {}?", "Is this {}?", "Is the answer here {}?", "Would you call this {}?")


def _balanced(rng: np.random.Generator, cases: Sequence[Case]) -> Iterator[Case]:
    """Cases without end, every label equally often, each label's cases reshuffled at every pass."""
    by_label: dict[str, list[Case]] = {}
    for case in cases:
        if case.label is not None:
            by_label.setdefault(case.label, []).append(case)
    streams = [_endless(rng, group) for _, group in sorted(by_label.items())]
    while streams:
        for i in rng.permutation(len(streams)):
            yield next(streams[i])


def _endless(rng: np.random.Generator, items: Sequence[T]) -> Iterator[T]:
    """Cases or records without end, reshuffled at every pass."""
    while items:
        for i in rng.permutation(len(items)):
            yield items[i]


def make_records(
    datasets: Sequence[Dataset],
    *,
    n: int,
    seed: int = 0,
    evidence: Mapping[str, Mapping[str, Evidence]] | None = None,
    weights: Sequence[float] | None = None,
    shares: Shares | None = None,
    given: Sequence[tuple[float, Sequence[Record]]] = (),
) -> list[Record]:
    """Draw `n` records from the training splits of `datasets`.

    Args:
        datasets: closed single-label diagnosis datasets, VQA datasets, and datasets of reports in two parts.
        n: number of records.
        seed: the same seed gives the same records.
        evidence: out-of-fold evidence, dataset name -> case id -> evidence; simulated where there is none.
        weights: how often each dataset is drawn among those of its kind (default 1 each).
        shares: how often what is drawn.
        given: files of records of kind ``given``, and how often each is drawn among them.
    """
    rng = np.random.default_rng(seed)
    shares = shares or Shares()
    weighed = list(zip(datasets, [1.0] * len(datasets) if weights is None else weights, strict=True))
    known = [d for d, _ in weighed if d.task.kind == "diagnosis"]
    if not known:
        raise ValueError("at least one diagnosis dataset is needed")
    of_dataset = _normalised([weight for d, weight in weighed if d.task.kind == "diagnosis"])
    looked, heard, held = {}, {}, set[Path]()
    for d in known:
        to_look, to_hear = held_back([case for case in d.split("train") if case.label is not None])
        held |= {case.image.path.resolve() for case in to_hear if case.image.key is None}
        looked[d.name] = _balanced(rng, to_look)
        heard[d.name] = _endless(rng, to_hear) if shares.natural else _balanced(rng, to_hear)
    questions = [
        (weight, d.name, closed)
        for d, weight in weighed
        if d.task.kind == "vqa" and (closed := [c for c in d.split("train") if _closed(c)])
    ]
    of_question = _normalised([weight for weight, _, _ in questions])
    kinds = dict(shares.mixture)
    if not questions:
        kinds.pop("ask", None)
    reports = [
        (weight, _endless(rng, kept))
        for d, weight in weighed
        if d.task.kind == "report" and (kept := _shown(_reports(d, seed), held))
    ]
    if not reports:
        kinds.pop("report", None)
    of_reports = _normalised([weight for weight, _ in reports])
    files = [(weight, _endless(rng, kept)) for weight, found in given if (kept := _shown(found, held))]
    if not files:
        kinds.pop("given", None)
    of_file = _normalised([weight for weight, _ in files])
    names = list(kinds)
    hearing = ArmDraw(shares.arms)
    of_kind = np.asarray([kinds[k] for k in names]) / sum(kinds.values())
    out = []
    for i in range(n):
        kind = str(rng.choice(names, p=of_kind))
        identity = f"{kind}-{i:06d}"
        if kind == "ask":
            _, source, closed = questions[int(rng.choice(len(questions), p=of_question))]
            out.append(_ask(rng, identity, source, closed[int(rng.integers(len(closed)))]))
            continue
        if kind in ("given", "report"):
            drawn, of_drawn = (files, of_file) if kind == "given" else (reports, of_reports)
            _, records = drawn[int(rng.choice(len(drawn), p=of_drawn))]
            out.append(replace(next(records), id=identity, kind=kind))
            continue
        dataset = known[int(rng.choice(len(known), p=of_dataset))]
        case = next((heard if kind in ("hear", "doubt") else looked)[dataset.name], None)
        if case is None:
            raise DatasetError(
                f"has no training case for records of kind {kind!r}",
                where=str(dataset.root),
                remedy="It needs labelled training cases of at least two patients or groups a label.",
            )
        if kind == "blank" and shares.bare and rng.random() < shares.bare:
            out.append(bare_record(rng, identity, dataset.task))
        elif kind == "foreign" and shares.familiar and rng.random() < shares.familiar:
            out.append(familiar_record(rng, identity, dataset.task, hearing))
        elif kind in ("foreign", "blank"):
            arms_of_kind = hearing if kind == "foreign" else None
            out.append(foreign_record(rng, identity, kind, dataset.name, case, arms_of_kind, shares.wavering))
        elif kind == "confirm":
            out.append(_confirm(rng, identity, dataset, case))
        else:
            found = Evidence()
            if kind == "hear":
                stored = (evidence or {}).get(dataset.name, {}).get(case.id)
                found = _heard(rng, dataset, case, stored, shares.real)
                found = restrict(found, hearing.draw(rng))
            elif kind == "doubt":
                found = Evidence(simulate_bluff(rng, len(dataset.task.options), int(rng.integers(2, 6))))
            made = _known(rng, identity, kind, dataset, case, found)
            if kind == "hear" and shares.blind and rng.random() < shares.blind:
                made = replace(made, image=None)
            out.append(made)
    return out


def _shown(records: Sequence[Record], held: Collection[Path]) -> list[Record]:
    """Those that are about no image that is held back."""
    return [r for r in records if r.image is None or r.image.path.resolve() not in held]


def _reports(dataset: Dataset, seed: int) -> list[Record]:
    """A record of each training case whose report has both parts."""
    out = []
    for case in dataset.split("train"):
        report = parse_report(case.report or "")
        if report.whole:
            question = report_question(dataset.task.modality, case_id=case.id, seed=seed)
            out.append(Record(case.id, "report", dataset.name, case.image, question, report.text))
    return out


def _heard(
    rng: np.random.Generator, dataset: Dataset, case: Case, stored: Evidence | None, real: float
) -> Evidence:
    if stored is not None and rng.random() < real:
        return _thinned(rng, stored)
    return simulate_evidence(rng, dataset.targets([case])[0], dataset.task.keys)


def _known(
    rng: np.random.Generator, identity: str, kind: str, dataset: Dataset, case: Case, found: Evidence
) -> Record:
    task = dataset.task
    truth = int(dataset.targets([case])[0])
    order = [int(i) for i in rng.permutation(len(task.options))]
    # One option fewer now and then; not where the reliability that is stated is the chance of all of them.
    if len(order) > 2 and kind != "doubt" and rng.random() < 0.2:
        order.remove(int(rng.choice([i for i in order if i != truth])))
    shown, found = permuted(task, found, order)
    shown = renamed(rng, shown)
    prompt = render(rng, shown, found)
    return Record(identity, kind, dataset.name, case.image, prompt.text, prompt.choices[order.index(truth)])


def _thinned(rng: np.random.Generator, stored: Evidence) -> Evidence:
    """A random part of the specialists, in random order, and of the neighbours."""
    order = rng.permutation(len(stored.opinions))
    keep = order[: int(rng.integers(max(1, len(order) - 2), len(order) + 1))]
    k = min(len(stored.neighbours), int(rng.choice([3, 5, 10], p=[0.15, 0.25, 0.6])))
    opinions = tuple(stored.opinions[i] for i in keep)
    return Evidence(opinions, stored.neighbours[:k], stored.neighbour_reliability)


def _closed(case: Case) -> bool:
    return (case.answer or "").strip().lower() in ("yes", "no")


def _ask(rng: np.random.Generator, identity: str, source: str, case: Case) -> Record:
    prompt = ask_closed(case.question or "", _yes_and_no(rng))
    answer = (case.answer or "").strip().lower()
    return Record(identity, "ask", source, case.image, prompt.text, answer)


def _confirm(rng: np.random.Generator, identity: str, dataset: Dataset, case: Case) -> Record:
    task = renamed(rng, dataset.task)
    truth = int(dataset.targets([case])[0])
    others = [i for i in range(len(task.options)) if i != truth]
    right = rng.random() < 0.5
    name = task.options[truth if right else int(rng.choice(others))].name
    prompt = ask_closed(str(rng.choice(_CONFIRM)).format(name), _yes_and_no(rng))
    return Record(identity, "confirm", dataset.name, case.image, prompt.text, "yes" if right else "no")


def _yes_and_no(rng: np.random.Generator) -> tuple[str, str]:
    return ("yes", "no") if rng.random() < 0.5 else ("no", "yes")


def _normalised(weights: Sequence[float]) -> NDArray[np.float64]:
    found = np.asarray(weights, dtype=np.float64)
    return np.asarray(found / found.sum())
