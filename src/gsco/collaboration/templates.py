"""Prompt templates: what a generalist is told about one case, word for word.

A template turns a task and the evidence at hand into a `Prompt`. It is chosen by name and says only
what the evidence holds, so the four arms differ in the evidence alone:

========  ==================  ============================
arm       opinions            neighbours
========  ==================  ============================
generalist  no                no
moed        yes               no
rad         no                yes
gsco        yes               yes
========  ==================  ============================

``paper`` keeps the published structure (He et al. 2026: role, task, modality, closed options, labels of
the similar cases, labels of the specialists, exactly one option) and is answered by the option's name.
``evidence`` shows the same evidence with numbers, largest first, with reliability and conflict named;
``letters`` is the same with lettered options, answered by a letter.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gsco.cases import Task
from gsco.collaboration.evidence import Evidence
from gsco.errors import UserError


@dataclass(frozen=True, slots=True)
class Prompt:
    """The user turn and what may follow it.

    Attributes:
        text: the prompt, without image placeholder or chat markup.
        choices: the answer string of each option, in the task's option order.
    """

    text: str
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """A named way to put evidence into words."""

    name: str
    description: str
    render: Callable[[Task, Evidence], Prompt]


TEMPLATES: dict[str, Template] = {}


def register_template(template: Template) -> Template:
    """Make a template known by its name; ValueError where the name is taken."""
    if template.name in TEMPLATES:
        raise ValueError(f"a template named {template.name!r} is registered already")
    TEMPLATES[template.name] = template
    return template


def get_template(name: str) -> Template:
    """The template of that name; UserError naming the known ones."""
    try:
        return TEMPLATES[name]
    except KeyError:
        known = ", ".join(sorted(TEMPLATES))
        raise UserError(f"no prompt template named {name!r}", remedy=f"Choose one of: {known}") from None


def letters(n: int) -> tuple[str, ...]:
    """Answer letters A, B, ... for `n` options; UserError above 26."""
    if n > len(string.ascii_uppercase):
        raise UserError(
            f"{n} options are more than there are letters", remedy="Use template evidence or paper."
        )
    return tuple(string.ascii_uppercase[:n])


def _check(task: Task, evidence: Evidence) -> None:
    if not task.options:
        raise ValueError(f"a {task.kind} task without options has no closed prompt")
    for opinion in evidence.opinions:
        if len(opinion.probabilities) != len(task.options):
            raise ValueError(
                f"{opinion.specialist} gives {len(opinion.probabilities)} probabilities "
                f"for {len(task.options)} options"
            )


def _paper(task: Task, evidence: Evidence) -> Prompt:
    _check(task, evidence)
    name = dict(zip(task.keys, task.names, strict=True))
    lines = [
        "You are a helpful medical assistant.",
        "Your task is disease diagnosis.",
        f"The image modality is {task.modality}.",
        f"The possible diagnoses are: {', '.join(task.names)}.",
    ]
    if evidence.neighbours:
        similar = ", ".join(name.get(label, label) for n in evidence.neighbours for label in n.labels)
        lines.append(f"The most similar known cases were diagnosed as: {similar}.")
    if evidence.opinions:
        said = ", ".join(task.names[opinion.choice] for opinion in evidence.opinions)
        lines.append(f"The specialist models diagnose this image as: {said}.")
    lines.append("Answer with exactly one of the possible diagnoses.")
    return Prompt("\n".join(lines), task.names)


def percent(value: float) -> str:
    """A probability in [0, 1] as whole percent."""
    return f"{round(100 * value)}%"


def _ranked(shares: Sequence[float], marks: tuple[str, ...]) -> str:
    """``malignant 47%, benign 43%, normal 10%``: largest first, ties in option order, 0% left out.

    In order, because a small language model reads who comes first sooner than which number is larger.
    """
    order = sorted(range(len(shares)), key=lambda i: -shares[i])
    return ", ".join(f"{marks[i]} {percent(shares[i])}" for i in order if round(100 * shares[i]) > 0)


def _told(task: Task, evidence: Evidence, marks: tuple[str, ...]) -> list[str]:
    """What the evidence says, a line for each part, options by their marks."""
    lines = []
    if evidence.neighbours:
        total = len(evidence.neighbours)
        votes = [int(n) / total for n in evidence.neighbour_votes(task.keys)]
        known = evidence.neighbour_reliability
        reliability = "" if known is None else f" (reliability {percent(known)})"
        lines.append(f"Most similar known cases{reliability}, share of {total}: {_ranked(votes, marks)}.")
    if evidence.opinions:
        said = ", ".join(
            marks[o.choice] + (f" ({percent(o.reliability)})" if o.reliability is not None else "")
            for o in evidence.opinions
        )
        verdict = " They disagree." if evidence.conflict else " They agree."
        lines.append(f"Specialists (reliability): {said}." + (verdict if len(evidence.opinions) > 1 else ""))
        mean = [float(p) for p in evidence.mean_probability()]
        lines.append(f"Specialists' mean probability: {_ranked(mean, marks)}.")
    return lines


def _figures(
    task: Task, evidence: Evidence, choices: tuple[str, ...], listed: Sequence[str], what: str
) -> Prompt:
    _check(task, evidence)
    lines = [
        f"Diagnose this image ({task.modality}).",
        "Options:",
        *listed,
        *_told(task, evidence, choices),
        f"Answer with one {what}.",
    ]
    return Prompt("\n".join(lines), choices)


def _evidence(task: Task, evidence: Evidence) -> Prompt:
    return _figures(task, evidence, task.names, [f"- {name}" for name in task.names], "option")


def _letters(task: Task, evidence: Evidence) -> Prompt:
    marks = letters(len(task.options))
    listed = [f"{mark}. {name}" for mark, name in zip(marks, task.names, strict=True)]
    return _figures(task, evidence, marks, listed, "letter")


def ask_closed(question: str, options: Sequence[str]) -> Prompt:
    """A question about an image that is answered by one of several options, in their order."""
    lines = [f"Question about this image: {question}", "Options:", *(f"- {option}" for option in options)]
    return Prompt("\n".join([*lines, "Answer with one option."]), tuple(options))


register_template(Template("paper", "labels only, as published; answered by the option's name", _paper))
register_template(
    Template("evidence", "probabilities, similar cases, reliability, conflict; answered by name", _evidence)
)
register_template(Template("letters", "as `evidence`, options lettered; answered by a letter", _letters))
