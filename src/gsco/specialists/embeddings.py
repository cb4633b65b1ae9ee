"""Embeddings of any specialist: of a head, the features it stands on; of a network, its own last maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gsco.cases import ImageRef
from gsco.errors import ModelError
from gsco.progress import Count
from gsco.specialists.base import Specialist
from gsco.specialists.features import extract


def embed(
    specialist: Specialist,
    images: Sequence[ImageRef],
    *,
    pooled: bool = True,
    cache: Path | None = None,
    progress: Count | None = None,
) -> NDArray[np.float32]:
    """What a specialist makes of images before it decides, from the store or computed.

    The store is keyed by the fingerprint of weights and transform (`gsco.specialists.features.extract`), so
    specialists that share a backbone share its features, and a killed call goes on where it was.

    Args:
        specialist: a head on frozen features gives those features (a texture probe its texture); a network
            gives the last maps before its classifier, or their mean over all positions; one trained in
            folds gives what its member gives that learned from all cases; a specialist of another package
            gives what its own ``embed(images)`` returns.
        images: the images, at least one.
        pooled: vectors when True, maps with their positions when False.
        cache: folder of the store; the specialist's own, if it has one, when None.
        progress: called with (images done, images in all).

    Returns:
        float32, (N, D) for pooled vectors, (N, channels, H, W) for maps.

    Raises:
        ModelError: this specialist gives no (un-pooled) embeddings.
        ImageError: an image cannot be read.
    """
    from gsco.specialists.bagged import principal
    from gsco.specialists.heads import FeatureSpecialist
    from gsco.specialists.networks import NetworkSpecialist

    specialist = principal(specialist)
    if isinstance(specialist, FeatureSpecialist):
        kind = specialist.features if pooled else "maps"
        store = cache or specialist.cache
        return extract(specialist.backbone, images, cache=store, kind=kind, progress=progress)
    if isinstance(specialist, NetworkSpecialist):
        return extract(specialist.network, images, cache=cache, pooled=pooled, progress=progress)
    own = getattr(specialist, "embed", None)
    if own is None or not pooled:
        raise ModelError(
            f"specialist {specialist.name!r} gives no {'' if pooled else 'un-pooled '}embeddings",
            remedy="Take one that was trained by this package, or give its class a method embed(images).",
        )
    return np.asarray(own(images), dtype=np.float32)
