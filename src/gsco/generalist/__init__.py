"""Generalists: vision-language models behind one small interface."""

from gsco.generalist.base import Generalist, OptionScores, Request, can_score, remark_of
from gsco.generalist.loading import load_generalist

__all__ = ["Generalist", "OptionScores", "Request", "can_score", "load_generalist", "remark_of"]
