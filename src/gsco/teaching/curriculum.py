"""Training records for a generalist, in InternVL conversation form, made from datasets.

Six kinds of record, mixed by `MIXTURE` or as a stage of the recipe says:

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

Options come in random order under varied names. Evidence about a training case must be out-of-fold: a
specialist never speaks about an image it was trained on, or the generalist would learn to copy it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from gsco.cases import Case, Dataset, Option, Task
from gsco.collaboration.arms import restrict
from gsco.collaboration.evidence import Evidence
from gsco.collaboration.templates import TEMPLATES, Prompt
from gsco.errors import DatasetError
from gsco.generalist.records import Record
from gsco.teaching.held_back import held_back
from gsco.teaching.invented_names import meaningless_names, mixed_names, one_noun, one_quality, one_stem
from gsco.teaching.simulate import simulate_bluff, simulate_evidence, with_dissenter
from gsco.teaching.vocabulary import CODES, SYNONYMS, TERMS

KINDS = ("see", "hear", "doubt", "foreign", "blank", "ask")
MIXTURE: dict[str, float] = {"see": 0.36, "hear": 0.3, "doubt": 0.04, "foreign": 0.27, "ask": 0.03}
ARMS: dict[str, float] = {"moed": 0.3, "rad": 0.3, "gsco": 0.4}
# Mostly the real one: simulated errors have nothing to do with the image, but real specialists stumble where
# the generalist stumbles, and it must not take its eye for a witness of its own.
REAL = 0.85
_CLOSE = 0.25  # how far the first option of wavering evidence is ahead of the second, at most
_TEMPLATES = {"evidence": 0.8, "paper": 0.12, "letters": 0.08}
_INVENTED = {
    "stem": one_stem,
    "quality": one_quality,
    "noun": one_noun,
    "mixed": mixed_names,
    "meaningless": meaningless_names,
}
_FOREIGN_NAMES = {
    "field": 0.36, "fields": 0.08, "code": 0.08,
    "stem": 0.1, "quality": 0.07, "noun": 0.07, "mixed": 0.14, "meaningless": 0.1,
}  # fmt: skip


class _Arms:
    """Which part of the evidence a record tells, drawn by weight."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._names = list(weights)
        self._p = np.asarray(list(weights.values())) / sum(weights.values())

    def draw(self, rng: np.random.Generator) -> str:
        return str(rng.choice(self._names, p=self._p))


def _permuted(task: Task, evidence: Evidence, order: Sequence[int]) -> tuple[Task, Evidence]:
    """The same with options kept and ordered as `order` says, probabilities renormalised."""
    options = tuple(task.options[i] for i in order)
    opinions = []
    for opinion in evidence.opinions:
        kept = np.asarray([opinion.probabilities[i] for i in order]) + 1e-6
        opinions.append(replace(opinion, probabilities=tuple((kept / kept.sum()).tolist())))
    keys = {option.key for option in options}
    neighbours = tuple(n for n in evidence.neighbours if set(n.labels) <= keys)
    reliability = evidence.neighbour_reliability
    return replace(task, options=options), Evidence(tuple(opinions), neighbours, reliability)


def _renamed(rng: np.random.Generator, task: Task) -> Task:
    """The same task with each option under one of its synonyms, never two alike."""
    names: list[str] = []
    for option in task.options:
        taken = {*names, *(other.name for other in task.options if other is not option)}
        known = [s for s in SYNONYMS.get(option.name.lower(), (option.name,)) if s not in taken]
        name = option.name if not known or rng.random() < 0.5 else str(rng.choice(known))
        names.append(name)
    options = tuple(Option(o.key, name) for o, name in zip(task.options, names, strict=True))
    return replace(task, options=options)


def _render(rng: np.random.Generator, task: Task, evidence: Evidence) -> Prompt:
    name = str(rng.choice(list(_TEMPLATES), p=list(_TEMPLATES.values())))
    return TEMPLATES[name].render(task, evidence)


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


def _endless(rng: np.random.Generator, cases: Sequence[Case]) -> Iterator[Case]:
    """Cases without end, reshuffled at every pass."""
    while cases:
        for i in rng.permutation(len(cases)):
            yield cases[i]


def _foreign_task(rng: np.random.Generator) -> Task:
    n = int(rng.choice([2, 3, 4, 5, 6, 7, 8], p=[0.16, 0.18, 0.15, 0.15, 0.12, 0.14, 0.1]))
    modality = str(rng.choice(sorted(TERMS)))
    style = str(rng.choice(list(_FOREIGN_NAMES), p=list(_FOREIGN_NAMES.values())))
    if style == "field":
        pool = TERMS[modality]
        names = [str(x) for x in rng.choice(pool, size=min(n, len(pool)), replace=False)]
    elif style == "fields":
        pool = tuple(itertools.chain.from_iterable(TERMS.values()))
        names = [str(x) for x in rng.choice(sorted(set(pool)), size=n, replace=False)]
    elif style == "code":
        word = str(rng.choice(CODES))
        marks = rng.choice(np.arange(1, 30), size=n, replace=False)
        names = [f"{word} {mark}" for mark in marks]
    else:
        names = _INVENTED[style](rng, n)
    return Task("diagnosis", modality, tuple(Option(name, name) for name in names))


def make_records(
    datasets: Sequence[Dataset],
    *,
    n: int,
    seed: int = 0,
    evidence: Mapping[str, Mapping[str, Evidence]] | None = None,
    weights: Mapping[str, float] | None = None,
    mixture: Mapping[str, float] | None = None,
    arms: Mapping[str, float] | None = None,
    real: float = REAL,
    natural: bool = False,
    bare: float = 0.0,
    blind: float = 0.0,
    wavering: float = 0.0,
    familiar: float = 0.0,
) -> list[Record]:
    """Draw `n` records from the training splits of `datasets`.

    Args:
        datasets: closed single-label diagnosis datasets, and VQA datasets.
        n: number of records.
        seed: the same seed gives the same records.
        evidence: out-of-fold evidence, dataset name -> case id -> evidence; simulated where there is none.
        weights: how often each dataset is drawn, by name (default 1 each).
        mixture: share of each kind of record (default `MIXTURE`).
        arms: share of each arm among records with evidence (default `ARMS`).
        real: how often evidence about a case that has out-of-fold evidence is that, and not simulated.
        natural: cases of ``hear`` and ``doubt`` come as often by label as in their dataset, so that what a
            specialist says is right as often as in use; otherwise every label equally often.
        bare: how often a ``blank`` record asks for the options of a dataset, without its image.
        blind: how often a ``hear`` record leaves its image out, so that what is said is all there is.
        wavering: how often the evidence of a ``foreign`` record speaks for its answer by a little only, so
            that liking a name would decide.
        familiar: how often a ``foreign`` record has the options of a dataset, no image, and such evidence.
    """
    rng = np.random.default_rng(seed)
    known = [d for d in datasets if d.task.kind == "diagnosis"]
    asked = [d for d in datasets if d.task.kind == "vqa"]
    if not known:
        raise ValueError("at least one diagnosis dataset is needed")
    share = np.asarray([(weights or {}).get(d.name, 1.0) for d in known])
    share = share / share.sum()
    looked, heard = {}, {}
    for d in known:
        to_look, to_hear = held_back([case for case in d.split("train") if case.label is not None])
        looked[d.name] = _balanced(rng, to_look)
        heard[d.name] = _endless(rng, to_hear) if natural else _balanced(rng, to_hear)
    questions = [(d, closed) for d in asked if (closed := [c for c in d.split("train") if _closed(c)])]
    kinds = dict(mixture or MIXTURE)
    if not questions:
        kinds.pop("ask", None)
    names = list(kinds)
    hearing = _Arms(arms or ARMS)
    p = np.asarray([kinds[k] for k in names]) / sum(kinds.values())
    out = []
    for i in range(n):
        kind = str(rng.choice(names, p=p))
        identity = f"{kind}-{i:06d}"
        if kind == "ask":
            dataset, closed = questions[int(rng.integers(len(questions)))]
            out.append(_ask(rng, identity, dataset, closed[int(rng.integers(len(closed)))]))
            continue
        dataset = known[int(rng.choice(len(known), p=share))]
        case = next((heard if kind in ("hear", "doubt") else looked)[dataset.name], None)
        if case is None:
            raise DatasetError(
                f"has no training case for records of kind {kind!r}",
                where=str(dataset.root),
                remedy="It needs labelled training cases of at least two patients or groups a label.",
            )
        if kind == "blank" and bare and rng.random() < bare:
            out.append(_bare(rng, identity, dataset.task))
        elif kind == "foreign" and familiar and rng.random() < familiar:
            out.append(_familiar(rng, identity, dataset.task, hearing))
        elif kind in ("foreign", "blank"):
            arms_of_kind = hearing if kind == "foreign" else None
            out.append(_foreign(rng, identity, kind, dataset.name, case, arms_of_kind, wavering))
        else:
            found = Evidence()
            if kind == "hear":
                stored = (evidence or {}).get(dataset.name, {}).get(case.id)
                found = _heard(rng, dataset, case, stored, real)
                found = restrict(found, hearing.draw(rng))
            elif kind == "doubt":
                found = Evidence(simulate_bluff(rng, len(dataset.task.options), int(rng.integers(2, 6))))
            made = _known(rng, identity, kind, dataset, case, found)
            if kind == "hear" and blind and rng.random() < blind:
                made = replace(made, image=None)
            out.append(made)
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
    shown, found = _permuted(task, found, order)
    shown = _renamed(rng, shown)
    prompt = _render(rng, shown, found)
    return Record(identity, kind, dataset.name, case.image, prompt.text, prompt.choices[order.index(truth)])


def _thinned(rng: np.random.Generator, stored: Evidence) -> Evidence:
    """A random part of the specialists, in random order, and of the neighbours."""
    order = rng.permutation(len(stored.opinions))
    keep = order[: int(rng.integers(max(1, len(order) - 2), len(order) + 1))]
    k = min(len(stored.neighbours), int(rng.choice([3, 5, 10], p=[0.15, 0.25, 0.6])))
    opinions = tuple(stored.opinions[i] for i in keep)
    return Evidence(opinions, stored.neighbours[:k], stored.neighbour_reliability)


def _foreign(
    rng: np.random.Generator,
    identity: str,
    kind: str,
    source: str,
    case: Case,
    arms: _Arms | None,
    wavering: float,
) -> Record:
    task = _foreign_task(rng)
    truth = int(rng.integers(len(task.options)))
    found = Evidence()
    if arms is not None:
        waver = wavering > 0 and rng.random() < wavering
        found = (_wavering if waver else _able)(rng, truth, task.keys, arms)
    prompt = _render(rng, task, found)
    with_image = rng.random() < 0.5
    return Record(
        identity,
        kind,
        source if with_image else "simulated",
        case.image if with_image else None,
        prompt.text,
        prompt.choices[truth],
    )


def _familiar(rng: np.random.Generator, identity: str, task: Task, arms: _Arms) -> Record:
    shown, _ = _permuted(task, Evidence(), [int(i) for i in rng.permutation(len(task.options))])
    truth = int(rng.integers(len(shown.options)))
    prompt = _render(rng, _renamed(rng, shown), _wavering(rng, truth, shown.keys, arms))
    return Record(identity, "foreign", "simulated", None, prompt.text, prompt.choices[truth])


def _wavering(rng: np.random.Generator, truth: int, keys: tuple[str, ...], arms: _Arms) -> Evidence:
    """Evidence whose first option is the true one, with the second close behind."""
    arm = arms.draw(rng)
    while True:
        found = restrict(simulate_evidence(rng, truth, keys), arm)
        if found.opinions:
            shares = np.mean([opinion.probabilities for opinion in found.opinions], axis=0)
        else:
            shares = np.asarray(found.neighbour_votes(keys)) / len(found.neighbours)
        second, first = np.sort(shares)[-2:]
        if shares[truth] == first and 0 < first - second < _CLOSE:
            return found


def _bare(rng: np.random.Generator, identity: str, task: Task) -> Record:
    shown, _ = _permuted(task, Evidence(), [int(i) for i in rng.permutation(len(task.options))])
    prompt = _render(rng, _renamed(rng, shown), Evidence())
    answer = prompt.choices[int(rng.integers(len(prompt.choices)))]
    return Record(identity, "blank", "simulated", None, prompt.text, answer)


def _able(rng: np.random.Generator, truth: int, keys: tuple[str, ...], arms: _Arms) -> Evidence:
    # More than half of them are clear, or the noise of hard ones hides what there is to learn: to read.
    clear = rng.random() < 0.55
    skill = (2.5, 6.0) if clear else (1.0, 5.0)
    quality = (0.65, 0.95) if clear else (0.25, 0.95)
    found = simulate_evidence(rng, truth, keys, skill=skill, quality=quality)
    found = restrict(found, arms.draw(rng))
    if clear and len(found.opinions) > 2 and rng.random() < 0.4:
        found = replace(found, opinions=with_dissenter(rng, found.opinions, truth))
    return found


def _closed(case: Case) -> bool:
    return (case.answer or "").strip().lower() in ("yes", "no")


def _ask(rng: np.random.Generator, identity: str, dataset: Dataset, case: Case) -> Record:
    options = ["yes", "no"] if rng.random() < 0.5 else ["no", "yes"]
    lines = [f"Question about this image: {case.question}", "Options:", *(f"- {o}" for o in options)]
    lines.append("Answer with one option.")
    answer = (case.answer or "").strip().lower()
    return Record(identity, "ask", dataset.name, case.image, "\n".join(lines), answer)
