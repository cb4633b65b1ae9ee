"""Whether a case to be answered is, or nearly is, a case of the index.

Four kinds, each a list of pairs (indexed case, case to be answered):

``ids``
    the same case id.
``groups``
    the same patient, or the same group.
``pixels``
    images that show exactly the same pixels.
``near_duplicates``
    other images whose grey 32 x 32 thumbnails (box-averaged, as seen without regard to the aspect ratio)
    have a Pearson correlation of at least the threshold, .99 by default. On the sets this was tried on
    that finds the several views of one lesion that breast ultrasound sets are known for, and nothing
    between different patients' radiographs, dermatoscopies, cell crops or histology tiles; images that
    were turned or flipped are not found.

The first two are mistakes of the split and refuse. The last two stand in the official splits of public
sets, so by default the *index* gives way: `LeakageReport.purge` names the entries to drop, and the
cases to be answered stay as they are.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case, ImageRef, load_image
from gsco.errors import ImageError, LeakageError
from gsco.progress import Count

if TYPE_CHECKING:
    from PIL import Image

Kind = Literal["ids", "groups", "pixels", "near_duplicates"]
KINDS: tuple[Kind, ...] = ("ids", "groups", "pixels", "near_duplicates")
REFUSED: tuple[Kind, ...] = ("ids", "groups")
"""Kinds that refuse by default; the others purge the index."""

NEAR_DUPLICATE = 0.99
_SIDE = 32
_BLOCK = 1024
_WORDS = {
    "ids": "the same id",
    "groups": "the same patient or group",
    "pixels": "the same pixels",
    "near_duplicates": "nearly the same image",
}

Load = Callable[[ImageRef], "Image.Image"]


@dataclass(frozen=True, slots=True)
class LeakPair:
    """An indexed case and a case to be answered that are too close.

    Attributes:
        indexed: id of the indexed case.
        answered: id of the case to be answered.
        correlation: of the thumbnails, for near-duplicates; 1 otherwise.
    """

    indexed: str
    answered: str
    correlation: float = 1.0


@dataclass(frozen=True, slots=True)
class LeakageReport:
    """What `check_leakage` found.

    Attributes:
        n_index, n_answer: number of cases on both sides.
        threshold: correlation from which images count as near-duplicates.
        ids, groups, pixels, near_duplicates: the pairs of each kind.
        unreadable: images that could not be compared, one line each.
    """

    n_index: int
    n_answer: int
    threshold: float
    ids: tuple[LeakPair, ...] = ()
    groups: tuple[LeakPair, ...] = ()
    pixels: tuple[LeakPair, ...] = ()
    near_duplicates: tuple[LeakPair, ...] = ()
    unreadable: tuple[str, ...] = ()

    def pairs(self, kind: Kind) -> tuple[LeakPair, ...]:
        """The pairs of one kind."""
        found: tuple[LeakPair, ...] = getattr(self, kind)
        return found

    @property
    def counts(self) -> dict[str, int]:
        """Number of pairs of each kind."""
        return {kind: len(self.pairs(kind)) for kind in KINDS}

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not any(self.counts.values())

    def purge(self, overrides: Collection[str] = ()) -> frozenset[str]:
        """Ids of the indexed cases to drop: pixels and near-duplicates, unless these are overridden."""
        return frozenset(pair.indexed for pair in self._alike(overrides))

    def copies(self, overrides: Collection[str] = ()) -> frozenset[str]:
        """The other side of `purge`: ids of the cases to be answered that (nearly) are indexed ones."""
        return frozenset(pair.answered for pair in self._alike(overrides))

    def _alike(self, overrides: Collection[str]) -> Iterator[LeakPair]:
        check_kinds(overrides)
        for kind in KINDS:
            if kind not in REFUSED and kind not in overrides:
                yield from self.pairs(kind)

    def raise_if(self, overrides: Collection[str] = (), *, strict: bool = False) -> None:
        """Refuse.

        Args:
            overrides: kinds to let pass, by name.
            strict: refuse pixels and near-duplicates too, instead of purging the index.

        Raises:
            LeakageError: there are pairs of a kind that refuses and is not overridden.
            ValueError: an override is not a kind.
        """
        check_kinds(overrides)
        found = [
            kind for kind in (KINDS if strict else REFUSED) if kind not in overrides and self.pairs(kind)
        ]
        if not found:
            return
        first = self.pairs(found[0])[0]
        counted = ", ".join(f"{len(self.pairs(k))} pairs with {_WORDS[k]} ({k})" for k in found)
        raise LeakageError(
            f"cases to be answered stand in the index: {counted}; the first is {first.answered} and the "
            f"indexed {first.indexed}",
            remedy=f"Correct the splits, or override by name: {', '.join(found)}.",
        )

    def summary(self) -> str:
        """One line for a log."""
        found = ", ".join(f"{n} {kind}" for kind, n in self.counts.items() if n) or "nothing"
        line = f"leakage check of {self.n_answer} cases against {self.n_index} indexed: {found}"
        return f"{line}; {len(self.unreadable)} unreadable" if self.unreadable else line

    def to_json(self, *, limit: int = 200) -> dict[str, Any]:
        """Counts, purged ids and the first `limit` pairs of each kind, ready for `json.dump`."""
        return {
            "schema": 1,
            "n_index": self.n_index,
            "n_answer": self.n_answer,
            "rule": f"Pearson correlation of {_SIDE}x{_SIDE} grey thumbnails >= {self.threshold:g}",
            "counts": self.counts,
            "purged": sorted(self.purge()),
            "pairs": {
                kind: [[p.indexed, p.answered, round(p.correlation, 5)] for p in self.pairs(kind)[:limit]]
                for kind in KINDS
            },
            "unreadable": list(self.unreadable),
        }


def check_leakage(
    index_cases: Sequence[Case],
    answer_cases: Sequence[Case],
    *,
    near_duplicate_threshold: float = NEAR_DUPLICATE,
    load: Load = load_image,
    progress: Count | None = None,
    workers: int | None = None,
) -> LeakageReport:
    """Compare the cases of an index with the cases to be answered; nothing is raised for what is found.

    Every image is decoded once, in threads; the comparison is a matrix product in blocks.

    Args:
        index_cases: the training cases in the index.
        answer_cases: the cases to be answered.
        near_duplicate_threshold: correlation in (0, 1].
        load: reads one image.
        progress: called with (images read, images in all).
        workers: threads; by default one per processor, at most 8.

    Returns:
        The pairs of each kind, in the order of the cases. A pair with the same pixels is not listed again
        as a near-duplicate.
    """
    if not 0 < near_duplicate_threshold <= 1:
        raise ValueError(f"a correlation threshold of {near_duplicate_threshold} is outside (0, 1]")
    refs = list(dict.fromkeys(ref for case in (*index_cases, *answer_cases) for ref in case.images))
    looks, broken = _look(refs, load, progress, workers)
    pixels = _same_key(index_cases, answer_cases, lambda c: [looks[r][0] for r in c.images if r in looks])
    known = {(pair.indexed, pair.answered) for pair in pixels}
    near = _near(index_cases, answer_cases, looks, near_duplicate_threshold)
    return LeakageReport(
        len(index_cases),
        len(answer_cases),
        near_duplicate_threshold,
        _same_key(index_cases, answer_cases, lambda c: [c.id]),
        _same_key(index_cases, answer_cases, _units),
        pixels,
        tuple(pair for pair in near if (pair.indexed, pair.answered) not in known),
        broken,
    )


def check_kinds(names: Collection[str]) -> None:
    """ValueError where a name is not one of `KINDS`."""
    if isinstance(names, str):
        raise ValueError(f"give a collection of kinds, not the text {names!r}")
    for name in names:
        if name not in KINDS:
            raise ValueError(f"{name!r} is none of {', '.join(KINDS)}")


def _units(case: Case) -> list[tuple[str, str]]:
    named = (("patient", case.patient_id), ("group", case.group))
    return [(kind, value) for kind, value in named if value]


def _same_key(
    index_cases: Sequence[Case], answer_cases: Sequence[Case], keys: Callable[[Case], Iterable[object]]
) -> tuple[LeakPair, ...]:
    """Pairs of cases that share a key, each once, in the order of the cases to be answered."""
    holders: dict[object, list[str]] = defaultdict(list)
    for case in index_cases:
        for key in keys(case):
            holders[key].append(case.id)
    pairs = (
        (indexed, case.id) for case in answer_cases for key in keys(case) for indexed in holders.get(key, ())
    )
    return tuple(LeakPair(*pair) for pair in dict.fromkeys(pairs))


Look = tuple[str, NDArray[np.float32]]
"""Hash of an image's pixels and its normalised thumbnail."""


def _look(
    refs: Sequence[ImageRef], load: Load, progress: Count | None, workers: int | None
) -> tuple[dict[ImageRef, Look], tuple[str, ...]]:
    def one(ref: ImageRef) -> Look | str:
        try:
            image = load(ref)
        except ImageError as error:
            return str(error)
        # The rule of gsco.cases.pixel_hash, on the image that is decoded anyway.
        digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height} ".encode())
        digest.update(image.tobytes())
        return digest.hexdigest(), thumbnail(image)

    looks: dict[ImageRef, Look] = {}
    broken = []
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for done, (ref, look) in enumerate(zip(refs, pool.map(one, refs), strict=True), start=1):
            if isinstance(look, str):
                broken.append(look)
            else:
                looks[ref] = look
            if progress is not None:
                progress(done, len(refs))
    return looks, tuple(broken)


def thumbnail(image: Image.Image) -> NDArray[np.float32]:
    """Grey 32 x 32 thumbnail with mean 0 and length 1, (1024,) float32; zeros for an even image.

    The product of two thumbnails is their Pearson correlation.
    """
    from PIL import Image as Pillow

    small = image.convert("L").convert("F").resize((_SIDE, _SIDE), Pillow.Resampling.BOX)
    plane = np.asarray(small, dtype=np.float64).ravel()
    plane = plane - plane.mean()
    length = float(np.sqrt(plane @ plane))
    # Less than one grey level of contrast in all is an even image: correlating its rounding means nothing.
    unit: NDArray[np.float64] = plane / length if length > 1.0 else np.zeros_like(plane)
    return unit.astype(np.float32)


def _near(
    index_cases: Sequence[Case],
    answer_cases: Sequence[Case],
    looks: dict[ImageRef, Look],
    threshold: float,
) -> list[LeakPair]:
    """Pairs of cases with a pair of images whose thumbnails correlate; the largest correlation counts."""
    left, left_owner = _stack(index_cases, looks)
    right, right_owner = _stack(answer_cases, looks)
    best: dict[tuple[int, int], float] = {}
    for start in range(0, len(right), _BLOCK):
        block = right[start : start + _BLOCK]
        for low in range(0, len(left), _BLOCK):
            product = block @ left[low : low + _BLOCK].T
            # The float32 product proposes; a sum over the pair alone, in float64, decides.
            i, j = np.nonzero(product >= threshold - 1e-4)
            i, j = i + start, j + low
            exact = (right[i].astype(np.float64) * left[j]).sum(axis=1)
            for a, b, correlation in zip(i.tolist(), j.tolist(), exact.tolist(), strict=True):
                # Rounding of the thumbnails keeps exact copies a hair below 1.
                if correlation >= threshold - 1e-6:
                    key = (right_owner[a], left_owner[b])
                    best[key] = max(best.get(key, 0.0), min(1.0, correlation))
    return [
        LeakPair(index_cases[left_position].id, answer_cases[right_position].id, correlation)
        for (right_position, left_position), correlation in sorted(best.items())
    ]


def _stack(cases: Sequence[Case], looks: dict[ImageRef, Look]) -> tuple[NDArray[np.float32], list[int]]:
    """Thumbnails of all images of all cases, and whose they are."""
    rows = [(looks[ref][1], i) for i, case in enumerate(cases) for ref in case.images if ref in looks]
    matrix = np.stack([row for row, _ in rows]) if rows else np.zeros((0, _SIDE * _SIDE), np.float32)
    return matrix, [owner for _, owner in rows]
