"""What a generator is told, and what a pupil is asked. The published prompts are unknown; these are our own.

A generator hears the label and what else is known, and writes the report. The training record holds another
question, which tells nothing: a pupil must learn to see.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gsco.errors import UserError


@dataclass(frozen=True, slots=True)
class Told:
    """What a prompt may say of an image.

    Attributes:
        modality: readable ("chest X-ray").
        labels: readable names of the true options; ``no finding`` and the like where there is nothing.
        positions: label name → where ("left lower lobe"), as far as known.
        normal: whether the label says that there is nothing to be found.
    """

    modality: str
    labels: tuple[str, ...]
    positions: Mapping[str, str] = field(default_factory=dict)
    normal: bool = False

    @property
    def diagnosis(self) -> str:
        """``pneumonia (right lower lobe) and effusion``."""
        named = [
            f"{label} ({self.positions[label]})" if self.positions.get(label) else label
            for label in self.labels
        ]
        return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)


_ROLES = (
    "You are a helpful medical assistant.",
    "You are an experienced physician who reports medical images.",
    "You write reports of medical images.",
)
_TASKS = (
    "Write a report of this {modality} in two parts.",
    "Describe this {modality} and conclude, in a report of two parts.",
    "Report this {modality}: first what is seen, then what it means.",
)
_RULES = (
    "The findings describe what is visible and fits the diagnosis: place, side, shape, extent.",
    "The impression names the diagnosis in one or two sentences.",
    "State nothing that the image cannot show: no age, sex, name, date, size or earlier examination.",
    "Name no other disease.",
)


def _guided(told: Told, rng: random.Random) -> str:
    rules = list(_RULES[: 3 if told.normal else 4])
    rng.shuffle(rules)
    return "\n".join(
        (
            rng.choice(_ROLES),
            rng.choice(_TASKS).format(modality=told.modality),
            f"The diagnosis is known: {told.diagnosis}.",
            *rules,
            "Use exactly this form:",
            "Findings: ...",
            "Impression: ...",
        )
    )


def _bullets(told: Told, rng: random.Random) -> str:
    return "\n".join(
        (
            rng.choice(_ROLES),
            f"This {told.modality} shows {told.diagnosis}.",
            rng.choice(
                ("List what is seen, then conclude.", "Give the observations first, then the diagnosis.")
            ),
            "Answer under two headings, Findings: and Impression:, with short lines that begin with a dash.",
            "Invent nothing about the patient, and name no other disease.",
        )
    )


def _brief(told: Told, rng: random.Random) -> str:
    ask = rng.choice(("Write a short report.", "Report the image.", "Describe the image in a report."))
    form = "Begin with Findings: and end with Impression:"
    return f"Image: {told.modality}. Diagnosis: {told.diagnosis}. {ask} {form}"


TEMPLATES: Mapping[str, Callable[[Told, random.Random], str]] = {
    "guided": _guided,
    "bullets": _bullets,
    "brief": _brief,
}
"""Prompt templates by name: what is told, and a source of wording."""


def check_template(name: str) -> str:
    """The name, or UserError where there is no such template."""
    if name not in TEMPLATES:
        raise UserError(f"no prompt template {name!r}", remedy=f"Choose one of: {', '.join(TEMPLATES)}.")
    return name


def make_prompt(template: str, told: Told, *, case_id: str, variant: int, seed: int) -> str:
    """A generator's prompt. Its wording depends on case, variant and seed, and on nothing else."""
    rng = random.Random(f"{seed}:{template}:{variant}:{case_id}")
    return TEMPLATES[template](told, rng)
