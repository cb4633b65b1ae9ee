"""Generalists: vision-language models behind one small interface."""

from gsco.generalist.base import Generalist, OptionScores, Request

__all__ = ["Generalist", "OptionScores", "Request"]
