"""Answering only where one is sure: risk against coverage, and what label sets hold.

Cases are answered in the order of their confidence, surest first; ties are answered together, in part where
need be, so that no figure depends on the order of the log (El-Yaniv & Wiener, JMLR 2010; Geifman & El-Yaniv,
NeurIPS 2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.evaluation.metrics import Floats
from gsco.specialists.conformal import ANSWERED

CURVE = tuple(k / 20 for k in range(1, 21))
"""Shares of the cases at which the curve is written down."""


def expected_errors(confidence: Floats, right: NDArray[np.bool_]) -> Floats:
    """How many of the k surest answers are wrong, for k = 1 … n, shape (n,).

    Cases of equal confidence are taken in random order; this is the mean over all orders.

    Args:
        confidence: probability of the answer, shape (n,).
        right: whether it is right, shape (n,).
    """
    order = np.argsort(-confidence, kind="stable")
    _, tied, counts = np.unique(-confidence[order], return_inverse=True, return_counts=True)
    wrong = np.bincount(tied, weights=~right[order], minlength=len(counts))
    return np.asarray(np.cumsum((wrong / counts)[tied]))


def selective_figures(confidence: Floats, right: NDArray[np.bool_]) -> dict[str, Any]:
    """What answering only the surest cases would do.

    Args:
        confidence: probability of the answer, shape (n,), n > 0.
        right: whether it is right, shape (n,).

    Returns:
        ``aurc``: area under the risk-coverage curve, the mean risk over all shares, in [0, 1];
        ``answered``: the share that ``risk`` (share of wrong answers among the surest) and ``errors_removed``
        (share of all wrong answers that are among the others; nan where none is wrong) speak of;
        ``curve``: (share, risk) pairs.
    """
    errors, n = expected_errors(confidence, right), len(right)
    risks = errors / np.arange(1, n + 1)

    def upto(share: float) -> int:
        return max(int(np.ceil(share * n - 1e-9)), 1) - 1

    at, total = upto(ANSWERED), float(errors[-1])
    return {
        "aurc": float(risks.mean()),
        "answered": ANSWERED,
        "risk": float(risks[at]),
        "errors_removed": 1 - float(errors[at]) / total if total else float("nan"),
        "curve": [[share, float(risks[upto(share)])] for share in CURVE],
    }


def set_figures(sets: NDArray[np.bool_], reference: NDArray[np.int64]) -> dict[str, Any]:
    """How label sets did.

    Args:
        sets: which options belong to the set of each case, shape (n, K), n > 0.
        reference: option positions, shape (n,).

    Returns:
        ``coverage``: share of sets that hold the reference; ``mean_size``; ``single``: share of sets of one
        option; ``per_class``: coverage of the cases of each option, nan where there are none.
    """
    held, size = sets[np.arange(len(sets)), reference], sets.sum(axis=1)
    return {
        "coverage": float(held.mean()),
        "mean_size": float(size.mean()),
        "single": float((size == 1).mean()),
        "per_class": [
            float(held[reference == k].mean()) if (reference == k).any() else float("nan")
            for k in range(sets.shape[1])
        ],
    }


def abstention_figures(abstains: NDArray[np.bool_], right: NDArray[np.bool_]) -> dict[str, Any]:
    """What came of abstaining by the rule that was fitted beforehand.

    Args:
        abstains: shape (n,), n > 0.
        right: whether the answer that would have been given is right, shape (n,).

    Returns:
        ``share`` of cases abstained on, ``accuracy`` of the answers given (nan where there is none), and
        ``errors_removed``: share of all wrong answers that were not given (nan where none is wrong).
    """
    answered, wrong = ~abstains, ~right
    return {
        "share": float(abstains.mean()),
        "accuracy": float(right[answered].mean()) if answered.any() else float("nan"),
        "errors_removed": float(abstains[wrong].mean()) if wrong.any() else float("nan"),
    }
