"""Generalists: vision-language models behind one small interface."""

from gsco.generalist.base import (
    Example,
    Generalist,
    OptionScores,
    Request,
    Sampling,
    can_score,
    caution_of,
    remark_of,
    takes_examples,
)
from gsco.generalist.loading import load_generalist

__all__ = [
    "Example",
    "Generalist",
    "OptionScores",
    "Request",
    "Sampling",
    "can_score",
    "caution_of",
    "load_generalist",
    "remark_of",
    "takes_examples",
]
