"""How foreign an image is to the known cases: its distance to them, judged by their own distances.

The score is the cosine distance to the k-th most similar known case in the space of the index (deep
nearest neighbours, Sun et al., ICML 2022). It needs no pass of a network beyond the one that retrieval
makes, assumes no distribution, and means something only beside the same distance of cases that are not
foreign. There are two kinds of those: the known cases themselves, each measured against the others (never
against its own patient or group), and validation cases, which no index holds. Both must find an image far
for it to be called foreign: the first are many, the second are new, as the image is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gsco.errors import ModelError

if TYPE_CHECKING:
    from gsco.retrieval.index import CaseIndex

K = 5
"""Which neighbour the distance goes to. On validation images of seven public sets, each offered to the
others' indexes, 5 misses fewest of 1, 5, 10 and 20, and as few as Mahalanobis distance does."""
ALPHA = 0.01
"""Share of cases of the same kind that may be called foreign by mistake."""
SCHEMA = 1
_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Foreignness:
    """How foreign one image is to the known cases.

    Attributes:
        score: cosine distance to the k-th most similar known case, in [0, 2].
        nearer: share of the known cases that are nearer to the others than this image is, in [0, 1].
        p_value: how rarely a case of the same kind is so far away, in (0, 1]: (r + 1) / (n + 1), where r
            of n cases are as far or farther; the larger of the one among known cases and the one among
            validation cases.
        is_foreign: whether both are at most the stated rate of false alarms (see `ForeignSign`).
    """

    score: float
    nearer: float
    p_value: float
    is_foreign: bool


@dataclass(frozen=True, slots=True, eq=False)
class ForeignSign:
    """What an image's distance to the known cases is judged by.

    Attributes:
        index_version: of the index whose cases are the known ones.
        known: ascending distances of the known cases to their k-th neighbour of another patient and
            group, (n,) float64; cases that have no such neighbour are left out.
        validation: ascending distances of validation cases to their k-th known case, (m,) float64; may
            be empty.
        k: which neighbour; fewer cases than that, and the farthest counts.
        alpha: the rate of false alarms. Where a kind has fewer than 1/alpha - 1 cases, no p-value can be so
            small; 1 / (n + 1) takes its place there, that is, farther than all of them.
    """

    index_version: str
    known: NDArray[np.float64]
    validation: NDArray[np.float64]
    k: int = K
    alpha: float = ALPHA

    @classmethod
    def fit(
        cls,
        index: CaseIndex,
        validation: NDArray[np.floating] | None = None,
        *,
        k: int = K,
        alpha: float = ALPHA,
    ) -> ForeignSign:
        """Measure the known cases against each other, and validation cases against them.

        Args:
            index: the known cases.
            validation: (m, d) embeddings of validation cases by the same encoder, less those that copy a
                known case; None where there are none.
            k: which neighbour the distance goes to, at least 1.
            alpha: rate of false alarms, in (0, 1).

        Raises:
            ValueError: k or alpha is out of range, or the embeddings do not fit the index.
        """
        if k < 1 or not 0 < alpha < 1:
            raise ValueError(f"k is {k} and alpha {alpha}; they must be at least 1 and in (0, 1)")
        apart = [1.0 - similar[-1] for similar in index.leave_one_out(k) if len(similar)]
        new = np.zeros(0) if validation is None or not len(validation) else distances(index, validation, k)
        return cls(index.version, _settled(apart), _settled(new), k, alpha)

    def judge(self, index: CaseIndex, queries: NDArray[np.floating]) -> list[Foreignness]:
        """How foreign images are.

        Args:
            index: the one this was fitted on.
            queries: (m, d) embeddings by the same encoder.

        Raises:
            ValueError: another index, or embeddings that do not fit it.
        """
        if index.version != self.index_version:
            raise ValueError(f"fitted on index {self.index_version}, not on {index.version}")
        return [self._judged(float(score)) for score in distances(index, queries, self.k)]

    @property
    def rate(self) -> float:
        """The rate of false alarms that is promised: `alpha`, or as near to it as the cases allow.

        It holds for images that are exchangeable with the validation cases (with the known ones where
        there is no validation).
        """
        return _limit(len(self.validation) or len(self.known), self.alpha)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "schema": SCHEMA,
            "method": f"cosine distance to neighbour {self.k} among the known cases",
            "k": self.k,
            "alpha": self.alpha,
            "rate": self.rate,
            "index_version": self.index_version,
            "known": self.known.tolist(),
            "validation": self.validation.tolist(),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], *, where: str = "foreign.json") -> ForeignSign:
        """What `to_dict` gave.

        Raises:
            ModelError: it is damaged or of a later format; `where` is named.
        """
        try:
            if stored["schema"] != SCHEMA:
                raise ValueError(f"format {stored['schema']!r}, this version reads {SCHEMA}")
            known, validation = (
                np.asarray(stored[kind], dtype=np.float64) for kind in ("known", "validation")
            )
            if known.ndim != 1 or validation.ndim != 1:
                raise ValueError("distances are no list of numbers")
            return cls(
                str(stored["index_version"]), known, validation, int(stored["k"]), float(stored["alpha"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"cannot be read ({error})", where=where, remedy="Delete it.") from error

    def _references(self) -> list[NDArray[np.float64]]:
        return [reference for reference in (self.known, self.validation) if len(reference)]

    def _judged(self, score: float) -> Foreignness:
        references = self._references()
        p = [p_value(score, reference) for reference in references]
        far = [value <= _limit(len(r), self.alpha) for value, r in zip(p, references, strict=True)]
        nearer = int(np.searchsorted(self.known, score, side="left")) / max(1, len(self.known))
        return Foreignness(score, nearer, max(p, default=1.0), bool(far) and all(far))


def distances(index: CaseIndex, queries: NDArray[np.floating], k: int) -> NDArray[np.float64]:
    """Cosine distance of each query to its k-th known case (the farthest where there are fewer), (m,)."""
    return np.round(index.kneighbors(queries, k)[0][:, -1], _DIGITS)


def p_value(score: float, ascending: NDArray[np.float64]) -> float:
    """(r + 1) / (n + 1), where r of the n sorted reference scores are at least `score`.

    If `score` is exchangeable with them, the chance of a value of at most u is at most u, for every u in
    [0, 1] and every n (Vovk et al., Algorithmic Learning in a Random World, 2005).
    """
    at_least = len(ascending) - int(np.searchsorted(ascending, score, side="left"))
    return (at_least + 1) / (len(ascending) + 1)


def _limit(n: int, alpha: float) -> float:
    return max(alpha, 1.0 / (n + 1))


def _settled(values: Any) -> NDArray[np.float64]:
    """Ascending and rounded, so that what is stored is what was fitted."""
    return np.sort(np.round(np.asarray(values, dtype=np.float64), _DIGITS))
