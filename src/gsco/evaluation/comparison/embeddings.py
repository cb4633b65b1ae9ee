"""Whose embeddings find similar cases: training cases of the same label, for validation and test cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case, Dataset
from gsco.errors import ModelError
from gsco.evaluation.comparison.answers import Contestant, labelled
from gsco.evaluation.comparison.neighbours import find_alike, summary
from gsco.evaluation.data import draw
from gsco.evaluation.progress import Reporter

SEARCHED = 2000
"""Most training cases in which embeddings look for neighbours."""
ASKED = 500
"""Most cases whose neighbours are looked for, of each split."""


def embedding_figures(
    dataset: Dataset,
    contestants: Sequence[Contestant],
    val: Sequence[Case],
    test: Sequence[Case],
    *,
    unpooled: bool,
    cache: Path,
    n_resamples: int,
    seed: int,
    progress: Reporter,
) -> dict[str, Any] | None:
    """Figures on test by specialist and kind of embedding; the best by validation.

    Args:
        dataset: whose training cases are searched, at most `SEARCHED`.
        contestants: whose embeddings; one that has none is left out, and it is said.
        val, test: the queries, at most `ASKED` of each.
        unpooled: compare un-pooled embeddings, too.
        cache: for the embeddings.
        n_resamples, seed: of the bootstrap, and of what is drawn.
        progress: where progress goes.

    Returns:
        Plain values; None where there are no training cases.
    """
    from gsco.specialists.embeddings import embed

    searched = draw(labelled(dataset, "train"), SEARCHED, seed)
    asked = {"val": draw(val, ASKED, seed), "test": draw(test, ASKED, seed)}
    if not searched:
        return None

    def vectors(who: Contestant, pooled: bool, cases: Sequence[Case], what: str) -> NDArray[np.float32]:
        images = [case.image for case in cases]
        with progress.stage(f"embeddings of {who.name}: {what}", total=len(images)) as step:
            return embed(who.specialist, images, pooled=pooled, cache=cache, progress=step)

    found: dict[str, dict[str, Any]] = {}
    for who in contestants:
        for kind in ("pooled", "unpooled") if unpooled else ("pooled",):
            pooled = kind == "pooled"
            try:
                rows = vectors(who, pooled, searched, "training cases")
            except ModelError as error:
                progress.note(f"{error.what}: it is left out of the comparison of embeddings")
                continue
            on = {
                part: summary(
                    find_alike(vectors(who, pooled, cases, part), cases, rows, searched),
                    cases,
                    n_resamples=n_resamples,
                    seed=seed,
                )
                for part, cases in asked.items()
                if cases
            }
            validation = on["val"]["map"]["value"] if "val" in on else None
            found.setdefault(who.name, {})[kind] = {**on["test"], "validation_map": validation}
    ranked = [
        (figures["validation_map"], name, kind)
        for name, kinds in found.items()
        for kind, figures in kinds.items()
        if figures["validation_map"] is not None and not np.isnan(figures["validation_map"])
    ]
    best = max(ranked, key=lambda row: row[0]) if ranked else None
    return {
        "n_searched": len(searched),
        "n_asked": len(asked["test"]),
        "best": None if best is None else {"specialist": best[1], "kind": best[2]},
        "specialists": found,
    }
