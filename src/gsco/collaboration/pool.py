"""The log-linear pool: many voices, one probability of each option, and what each voice is worth.

``p(option) ∝ exp(Σ_v w_v · log p_v(option))``, with weights that are not negative (Genest & Zidek,
*Statistical Science* 1986). With two options it is logistic regression on the voices' log-odds, without
intercept. The sum of the weights says how sure the pool sounds: below 1 for voices that repeat each other or
are too sure, above 1 for voices that each add something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.collaboration.evidence import Evidence
from gsco.specialists.calibration import softmax

NEIGHBOURS = "neighbour_vote"
GENERALIST = "generalist"
FLOOR = 0.01
"""Share of the even distribution that is mixed into every voice: none may veto an option alone."""
EVENNESS = 1.0
"""Strength of the pull towards equal weights. Of 0, .3, 1, 3 and 10 the one with the least log-loss in
cross-validation within the validation cases of seven public sets; .3 and 3 are within .003 nats of it."""

Floats = NDArray[np.float64]


def voices_of(
    evidence: Evidence, keys: tuple[str, ...], scores: Sequence[float] | None = None
) -> dict[str, Floats]:
    """What each voice says about one case, as probabilities of shape (n_options,).

    Args:
        evidence: opinions and neighbours; a voice without its evidence is missing.
        keys: option keys in the task's order.
        scores: the generalist's probabilities, where it gave any.

    Returns:
        ``specialist:<name>`` for each opinion, ``neighbour_vote`` (vote shares with one vote spread evenly
        over the options, so that an option without a vote is unlikely and not impossible), ``generalist``.
    """
    out = {f"specialist:{o.specialist}": np.asarray(o.probabilities, np.float64) for o in evidence.opinions}
    if evidence.neighbours:
        votes = evidence.neighbour_votes(keys)
        out[NEIGHBOURS] = (votes + 1 / len(keys)) / (votes.sum() + 1)
    if scores is not None:
        out[GENERALIST] = np.asarray(scores, np.float64)
    return out


@dataclass(frozen=True, slots=True)
class Pool:
    """A fitted log-linear pool.

    Attributes:
        voices: names, in the order of the weights.
        weights: not negative.
        n: labelled cases it was fitted on.
    """

    voices: tuple[str, ...]
    weights: tuple[float, ...]
    n: int

    @classmethod
    def fit(
        cls,
        said: Mapping[str, Floats],
        targets: Sequence[int] | NDArray[np.int64],
        *,
        evenness: float = EVENNESS,
    ) -> Pool:
        """Maximum likelihood with a pull towards equal weights; a convex problem, so there is one answer.

        The loss is ``Σ_cases -log p(truth) + evenness · V · Σ_v (w_v - mean w)² + (Σ_v w_v - 1)² / 2``.
        With few cases the weights stay nearly equal, and only their sum is fitted; with many a voice that
        adds nothing goes to 0.

        Args:
            said: what each voice says about n cases, shape (n, n_options); held above `FLOOR`.
            targets: n true option positions.
            evenness: see above; infinite for equal weights.
        """
        from scipy.optimize import minimize

        names, truth = tuple(said), np.asarray(targets, dtype=np.int64)
        count = len(names)
        start = np.full(count, 1 / count)
        if not len(truth):
            return cls(names, tuple(start.tolist()), 0)
        logs = np.stack([log_shares(said[name]) for name in names])
        right = logs[:, np.arange(len(truth)), truth]

        def loss(weights: Floats) -> tuple[float, Floats]:
            scores = np.tensordot(weights, logs, axes=1)
            top = scores.max(axis=1)
            spread = np.exp(scores - top[:, None])
            total = spread.sum(axis=1)
            nll = float((top + np.log(total) - weights @ right).sum())
            expected = (logs * (spread / total[:, None])).sum(axis=(1, 2))
            uneven, over = weights - weights.mean(), float(weights.sum()) - 1
            value = nll + evenness * count * float(uneven @ uneven) + over**2 / 2
            return value, expected - right.sum(axis=1) + 2 * evenness * count * uneven + over

        found: Any = minimize(
            loss,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, None)] * count,
            options={"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-9},
        )
        # a pool of weights that are all 0 would say nothing at all
        weights = found.x if found.x.sum() > 1e-3 else start * 1e-3
        return cls(names, tuple(float(f"{w:.8g}") for w in weights), len(truth))

    def apply(self, said: Mapping[str, Sequence[float] | Floats]) -> Floats:
        """Pooled probabilities, shape (..., n_options), each row summing to 1.

        Args:
            said: what each voice says, shape (..., n_options). A voice of the pool that is silent moves
                nothing; one that the pool does not know is not heard.
        """
        scores = np.zeros(np.shape(next(iter(said.values()))))
        for name, weight in zip(self.voices, self.weights, strict=True):
            if name in said:
                scores = scores + weight * log_shares(said[name])
        return softmax(scores)


def log_shares(probabilities: Sequence[float] | Floats) -> Floats:
    """Log of probabilities with `FLOOR` of the even distribution mixed in, shape (..., n_options)."""
    p = np.asarray(probabilities, dtype=np.float64)
    return np.asarray(np.log((1 - FLOOR) * p + FLOOR / p.shape[-1]))
