"""Exact nearest vectors by inner product, the same answer for every engine, batch size and thread count.

The engines (faiss, numpy) only propose candidates, because their float32 sums depend on how the rows
are batched. The candidates are then scored again in float64, one row at a time, and sorted by similarity
and, where that is equal, by position.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Engine = Literal["faiss", "numpy"]
ENGINES: tuple[Engine, ...] = ("faiss", "numpy")

# Rounding of a float32 inner product of unit vectors is far below this at any dimension in use.
_SLACK = 1e-4
_BLOCK_BYTES = 64 * 2**20


def nearest(
    queries: NDArray[np.float32],
    rows: NDArray[np.float32],
    k: int,
    *,
    engine: Engine = "faiss",
    banned: list[NDArray[np.int64]] | None = None,
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """The k rows with the largest inner product with each query.

    Args:
        queries: (m, d) unit vectors.
        rows: (n, d) unit vectors, C-contiguous; may be memory-mapped and is not copied.
        k: rows wanted; fewer come where fewer are there or allowed.
        engine: what proposes the candidates.
        banned: for each query, positions that must not be returned.

    Returns:
        For each query, positions (int64) and similarities (float64, clipped to [-1, 1]), best first.
    """
    n = len(rows)
    found: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
    most = max((len(b) for b in banned), default=0) if banned else 0
    wanted = min(n, k + most + 8)
    step = max(1, _BLOCK_BYTES // max(4 * n, 4 * queries.shape[1]))
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        scores, positions = _propose(block, rows, wanted, engine)
        for i, query in enumerate(block):
            forbidden = banned[start + i] if banned else None
            found.append(_refine(query, rows, k, scores[i], positions[i], forbidden, engine))
    return found


def _propose(
    queries: NDArray[np.float32], rows: NDArray[np.float32], wanted: int, engine: Engine
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The `wanted` best rows of each query by float32 inner product, best first up to rounding."""
    if engine == "faiss":
        import faiss

        # The search of IndexFlatIP, without its copy of the rows.
        scores, positions = faiss.knn(queries, rows, wanted, metric=faiss.METRIC_INNER_PRODUCT)
        return scores, positions
    products = queries @ rows.T
    positions = np.argpartition(-products, wanted - 1, axis=1)[:, :wanted]
    scores = np.take_along_axis(products, positions, axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(positions, order, axis=1)


def _refine(
    query: NDArray[np.float32],
    rows: NDArray[np.float32],
    k: int,
    scores: NDArray[np.float32],
    positions: NDArray[np.int64],
    banned: NDArray[np.int64] | None,
    engine: Engine,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Exact order of the candidates; asks for more of them while a tie may hide behind the last one."""
    n = len(rows)
    while True:
        allowed = (
            np.isin(positions, banned, invert=True) if banned is not None else np.ones(len(positions), bool)
        )
        complete = len(positions) == n
        kept = scores[allowed]
        if complete or (len(kept) >= k and scores[-1] < kept[k - 1] - _SLACK):
            break
        wider = min(n, 4 * len(positions))
        more_scores, more_positions = _propose(query[None], rows, wider, engine)
        scores, positions = more_scores[0], more_positions[0]
    candidates = np.sort(positions[allowed])
    if not complete:
        floor = kept[k - 1] - _SLACK
        candidates = np.sort(positions[allowed & (scores >= floor)])
    similarity = _exact(query, rows, candidates)
    order = np.argsort(-similarity, kind="stable")[:k]
    return candidates[order], np.clip(similarity[order], -1.0, 1.0)


def _exact(
    query: NDArray[np.float32], rows: NDArray[np.float32], positions: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Inner products in float64, each a sum over its own row: equal rows give equal sums."""
    wide = query.astype(np.float64)
    step = max(1, _BLOCK_BYTES // (8 * len(query)))
    parts = [
        (rows[positions[i : i + step]].astype(np.float64) * wide).sum(axis=1)
        for i in range(0, len(positions), step)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)
