"""Heat maps on the cards: small coloured pictures that the page lays over the image."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.evaluation.report.thumbnails import data_uri
from gsco.evaluation.report.wording import number

MOST = 6
"""Maps on one card."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredHeatmap:
    """A heat map as the run keeps it: (h, w) float32 in [0, 1], of one option, made by one method."""

    values: NDArray[np.float32]
    option: str
    method: str


@dataclass(frozen=True, slots=True)
class Look:
    """Where one specialist looked: a transparent picture, and the answer that it explains."""

    name: str
    option: str
    probability: str
    method: str
    picture: str | None  # None where no place speaks for the option


Stored = Callable[[str, str], StoredHeatmap | None]


def looks_at(
    case_id: str, opinions: Sequence[Mapping[str, Any]], names: Mapping[str, str], stored: Stored | None
) -> tuple[Look, ...]:
    """The stored maps of one case, in the order of its specialists, `MOST` at most.

    Args:
        case_id: which case.
        opinions: of the specialists, as in the log.
        names: readable name by option key, in the options' order.
        stored: gives the map of a case and specialist.
    """
    looks = []
    for opinion in opinions:
        found = stored(case_id, str(opinion["specialist"])) if stored else None
        if found is None or found.option not in names:
            continue
        p = dict(zip(names, opinion["probabilities"], strict=False)).get(found.option)
        looks.append(
            Look(
                name=str(opinion["specialist"]),
                option=names[found.option],
                probability="" if p is None else number(float(p), 2),
                method=found.method,
                picture=_tinted(found.values) if found.values.any() else None,
            )
        )
    return tuple(looks[:MOST])


def scale_css() -> str:
    """The colours from 0 to 1 as stops of a CSS gradient."""
    from gsco.specialists.overlays import colours

    stops = np.round(255 * colours(np.linspace(0, 1, 10, dtype=np.float32))).astype(int)
    return ", ".join(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in stops.tolist())


def _tinted(values: NDArray[np.float32]) -> str | None:
    from gsco.specialists.overlays import tint

    out = io.BytesIO()
    tint(values).save(out, "PNG", optimize=True)
    return data_uri(out.getvalue())
