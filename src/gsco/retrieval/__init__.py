"""Retrieval: the stored index of training cases, and the check that it holds none of the cases to answer."""

from gsco.retrieval.index import CaseIndex
from gsco.retrieval.leakage import KINDS, LeakageReport, LeakPair, check_leakage
from gsco.retrieval.neighbour import Neighbour

__all__ = ["KINDS", "CaseIndex", "LeakPair", "LeakageReport", "Neighbour", "check_leakage"]
