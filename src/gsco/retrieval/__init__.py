"""Retrieval: the stored index of training cases."""

from gsco.retrieval.neighbour import Neighbour

__all__ = ["Neighbour"]
