"""Generalists: vision-language models behind one small interface."""

from gsco.generalist.base import Generalist, OptionScores, Request
from gsco.generalist.loading import load_generalist

__all__ = ["Generalist", "OptionScores", "Request", "load_generalist"]
