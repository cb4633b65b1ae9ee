"""The same task told in many ways: order and names of its options, template, part of the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gsco.cases import Option, Task
from gsco.collaboration.evidence import Evidence
from gsco.collaboration.templates import TEMPLATES, Prompt
from gsco.teaching.vocabulary import SYNONYMS

_TEMPLATES = {"evidence": 0.8, "paper": 0.12, "letters": 0.08}


def permuted(task: Task, evidence: Evidence, order: Sequence[int]) -> tuple[Task, Evidence]:
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


def renamed(rng: np.random.Generator, task: Task) -> Task:
    """The same task with each option under one of its synonyms, never two alike."""
    names: list[str] = []
    for option in task.options:
        taken = {*names, *(other.name for other in task.options if other is not option)}
        known = [s for s in SYNONYMS.get(option.name.lower(), (option.name,)) if s not in taken]
        name = option.name if not known or rng.random() < 0.5 else str(rng.choice(known))
        names.append(name)
    options = tuple(Option(o.key, name) for o, name in zip(task.options, names, strict=True))
    return replace(task, options=options)


def render(rng: np.random.Generator, task: Task, evidence: Evidence) -> Prompt:
    """The prompt in a template that is drawn."""
    name = str(rng.choice(list(_TEMPLATES), p=list(_TEMPLATES.values())))
    return TEMPLATES[name].render(task, evidence)
