"""Retrieval: the index of training cases, the check for copies of them, the sign of foreign images."""

from gsco.retrieval.foreign import Foreignness, ForeignSign
from gsco.retrieval.index import CaseIndex
from gsco.retrieval.leakage import KINDS, LeakageReport, LeakPair, check_leakage
from gsco.retrieval.neighbour import Neighbour

__all__ = [
    "KINDS",
    "CaseIndex",
    "ForeignSign",
    "Foreignness",
    "LeakPair",
    "LeakageReport",
    "Neighbour",
    "check_leakage",
]
