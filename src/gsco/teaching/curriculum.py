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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from gsco.cases import Case, Dataset, ImageRef
from gsco.cases.reports import parse_report, report_question
from gsco.collaboration.arms import restrict
from gsco.collaboration.evidence import Evidence
from gsco.collaboration.templates import ask_closed
from gsco.errors import DatasetError, UserError
from gsco.generalist.records import Record
from gsco.teaching.copies import not_about, place
from gsco.teaching.held_back import held_back
from gsco.teaching.invented_sets import bare_record, blank_record, familiar_record, foreign_record
from gsco.teaching.shares import Shares
from gsco.teaching.simulate import simulate_bluff, simulate_evidence
from gsco.teaching.streams import ByWeight, balanced, endless, independent
from gsco.teaching.varied import permuted, renamed, render

_CONFIRM = ("Does this image show {}?", "Is this {}?", "Is the answer here {}?", "Would you call this {}?")


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

    A kind of record that nothing here can make (``ask`` without a VQA dataset, ``report`` and ``given``
    likewise) is left out of the mixture.

    Args:
        datasets: closed single-label diagnosis datasets, VQA datasets, and datasets of reports in two parts.
        n: number of records.
        seed: the same seed gives the same records.
        evidence: out-of-fold evidence, dataset name -> case id -> evidence; simulated where there is none.
        weights: how often each dataset is drawn among those of its kind (default 1 each).
        shares: how often what is drawn.
        given: files of records of kind ``given``, and how often each is drawn among them.

    Raises:
        UserError: there is no diagnosis dataset, or nothing of the mixture can be made.
        DatasetError: a diagnosis dataset is drawn that has no training case for this kind of record.
    """
    shares = shares or Shares()
    weighed = list(zip([1.0] * len(datasets) if weights is None else weights, datasets, strict=True))
    maker = _Maker(np.random.default_rng(seed), weighed, given, evidence or {}, shares, seed)
    makers = maker.by_kind()
    kinds = {kind: share for kind, share in shares.mixture.items() if kind in makers}
    if not kinds:
        raise UserError(
            f"no record of the mixture ({', '.join(shares.mixture)}) can be made of these sources",
            remedy=f"Add a source for it, or one of {', '.join(makers)}.",
        )
    kind_of = ByWeight([(share, kind) for kind, share in kinds.items()])
    out = []
    for i in range(n):
        kind = kind_of.draw(maker.rng)
        out.append(makers[kind](f"{kind}-{i:06d}"))
    return out


class _Maker:
    """Draws what a record is about, and makes it: a method for each kind of record."""

    def __init__(
        self,
        rng: np.random.Generator,
        weighed: Sequence[tuple[float, Dataset]],
        given: Sequence[tuple[float, Sequence[Record]]],
        evidence: Mapping[str, Mapping[str, Evidence]],
        shares: Shares,
        seed: int,
    ) -> None:
        self.rng, self._shares, self._evidence = rng, shares, evidence
        self._hearing = ByWeight([(share, arm) for arm, share in shares.arms.items()])
        known = [(weight, d) for weight, d in weighed if d.task.kind == "diagnosis"]
        if not known:
            raise UserError(
                "none of the sources is a dataset with labels",
                remedy="Add one to diagnose, a folder with labels.csv for example.",
            )
        self._known = ByWeight(known)
        self._looked: dict[str, Iterator[Case]] = {}
        self._heard: dict[str, Iterator[Case]] = {}
        held = set[ImageRef]()
        for _, d in known:
            to_look, to_hear = held_back([case for case in d.split("train") if case.label is not None])
            held |= {place(case.image) for case in to_hear}
            self._looked[d.name] = balanced(rng, to_look)
            self._heard[d.name] = endless(rng, to_hear) if shares.natural else balanced(rng, to_hear)
        asked = [(w, d, _closed(d)) for w, d in weighed if d.task.kind == "vqa"]
        self._questions = ByWeight([(w, (d.name, independent(rng, cases))) for w, d, cases in asked if cases])
        told = [(w, not_about(_reports(d, seed), held)) for w, d in weighed if d.task.kind == "report"]
        self._reports = ByWeight([(w, endless(rng, records)) for w, records in told if records])
        kept = [(w, not_about(records, held)) for w, records in given]
        self._given = ByWeight([(w, endless(rng, records)) for w, records in kept if records])

    def by_kind(self) -> dict[str, Callable[[str], Record]]:
        """What makes a record of each kind that can be made here, given the record's id."""
        makers: dict[str, Callable[[str], Record]] = {
            "see": self._see,
            "hear": self._hear,
            "doubt": self._doubt,
            "foreign": self._foreign,
            "blank": self._blank,
            "confirm": self._confirm,
        }
        if self._questions:
            makers["ask"] = self._ask
        if self._reports:
            makers["report"] = self._report
        if self._given:
            makers["given"] = self._from_file
        return makers

    def _case(self, kind: str, streams: Mapping[str, Iterator[Case]]) -> tuple[Dataset, Case]:
        dataset = self._known.draw(self.rng)
        case = next(streams[dataset.name], None)
        if case is None:
            raise DatasetError(
                f"has no training case for records of kind {kind!r}",
                where=str(dataset.root),
                remedy="It needs labelled training cases of at least two patients or groups a label.",
            )
        return dataset, case

    def _chance(self, share: float) -> bool:
        return share > 0 and self.rng.random() < share

    def _see(self, identity: str) -> Record:
        dataset, case = self._case("see", self._looked)
        return _known(self.rng, identity, "see", dataset, case, Evidence())

    def _hear(self, identity: str) -> Record:
        dataset, case = self._case("hear", self._heard)
        stored = self._evidence.get(dataset.name, {}).get(case.id)
        found = _heard(self.rng, dataset, case, stored, self._shares.real)
        found = restrict(found, self._hearing.draw(self.rng))
        made = _known(self.rng, identity, "hear", dataset, case, found)
        return replace(made, image=None) if self._chance(self._shares.blind) else made

    def _doubt(self, identity: str) -> Record:
        dataset, case = self._case("doubt", self._heard)
        found = Evidence(simulate_bluff(self.rng, len(dataset.task.options), int(self.rng.integers(2, 6))))
        return _known(self.rng, identity, "doubt", dataset, case, found)

    def _foreign(self, identity: str) -> Record:
        dataset, case = self._case("foreign", self._looked)
        if self._chance(self._shares.familiar):
            return familiar_record(self.rng, identity, dataset.task, self._hearing)
        wavering = self._shares.wavering
        return foreign_record(self.rng, identity, dataset.name, case, self._hearing, wavering)

    def _blank(self, identity: str) -> Record:
        dataset, case = self._case("blank", self._looked)
        if self._chance(self._shares.bare):
            return bare_record(self.rng, identity, dataset.task)
        return blank_record(self.rng, identity, dataset.name, case)

    def _confirm(self, identity: str) -> Record:
        dataset, case = self._case("confirm", self._looked)
        return _confirm(self.rng, identity, dataset, case)

    def _ask(self, identity: str) -> Record:
        source, cases = self._questions.draw(self.rng)
        return _ask(self.rng, identity, source, next(cases))

    def _report(self, identity: str) -> Record:
        return replace(next(self._reports.draw(self.rng)), id=identity)

    def _from_file(self, identity: str) -> Record:
        return replace(next(self._given.draw(self.rng)), id=identity, kind="given")


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


def _closed(dataset: Dataset) -> list[Case]:
    """The training questions whose answer is yes or no."""
    return [case for case in dataset.split("train") if _answer(case) in ("yes", "no")]


def _answer(case: Case) -> str:
    return (case.answer or "").strip().lower()


def _ask(rng: np.random.Generator, identity: str, source: str, case: Case) -> Record:
    prompt = ask_closed(case.question or "", _yes_and_no(rng))
    return Record(identity, "ask", source, case.image, prompt.text, _answer(case))


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
