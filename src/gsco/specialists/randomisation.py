"""The least that must hold of a heat map: it changes when what was learned is taken away.

Adebayo et al. (2018) found methods whose maps stay alike when the weights are random: those show edges of the
image, not what the network learned.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import ImageRef
from gsco.errors import ModelError
from gsco.specialists.bagged import BaggedSpecialist, principal
from gsco.specialists.heads import FeatureSpecialist
from gsco.specialists.heatmaps import explainer
from gsco.specialists.knn import NearestNeighbours
from gsco.specialists.linear import LinearProbe
from gsco.specialists.networks import NetworkSpecialist

_SIDE = 32  # of the maps that are compared, in pixels


@dataclass(frozen=True, slots=True)
class Randomised:
    """What was randomised, and how alike the maps still are.

    Attributes:
        part: name of the part up to which, counted from the answer, weights are random.
        correlation: mean Spearman rank correlation with the maps of the trained specialist, in [-1, 1]; a map
            without any variation counts as 0.
    """

    part: str
    correlation: float


def randomisation_test(
    specialist: Any, images: Sequence[ImageRef], *, cascade: bool = True, seed: int = 0
) -> list[Randomised]:
    """How much heat maps depend on what was learned (Adebayo et al., 2018).

    Weights are permuted within each tensor, which destroys what was learned and keeps their scale. For a head
    on frozen features it is the head that is randomised: the backbone has learned nothing of the set.

    Args:
        specialist: one that has heat maps.
        images: whose maps are compared; each for the option that the trained specialist chose.
        cascade: randomise part by part, from the answer to the image, else all at once.
        seed: of the permutations.

    Returns:
        One row per step.

    Raises:
        ModelError: the specialist has no heat maps.
    """
    whole = explainer(specialist)
    before = [whole.explain(image, side=_SIDE) for image in images]
    parts = _parts(principal(specialist))
    steps = [parts[: i + 1] for i in range(len(parts))] if cascade else [parts]
    out = []
    for step in steps:
        made = explainer(_randomised(specialist, [name for _, names in step for name in names], seed))
        after = [
            made.explain(image, old.option, side=_SIDE) for image, old in zip(images, before, strict=True)
        ]
        alike = [rank_correlation(a.values, b.values) for a, b in zip(before, after, strict=True)]
        out.append(Randomised(step[-1][0] if cascade else "all", float(np.mean(alike))))
    return out


def rank_correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Spearman's rank correlation of two maps of one shape; 0 where one of them is flat."""
    from scipy.stats import rankdata

    one, other = rankdata(a.ravel()), rankdata(b.ravel())
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _parts(specialist: Any) -> list[tuple[str, list[str]]]:
    """Names of tensors by top-level part, from the answer to the image."""
    if isinstance(specialist, LinearProbe):
        return [("head", ["weight"])]
    if isinstance(specialist, NearestNeighbours):
        return [("head", ["bank"])]
    parts: dict[str, list[str]] = {}
    for name in specialist.plain_network().state_dict():
        top, _, rest = name.partition(".")
        second = rest.partition(".")[0]
        # the blocks of a body count each for themselves
        parts.setdefault(f"{top}.{second}" if second.isdigit() else top, []).append(name)
    return list(parts.items())[::-1]


def _randomised(specialist: Any, names: Sequence[str], seed: int) -> Any:
    """A copy whose tensors of these names are permuted, each by a draw of its own."""
    made = copy.copy(specialist)
    if isinstance(made, BaggedSpecialist):
        made.members = tuple(_randomised(member, names, seed) for member in made.members)
        return made
    if isinstance(made, FeatureSpecialist):
        for name in names:
            setattr(made, name, _permuted(getattr(made, name), name, seed))
    elif isinstance(made, NetworkSpecialist):
        import torch

        state = made.plain_network().state_dict()
        for name in names:
            state[name] = torch.from_numpy(np.asarray(_permuted(state[name].numpy(), name, seed)))
        made.adopt(state)
    else:
        raise ModelError(f"specialist {specialist.name!r} cannot be randomised")
    return made


def _permuted(values: NDArray[Any], name: str, seed: int) -> NDArray[Any]:
    rng = np.random.default_rng([seed, *name.encode()])
    return rng.permutation(values.ravel()).reshape(values.shape)
