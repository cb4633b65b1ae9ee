"""`Answer`: the outcome of one arm for one case, with the exact prompt."""

from __future__ import annotations

from dataclasses import dataclass

from gsco.generalist import Example


@dataclass(frozen=True, slots=True)
class ShownCase:
    """A known case that was shown with its image before the question, and how."""

    case_id: str
    example: Example


@dataclass(frozen=True, slots=True)
class Answer:
    """One arm's answer to one case.

    Attributes:
        case_id: the case.
        arm: the arm (``gsco``, ``majority_vote``, ``specialist:<name>``, ...).
        prediction: an option key; None when a free text could not be read.
        probabilities: option key -> probability, summing to 1; None where the arm gives none.
        uncalibrated: the same before calibration; None where nothing was calibrated.
        label_set: option keys of the conformal set, most probable first; None where the arm has none.
        abstains: whether the arm would rather not answer; None where it always answers.
        failed: why the generalist gave no answer, for good; None where it gave one. It counts as wrong.
        prompt: the exact text the generalist was given; None for controls.
        raw: what the generalist wrote (free generation only).
        template: name of the prompt template; None for controls.
        shown: known cases that were shown before the prompt, in that order.
    """

    case_id: str
    arm: str
    prediction: str | None
    probabilities: dict[str, float] | None = None
    prompt: str | None = None
    raw: str | None = None
    template: str | None = None
    uncalibrated: dict[str, float] | None = None
    label_set: tuple[str, ...] | None = None
    abstains: bool | None = None
    failed: str | None = None
    shown: tuple[ShownCase, ...] = ()
