"""Whose embeddings find cases of the same label: precision among the nearest, and mean average precision.

Where a case may have several labels, two are alike that share one, and two that have none.

Queries are cases of another split than the ones that are searched, so no network is asked to find again
what it was taught. Cases of the same patient or group never count as found. Similarity is the cosine of
the embeddings as they are, as `gsco.retrieval.CaseIndex` searches them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case
from gsco.evaluation import statistics as s
from gsco.evaluation.metrics import Floats

NEAREST = 10
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Found:
    """How well same-label cases are found, per query; nan where nothing could be found.

    Attributes:
        precision: share of cases of the query's label among its `NEAREST` neighbours, shape (n,), in [0, 1].
        average_precision: mean over cases of the query's label of the precision at their rank, shape (n,).
        chance: what a random order would find, shape (n,): the share of the label among what is searched.
    """

    precision: Floats
    average_precision: Floats
    chance: Floats


def find_alike(
    queries: NDArray[np.float32],
    query_cases: Sequence[Case],
    searched: NDArray[np.float32],
    searched_cases: Sequence[Case],
    *,
    k: int = NEAREST,
) -> Found:
    """Rank the searched cases for each query and see whose label is the query's.

    Args:
        queries: (m, ...) embeddings, flattened.
        query_cases: m labelled cases; one that is also searched is not found by itself.
        searched: (n, ...) embeddings.
        searched_cases: n labelled cases.
        k: neighbours that precision looks at.
    """
    asked, rows = _units(queries), _units(searched)
    bearers: dict[str | None, list[int]] = defaultdict(list)
    holders: dict[tuple[str, str | None], list[int]] = defaultdict(list)
    for position, case in enumerate(searched_cases):
        for key in _keys(case):
            holders[key].append(position)
        for label in case.labels or (None,):
            bearers[label].append(position)
    out = np.full((3, len(query_cases)), np.nan)
    for start in range(0, len(query_cases), _BLOCK):
        similarity = (asked[start : start + _BLOCK] @ rows.T).astype(np.float64)
        for i, case in enumerate(query_cases[start : start + _BLOCK]):
            banned = [position for key in _keys(case) for position in holders.get(key, ())]
            order = np.argsort(-similarity[i], kind="stable")
            order = order[~np.isin(order, banned)]
            alike = np.zeros(len(searched_cases), dtype=bool)
            for label in case.labels or (None,):
                alike[bearers.get(label, [])] = True
            same = alike[order]
            if not same.any():
                continue
            ranks = np.flatnonzero(same) + 1
            out[:, start + i] = (
                same[:k].mean(),
                (np.arange(1, len(ranks) + 1) / ranks).mean(),
                same.mean(),
            )
    return Found(out[0], out[1], out[2])


def summary(found: Found, cases: Sequence[Case], *, n_resamples: int, seed: int) -> dict[str, Any]:
    """Means over queries with 95 % intervals over patients: ``precision_at_10``, ``map``, and ``chance``."""
    positions, n_clusters = s.cluster_positions([case.cluster for case in cases])
    out: dict[str, Any] = {}
    for name, scores in (
        (f"precision_at_{NEAREST}", found.precision),
        ("map", found.average_precision),
    ):
        known = ~np.isnan(scores)
        pairs = np.stack([np.where(known, scores, 0.0), known.astype(np.float64)], axis=1)
        sums = s.per_cluster(pairs, positions, n_clusters)
        out[name] = s.bootstrap_interval(sums, _mean, n_resamples=n_resamples, seed=seed)._asdict()
    known = ~np.isnan(found.chance)
    out["chance"] = float(found.chance[known].mean()) if known.any() else float("nan")
    return out


def _mean(sums: Floats) -> Any:
    return np.divide(sums[..., 0], sums[..., 1], out=np.full(sums.shape[:-1], np.nan), where=sums[..., 1] > 0)


def _keys(case: Case) -> list[tuple[str, str | None]]:
    named = (("case", case.id), ("patient", case.patient_id), ("group", case.group))
    return [(kind, value) for kind, value in named if value]


def _units(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = np.asarray(embeddings, dtype=np.float32).reshape(len(embeddings), -1)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(length, 1e-12), dtype=np.float32)
