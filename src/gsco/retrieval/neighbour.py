"""`Neighbour`: one similar known case, with where it comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One training case that looks like the case to be answered.

    Attributes:
        case_id: its id in the dataset that was indexed.
        similarity: cosine similarity of the embeddings, in [-1, 1].
        labels: its reference option keys.
        dataset: name of the dataset that was indexed.
        index_version: content hash of the index it was found in (provenance).
    """

    case_id: str
    similarity: float
    labels: tuple[str, ...]
    dataset: str
    index_version: str
