"""How arms and controls are called where a person reads them, and in which order they stand."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ArmWords:
    """Name, a note for tables, and whether the name takes an article in a sentence."""

    name: str
    note: str
    article: bool = True


ARMS: dict[str, ArmWords] = {
    "gsco": ArmWords("GSCo (both)", "hears specialists and similar cases", article=False),
    "gsco_calibrated": ArmWords("GSCo calibrated", "all voices, by fitted weights", article=False),
    "moed": ArmWords("+ specialists (MoED)", "hears the specialists", article=False),
    "rad": ArmWords("+ similar cases (RAD)", "hears the most similar known cases", article=False),
    "rad_images": ArmWords("+ images of similar cases", "is shown the most similar ones, too", article=False),
    "generalist": ArmWords("generalist alone", "sees the image only"),
    "best_specialist": ArmWords("best specialist", "chosen on validation"),
    "majority_vote": ArmWords("majority vote", "of the same specialists"),
    "mean_probability": ArmWords("mean probability", "of the same specialists"),
    "neighbour_vote": ArmWords("neighbour vote", "of the same similar cases"),
}
"""By the arm's id in the log, in the order of a table."""


_VOICES = {"generalist": "the generalist", "neighbour_vote": "the similar cases' vote"}
_BAREST_FIRST = ("generalist", "rad", "rad_images", "moed", "gsco")
_FULLEST_FIRST = (*_BAREST_FIRST[::-1], "mean_probability", "best_specialist")


def fullest_arm(arms: Collection[str]) -> str | None:
    """The arm that speaks for a run: the fullest collaboration among `arms`, else the strongest control."""
    return next((arm for arm in _FULLEST_FIRST if arm in arms), None)


def barest_arm(arms: Collection[str]) -> str | None:
    """The generalist's arm that hears the least, among `arms`: whose answer is most the generalist's own."""
    return next((arm for arm in _BAREST_FIRST if arm in arms), None)


def arm_rank(arm: str) -> tuple[int, str]:
    """Sort key of arms: collaboration first, then controls, then the specialists by name."""
    return (list(ARMS).index(arm) if arm in ARMS else len(ARMS), arm)


def arm_name(arm: str) -> str:
    """``gsco`` → ``GSCo (both)``, ``specialist:knn`` → ``knn``."""
    return ARMS[arm].name if arm in ARMS else arm.removeprefix("specialist:")


def voice_name(voice: str) -> str:
    """A voice of the pool: ``specialist:knn`` → ``knn``, ``generalist`` → ``the generalist``."""
    return _VOICES.get(voice, voice.removeprefix("specialist:"))


def arm_note(arm: str) -> str:
    """What the arm hears or is, in a few words; empty for a specialist."""
    return ARMS[arm].note if arm in ARMS else ""


def with_article(arm: str) -> str:
    """``best_specialist`` → ``the best specialist``; names of one's own stand without."""
    name = arm_name(arm)
    return f"the {name}" if arm in ARMS and ARMS[arm].article else name
