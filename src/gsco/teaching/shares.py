"""What records a training stage draws, and how often which."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

Number = TypeVar("Number", bound=float)

KINDS = ("see", "hear", "doubt", "foreign", "blank", "ask", "confirm", "report", "given")
MIXTURE: dict[str, float] = {"see": 0.36, "hear": 0.3, "doubt": 0.04, "foreign": 0.27, "ask": 0.03}
ARMS: dict[str, float] = {"moed": 0.3, "rad": 0.3, "gsco": 0.4}


class Shares(BaseModel):
    """How often what is drawn; the kinds of record are told in `gsco.teaching.curriculum`.

    Attributes:
        mixture: share of each kind of record.
        arms: share of each arm among records with evidence.
        real: how often evidence about a case that has out-of-fold evidence is that, and not simulated.
            Mostly, by default: simulated errors have nothing to do with the image, but real specialists
            stumble where the generalist stumbles, and it must not take its eye for a witness of its own.
        natural: cases of ``hear`` and ``doubt`` come as often by label as in their dataset, so that what a
            specialist says is right as often as in use; otherwise every label equally often.
        bare: how often a ``blank`` record asks for the options of a dataset, without its image.
        blind: how often a ``hear`` record leaves its image out, so that what is said is all there is.
        wavering: how often the evidence of a ``foreign`` record speaks for its answer by a little only, so
            that liking a name would decide.
        familiar: how often a ``foreign`` record has the options of a dataset, no image, and such evidence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mixture: dict[str, float] = MIXTURE
    arms: dict[str, float] = ARMS
    real: float = Field(default=0.85, ge=0, le=1)
    natural: bool = False
    bare: float = Field(default=0.0, ge=0, le=1)
    blind: float = Field(default=0.0, ge=0, le=1)
    wavering: float = Field(default=0.0, ge=0, le=1)
    familiar: float = Field(default=0.0, ge=0, le=1)

    @field_validator("mixture")
    @classmethod
    def _known_kinds(cls, value: dict[str, float]) -> dict[str, float]:
        return only_known(value, KINDS, "kind of record")

    @field_validator("arms")
    @classmethod
    def _known_arms(cls, value: dict[str, float]) -> dict[str, float]:
        return only_known(value, ARMS, "arm with evidence")


def only_known(value: dict[str, Number], known: Collection[str], what: str) -> dict[str, Number]:
    """The same mapping; ValueError naming the first key that is not `known`."""
    for name in value:
        if name not in known:
            raise ValueError(f"no {what} {name!r}; there are {', '.join(known)}")
    return value
