"""From what was said about many cases to the evidence about each of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case
from gsco.collaboration.evidence import Evidence
from gsco.retrieval import CaseIndex, Foreignness, Neighbour
from gsco.specialists import Opinion


def assemble(
    opinions: Sequence[Sequence[Opinion]],
    neighbours: Sequence[tuple[Neighbour, ...]],
    neighbour_reliability: float | None,
    foreignness: Sequence[Foreignness | None] | None = None,
) -> list[Evidence]:
    """The evidence about each of n cases.

    Args:
        opinions: of each specialist, one opinion per case.
        neighbours: of each case.
        neighbour_reliability: balanced accuracy of their vote, in [0, 1], where known.
        foreignness: of each case, where known.

    Raises:
        ValueError: a specialist speaks about more or fewer cases.
    """
    if any(len(said) != len(neighbours) for said in opinions):
        raise ValueError(f"{[len(said) for said in opinions]} opinions about {len(neighbours)} cases")
    by_case = zip(*opinions, strict=True) if opinions else (() for _ in neighbours)
    return [
        Evidence(tuple(said), found, neighbour_reliability, foreign)
        for said, found, foreign in zip(
            by_case, neighbours, foreignness or [None] * len(neighbours), strict=True
        )
    ]


def similar_to_known(
    index: CaseIndex, embeddings: NDArray[np.floating], cases: Sequence[Case], k: int
) -> list[tuple[Neighbour, ...]]:
    """The neighbours of cases that may be indexed: never the case itself, nor one of its patient or group.

    Args:
        index: of training cases.
        embeddings: (n, d) of the cases, by the index's encoder.
        cases: in the same order.
        k: neighbours wanted.
    """
    members: dict[str, list[str]] = {}
    for case in cases:
        if case.group:
            members.setdefault(case.group, []).append(case.id)
    # by id, too: the index may have been built before these cases were grouped
    units = [
        [unit for unit in (case.patient_id, case.group, *members.get(case.group or "", ())) if unit]
        for case in cases
    ]
    return index.search(embeddings, k, exclude=[case.id for case in cases], exclude_clusters=units)


def neighbour_choices(
    neighbours: Sequence[tuple[Neighbour, ...]], keys: tuple[str, ...]
) -> NDArray[np.int64]:
    """The option that each case's neighbours vote for, (n,)."""
    return np.asarray(
        [Evidence(neighbours=found).neighbour_choice(keys) for found in neighbours], dtype=np.int64
    )
