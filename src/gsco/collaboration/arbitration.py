"""`Arbiter`: the pool of all voices, with label sets and abstention; who answers in ``gsco_calibrated``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.collaboration.answer import Answer
from gsco.collaboration.pool import Floats, Pool
from gsco.specialists.conformal import ANSWERED, COVERAGE, ConformalSets, cut_of_share
from gsco.specialists.folds import grouped_folds

CALIBRATED = "gsco_calibrated"
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Spoken:
    """What voices say about n labelled cases.

    Attributes:
        said: by voice, shape (n, n_options).
        targets: option positions, shape (n,).
    """

    said: Mapping[str, Floats]
    targets: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Arbiter:
    """Pools what is said about a case, and knows how far the outcome can be trusted.

    Attributes:
        pool: what each voice is worth.
        sets: how label sets are made.
        abstains_below: confidence below which it would rather not answer: the surest `ANSWERED` of the
            validation cases reach it.
    """

    pool: Pool
    sets: ConformalSets
    abstains_below: float

    @classmethod
    def fit(
        cls,
        said: Mapping[str, Floats],
        targets: Sequence[int] | NDArray[np.int64],
        groups: Sequence[str],
        *,
        more: Spoken | None = None,
        seed: int = 0,
    ) -> Arbiter:
        """Fit the weights on all cases; sets and abstention on answers to cases held out of a fit.

        Label sets from the very cases that the weights were fitted on would be too small. So the cases are
        dealt into folds by patient, each fold is answered by a pool fitted on the others, and these answers
        give the threshold (cross-conformal; Vovk, *Annals of Mathematics and AI* 2015).

        Args:
            said: what each voice says about n cases, shape (n, n_options).
            targets: n true option positions.
            groups: what stays together of n cases (the patient).
            more: what was said about further labelled cases, for the weights alone: sets and abstention
                are about the voices as they are in use, and these may be stand-ins (out of fold).
            seed: of the folds.
        """
        truth = np.asarray(targets, dtype=np.int64)
        held = _held_out(said, truth, groups, more, seed)
        return cls(
            _pool(said, truth, more),
            ConformalSets.fit(held, truth, coverage=COVERAGE),
            cut_of_share(held.max(axis=1), ANSWERED),
        )

    def answer(self, case_id: str, keys: Sequence[str], said: Mapping[str, Floats]) -> Answer:
        """The most probable option, with its set and whether it abstains.

        Args:
            case_id: the case.
            keys: option keys in the task's order.
            said: what each voice says about it, shape (n_options,).
        """
        p = self.pool.apply(said)
        inside = self.sets.sets(p[None])[0]
        order = np.argsort(-p, kind="stable")
        return Answer(
            case_id=case_id,
            arm=CALIBRATED,
            prediction=keys[int(order[0])],
            probabilities=dict(zip(keys, map(float, p), strict=True)),
            label_set=tuple(keys[i] for i in order if inside[i]),
            abstains=bool(p.max() < self.abstains_below),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "n": self.pool.n,
            "weights": dict(zip(self.pool.voices, self.pool.weights, strict=True)),
            "sets": self.sets.to_dict(),
            "abstains_below": self.abstains_below,
            "answered": ANSWERED,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Arbiter:
        """What `to_dict` gave."""
        weights = values["weights"]
        pool = Pool(tuple(weights), tuple(map(float, weights.values())), int(values["n"]))
        return cls(pool, ConformalSets.from_dict(values["sets"]), float(values["abstains_below"]))


def _pool(said: Mapping[str, Floats], truth: NDArray[np.int64], more: Spoken | None) -> Pool:
    """The pool of all these cases; a voice that says nothing about the further ones is even there."""
    if more is None:
        return Pool.fit(said, truth)
    n, options = len(more.targets), next(iter(said.values())).shape[1]
    even = np.full((n, options), 1 / options)
    joined = {name: np.concatenate([p, more.said.get(name, even)]) for name, p in said.items()}
    return Pool.fit(joined, np.concatenate([truth, more.targets]))


def _held_out(
    said: Mapping[str, Floats],
    truth: NDArray[np.int64],
    groups: Sequence[str],
    more: Spoken | None,
    seed: int,
) -> Floats:
    """Each case's pooled probabilities from weights fitted on other patients, shape (n, n_options)."""
    folds = min(FOLDS, len(set(groups)), max(Counter(truth.tolist()).values(), default=0))
    out = np.zeros(np.shape(next(iter(said.values()))))
    if folds < 2:
        return _pool({name: p[:0] for name, p in said.items()}, truth[:0], more).apply(said)
    assigned = grouped_folds(truth, groups, folds=folds, seed=seed)
    for number in range(folds):
        held, rest = assigned == number, assigned != number
        pool = _pool({name: p[rest] for name, p in said.items()}, truth[rest], more)
        out[held] = pool.apply({name: p[held] for name, p in said.items()})
    return out
