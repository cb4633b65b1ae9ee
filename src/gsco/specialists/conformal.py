"""Split conformal label sets: as many options as are needed to hold the true one as often as stated.

The score is that of Sadinle, Lei & Wasserman (JASA 2019): an option belongs to the set where its probability
is at least ``1 - q``, with ``q`` the ``⌈(n + 1) · coverage⌉``-th smallest of ``1 - p(truth)`` over n labelled
cases (Vovk, Gammerman & Shafer, *Algorithmic Learning in a Random World*, 2005). Where those cases and the
new one are exchangeable, the true option is in the set with at least the stated probability, whatever the
model.
The promise is about many cases, not about each option or each patient group.

A set is never empty: the most probable option always belongs to it. Where that lets in more true options than
the threshold does, more is stated than was asked for: the share of the n cases whose set holds the truth, of
n + 1. That is an estimate then, not a bound.

Of the scores in use this one gives the smallest sets on average. The adaptive sets of Romano, Sesia & Candès
(NeurIPS 2020) spread the coverage more evenly over hard and easy cases, but need a random number for each
case to be exact, and an answer here may not depend on one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

COVERAGE = 0.9
"""Share of cases whose set is to hold the true option, where nothing else is said."""
ANSWERED = 0.8
"""Share of the validation cases that would be answered; on the others one abstains."""


@dataclass(frozen=True, slots=True)
class ConformalSets:
    """A fitted rule for label sets.

    Attributes:
        coverage: stated share of cases whose set holds the true option, in (0, 1); at least what was asked
            for.
        threshold: least probability of an option in the set, in [0, 1]; 0 lets every option in, which is
            all that can be promised on fewer than ``coverage / (1 - coverage)`` cases.
        n: labelled cases it was fitted on.
    """

    coverage: float
    threshold: float
    n: int

    @classmethod
    def fit(
        cls,
        probabilities: NDArray[np.float64],
        targets: Sequence[int] | NDArray[np.int64],
        *,
        coverage: float = COVERAGE,
    ) -> ConformalSets:
        """Take the threshold from n labelled cases that the probabilities were not fitted on.

        Args:
            probabilities: shape (n, n_options).
            targets: n true option positions.
            coverage: what is asked for, in (0, 1); ValueError outside.
        """
        if not 0 < coverage < 1:
            raise ValueError(f"coverage must lie between 0 and 1, got {coverage}")
        truth = np.asarray(targets, dtype=np.int64)
        n = len(truth)
        rank = math.ceil((n + 1) * coverage - 1e-9)
        if rank > n:
            return cls(coverage, 0.0, n)
        p = np.asarray(probabilities, np.float64)
        right = np.sort(p[np.arange(n), truth])
        made = cls(coverage, float(right[n - rank]), n)
        held = int(made.sets(p)[np.arange(n), truth].sum())
        return replace(made, coverage=held / (n + 1)) if held > rank else made

    def to_dict(self) -> dict[str, float]:
        """JSON values."""
        return {"coverage": self.coverage, "threshold": self.threshold, "n": self.n}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ConformalSets:
        """What `to_dict` gave; KeyError, TypeError or ValueError for anything else."""
        return cls(float(values["coverage"]), float(values["threshold"]), int(values["n"]))

    def sets(self, probabilities: Sequence[Sequence[float]] | NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which options belong to the set of each case, shape (n, n_options).

        The most probable option always belongs to it: an empty set would help nobody, and adding to a set
        never lowers its coverage.
        """
        p = np.asarray(probabilities, dtype=np.float64)
        members = p >= self.threshold - 1e-12
        members[np.arange(len(p)), p.argmax(axis=1)] = True
        return members


def cut_of_share(confidence: Sequence[float] | NDArray[np.float64], share: float) -> float:
    """The confidence that just the surest `share` of the cases reach; 0 where there are none.

    Args:
        confidence: probability of the chosen option of n cases, shape (n,).
        share: of the cases that are to be answered, in (0, 1].
    """
    ordered = np.sort(np.asarray(confidence, dtype=np.float64))[::-1]
    if not len(ordered):
        return 0.0
    return float(ordered[max(math.ceil(share * len(ordered) - 1e-9), 1) - 1])
