"""From what was said about many cases to the evidence about each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case
from gsco.collaboration.evidence import Evidence
from gsco.retrieval import CaseIndex, Neighbour
from gsco.specialists import Opinion


@dataclass(frozen=True, slots=True)
class Voice:
    """What one specialist says about a list of cases.

    Attributes:
        name: the specialist's.
        probabilities: (cases, options), calibrated, rows summing to 1.
        reliability: balanced accuracy on cases that it did not learn from, in [0, 1], where known.
    """

    name: str
    probabilities: NDArray[np.float64]
    reliability: float | None


def assemble(
    voices: Sequence[Voice], neighbours: Sequence[tuple[Neighbour, ...]], neighbour_reliability: float | None
) -> list[Evidence]:
    """The evidence about each case, in the order of the rows; ValueError where the counts differ."""
    for voice in voices:
        if len(voice.probabilities) != len(neighbours):
            raise ValueError(
                f"{voice.name} speaks about {len(voice.probabilities)} of {len(neighbours)} cases"
            )
    return [
        Evidence(
            tuple(
                Opinion(voice.name, tuple(map(float, voice.probabilities[row])), voice.reliability)
                for voice in voices
            ),
            found,
            neighbour_reliability,
        )
        for row, found in enumerate(neighbours)
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
