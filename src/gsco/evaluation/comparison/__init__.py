"""Specialists judged and compared on a dataset, without a generalist."""

from gsco.evaluation.comparison.compare import compare_specialists
from gsco.evaluation.comparison.evaluate import evaluate_specialist

__all__ = ["compare_specialists", "evaluate_specialist"]
