"""Collaboration: evidence + prompt template + generalist → answer."""

from gsco.collaboration.answer import Answer, ShownCase
from gsco.collaboration.arbitration import CALIBRATED, Arbiter, Spoken
from gsco.collaboration.arms import (
    CONTROLS,
    GENERALIST_ARMS,
    SHOWN_ARM,
    STANDARD_ARMS,
    Collaboration,
    check_arms,
    controls,
    restrict,
)
from gsco.collaboration.evidence import Evidence
from gsco.collaboration.gathering import assemble, neighbour_choices, similar_to_known
from gsco.collaboration.pool import Pool, voices_of
from gsco.collaboration.team import Team, choose_team
from gsco.collaboration.temperature import Temperature
from gsco.collaboration.templates import (
    TEMPLATES,
    Prompt,
    Template,
    ask_closed,
    get_template,
    register_template,
)

__all__ = [
    "CALIBRATED",
    "CONTROLS",
    "GENERALIST_ARMS",
    "SHOWN_ARM",
    "STANDARD_ARMS",
    "TEMPLATES",
    "Answer",
    "Arbiter",
    "Collaboration",
    "Evidence",
    "Pool",
    "Prompt",
    "ShownCase",
    "Spoken",
    "Team",
    "Temperature",
    "Template",
    "ask_closed",
    "assemble",
    "check_arms",
    "choose_team",
    "controls",
    "get_template",
    "neighbour_choices",
    "register_template",
    "restrict",
    "similar_to_known",
    "voices_of",
]
