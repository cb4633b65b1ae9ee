"""Records about label sets that no image of ours shows: to read evidence about, and to like no name of."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from gsco.cases import Case, Option, Task
from gsco.collaboration.arms import restrict
from gsco.collaboration.evidence import Evidence
from gsco.generalist.records import Record
from gsco.teaching.invented_names import meaningless_names, mixed_names, one_noun, one_quality, one_stem
from gsco.teaching.simulate import simulate_evidence, with_dissenter
from gsco.teaching.streams import ByWeight
from gsco.teaching.varied import permuted, renamed, render
from gsco.teaching.vocabulary import CODES, TERMS

_CLOSE = 0.25  # how far the first option of wavering evidence is ahead of the second, at most
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


def foreign_record(
    rng: np.random.Generator, identity: str, source: str, case: Case, arms: ByWeight[str], wavering: float
) -> Record:
    """A record of an invented label set with evidence, and with a foreign image or none."""
    task, truth = _invented_question(rng)
    waver = wavering > 0 and rng.random() < wavering
    found = (_wavering if waver else _able)(rng, truth, task.keys, arms)
    prompt = render(rng, task, found)
    record = Record(identity, "foreign", "simulated", None, prompt.text, prompt.choices[truth])
    return _with_image_or_none(rng, source, case, record)


def blank_record(rng: np.random.Generator, identity: str, source: str, case: Case) -> Record:
    """A record of an invented label set without evidence, with a foreign image or none; any name is right."""
    task, truth = _invented_question(rng)
    prompt = render(rng, task, Evidence())
    record = Record(identity, "blank", "simulated", None, prompt.text, prompt.choices[truth])
    return _with_image_or_none(rng, source, case, record)


def bare_record(rng: np.random.Generator, identity: str, task: Task) -> Record:
    """A record that asks for the options of a known task, without image or evidence, and takes any."""
    shown, _ = permuted(task, Evidence(), [int(i) for i in rng.permutation(len(task.options))])
    prompt = render(rng, renamed(rng, shown), Evidence())
    answer = prompt.choices[int(rng.integers(len(prompt.choices)))]
    return Record(identity, "blank", "simulated", None, prompt.text, answer)


def familiar_record(rng: np.random.Generator, identity: str, task: Task, arms: ByWeight[str]) -> Record:
    """A record of the options of a known task, without an image, with wavering evidence."""
    shown, _ = permuted(task, Evidence(), [int(i) for i in rng.permutation(len(task.options))])
    truth = int(rng.integers(len(shown.options)))
    prompt = render(rng, renamed(rng, shown), _wavering(rng, truth, shown.keys, arms))
    return Record(identity, "foreign", "simulated", None, prompt.text, prompt.choices[truth])


def _with_image_or_none(rng: np.random.Generator, source: str, case: Case, record: Record) -> Record:
    return replace(record, source=source, image=case.image) if rng.random() < 0.5 else record


def _able(rng: np.random.Generator, truth: int, keys: tuple[str, ...], arms: ByWeight[str]) -> Evidence:
    # More than half of them are clear, or the noise of hard ones hides what there is to learn: to read.
    clear = rng.random() < 0.55
    skill = (2.5, 6.0) if clear else (1.0, 5.0)
    quality = (0.65, 0.95) if clear else (0.25, 0.95)
    found = simulate_evidence(rng, truth, keys, skill=skill, quality=quality)
    found = restrict(found, arms.draw(rng))
    if clear and len(found.opinions) > 2 and rng.random() < 0.4:
        found = replace(found, opinions=with_dissenter(rng, found.opinions, truth))
    return found


def _wavering(rng: np.random.Generator, truth: int, keys: tuple[str, ...], arms: ByWeight[str]) -> Evidence:
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


def _invented_question(rng: np.random.Generator) -> tuple[Task, int]:
    """An invented task, and the index of the option that is the answer."""
    task = _invented_task(rng)
    return task, int(rng.integers(len(task.options)))


def _invented_task(rng: np.random.Generator) -> Task:
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
