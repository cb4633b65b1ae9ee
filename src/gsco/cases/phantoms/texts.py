"""Reports and question–answer pairs that follow from a phantom's ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gsco.cases.phantoms.findings import FINDINGS, Finding, FindingKind, readable_name

_NEGATIVE = {
    "effusion": "No pleural effusion is seen.",
    "pneumothorax": "There is no pneumothorax.",
    "nodule": "No lung nodule is seen.",
    "consolidation": "There is no focal consolidation.",
    "cardiomegaly": "The heart size is within normal limits.",
}


@dataclass(frozen=True, slots=True)
class Question:
    """One question about a phantom.

    Attributes:
        question: the text asked.
        answer: the reference answer.
        answer_type: ``CLOSED`` (yes or no) or ``OPEN``.
        question_type: ``PRES`` (presence), ``ABN`` (abnormality), ``POS`` (side, zone) or ``SIZE``.
    """

    question: str
    answer: str
    answer_type: str
    question_type: str


def write_report(finding: Finding, rng: np.random.Generator) -> tuple[str, str]:
    """The two parts of a report: findings (with pertinent negatives) and impression."""
    kinds = [kind for kind in FINDINGS if kind != "no_finding"]
    negatives = [_NEGATIVE[k] for k in kinds if k != finding.kind]
    if finding.kind == "no_finding":
        opening = _pick(rng, ("The lungs are clear.", "Both lungs are well expanded and clear."))
        impression = _pick(rng, ("No acute cardiopulmonary abnormality.", "Normal chest radiograph."))
        return " ".join([opening, *negatives]), impression
    positive, impression = _positive(finding, rng)
    return " ".join([positive, *negatives]), impression


def _positive(f: Finding, rng: np.random.Generator) -> tuple[str, str]:
    size, side, zone = f.size_word, f.side, f.zone
    if f.kind == "effusion":
        seen = _pick(rng, ("blunts the costophrenic angle", "obscures the costophrenic angle"))
        return f"A {size} {side} pleural effusion {seen}.", f"{size.capitalize()} {side} pleural effusion."
    if f.kind == "pneumothorax":
        seen = _pick(
            rng, ("with a visible pleural line", "with absent lung markings beyond the pleural line")
        )
        return f"There is a {size} {side} pneumothorax {seen}.", f"{size.capitalize()} {side} pneumothorax."
    if f.kind == "nodule":
        verb = _pick(rng, ("projects over", "is seen in"))
        return (
            f"A {size} round nodule {verb} the {side} {zone} lung zone.",
            f"{size.capitalize()} nodule in the {side} {zone} lung zone.",
        )
    if f.kind == "consolidation":
        verb = _pick(rng, ("There is", "The image shows"))
        return (
            f"{verb} a {size} area of consolidation in the {side} {zone} lung zone.",
            f"{size.capitalize()} consolidation in the {side} {zone} lung zone.",
        )
    degree = {"small": "mildly", "moderate": "moderately", "large": "markedly"}[size]
    word = {"small": "Mild", "moderate": "Moderate", "large": "Marked"}[size]
    return f"The heart is {degree} enlarged.", f"{word} cardiomegaly."


def write_questions(finding: Finding, rng: np.random.Generator) -> list[Question]:
    """Questions about presence, abnormality, kind, side, zone and size; none depends on the scanner."""
    f = finding
    name = readable_name(f.kind)
    out = [_presence(kind, f, rng) for kind in _asked_about(f, rng)]
    normal = f.kind == "no_finding"
    if rng.random() < 0.5:
        text = _pick(
            rng, ("Is this chest radiograph normal?", "Is the chest radiograph within normal limits?")
        )
        out.append(Question(text, _yes(normal), "CLOSED", "ABN"))
    else:
        text = _pick(rng, ("Is there an abnormality?", "Does the image show anything abnormal?"))
        out.append(Question(text, _yes(not normal), "CLOSED", "ABN"))
    text = _pick(rng, ("What is the main finding?", "Which finding does the image show?", "What is seen?"))
    out.append(Question(text, name, "OPEN", "ABN"))
    if f.side:
        text = _pick(rng, ("On which side is the {}?", "Which side does the {} affect?")).format(name)
        out.append(Question(text, f.side, "OPEN", "POS"))
        asked = _pick(rng, ("left", "right"))
        out.append(Question(f"Is the {name} on the {asked} side?", _yes(asked == f.side), "CLOSED", "POS"))
    if f.zone:
        out.append(Question(f"In which lung zone is the {name}?", f.zone, "OPEN", "POS"))
    if not normal:
        word = f.size_word
        if f.kind == "cardiomegaly":
            word = {"small": "mild", "moderate": "moderate", "large": "marked"}[word]
            out.append(Question("How severe is the cardiomegaly?", word, "OPEN", "SIZE"))
        else:
            out.append(Question(f"How large is the {name}?", word, "OPEN", "SIZE"))
    return out


def _asked_about(f: Finding, rng: np.random.Generator) -> list[FindingKind]:
    absent = [kind for kind in FINDINGS if kind not in ("no_finding", f.kind)]
    other = absent[int(rng.integers(len(absent)))]
    if f.kind == "no_finding":
        return [other]
    return [f.kind, other] if rng.random() < 0.5 else [other, f.kind]


def _presence(kind: FindingKind, f: Finding, rng: np.random.Generator) -> Question:
    name = readable_name(kind)
    noun = name if kind in ("cardiomegaly", "consolidation") else f"a {name}"
    text = _pick(rng, ("Is there {}?", "Is there evidence of {}?", "Does the image show {}?")).format(noun)
    return Question(text, _yes(kind == f.kind), "CLOSED", "PRES")


def _yes(value: bool) -> str:
    return "Yes" if value else "No"


def _pick(rng: np.random.Generator, texts: Sequence[str]) -> str:
    return texts[int(rng.integers(len(texts)))]
