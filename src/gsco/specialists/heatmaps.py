"""Heat maps: which places of a picture speak for a specialist's answer.

A heat map shows where the features lie that raised the option's score. It is no segmentation, and no proof
that the specialist looked at the right thing for the right reason (`gsco.specialists.randomisation` tests the
least that must hold).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gsco.cases import ImageRef
from gsco.cases.images import load_image
from gsco.errors import LabelError, ModelError
from gsco.specialists.backbones import Backbone
from gsco.specialists.bagged import BaggedSpecialist, principal
from gsco.specialists.epochs_head import EpochsHead
from gsco.specialists.features import extract
from gsco.specialists.heads import FeatureSpecialist
from gsco.specialists.knn import NearestNeighbours
from gsco.specialists.linear import LinearProbe
from gsco.specialists.networks import NetworkSpecialist

if TYPE_CHECKING:
    from gsco.specialists.base import Specialist


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """Where a specialist found what speaks for an option.

    Attributes:
        values: float32 (H, W) of the picture as `gsco.cases.load_image` reads it, in [0, 1]: 1 at the place
            that speaks most for the option, 0 where nothing does; all 0 where no place does.
        specialist: its name.
        option: key of the option explained.
        probability: the specialist's calibrated probability of it.
        method: ``grad-cam``, ``cam`` or ``similarity``.
    """

    values: NDArray[np.float32]
    specialist: str
    option: str
    probability: float
    method: str

    @property
    def empty(self) -> bool:
        """Whether no place speaks for the option."""
        return not self.values.any()

    def to_dict(self) -> dict[str, Any]:
        """JSON values: all but the map itself, and how large it is."""
        height, width = self.values.shape
        return {
            "specialist": self.specialist,
            "option": self.option,
            "probability": self.probability,
            "method": self.method,
            "empty": self.empty,
            "height": height,
            "width": width,
        }


class Explainer(ABC):
    """Makes heat maps of one specialist; keeps what is costly to set up.

    Attributes:
        method: how the maps are made.
        specialist: whose answers are explained.
    """

    method: str

    def __init__(self, specialist: Any) -> None:
        self.specialist = specialist

    @abstractmethod
    def evidence(self, image: ImageRef, option: int) -> NDArray[np.floating[Any]]:
        """How much each position of a coarse grid speaks for an option, (h, w), any scale and sign."""

    def explain(self, image: ImageRef, option: str | None = None, *, side: int | None = None) -> Heatmap:
        """The heat map of one image.

        Args:
            image: what to explain.
            option: key of the option; the specialist's own answer when None.
            side: longer side of the map in pixels where it shall be smaller than the picture.

        Raises:
            LabelError: the specialist has no such option.
            ImageError: the image cannot be read.
            ModelError: the network has no feature maps.
        """
        options = tuple(self.specialist.options)
        if option is not None and option not in options:
            raise LabelError(
                f"specialist {self.specialist.name!r} has no option {option!r}",
                remedy=f"Choose one of: {', '.join(options)}.",
            )
        width, height = load_image(image).size
        probabilities = self.specialist.predict([image])[0]
        position = int(np.argmax(probabilities)) if option is None else options.index(option)
        scale = min(1.0, (side or max(width, height)) / max(width, height))
        shape = (max(1, round(height * scale)), max(1, round(width * scale)))
        return Heatmap(
            values=spread(self.evidence(image, position), shape, inner=self._inner()),
            specialist=self.specialist.name,
            option=options[position],
            probability=float(probabilities[position]),
            method=self.method,
        )

    def _inner(self) -> float:
        """Side of the picture as a share of the network's input, which is padded around it."""
        eye = self._eye()
        return float(eye.size / (eye.pad or eye.size))

    def _eye(self) -> Backbone:
        """The network that pictures go into."""
        specialist = principal(self.specialist)
        found: Backbone = (
            specialist.network if isinstance(specialist, NetworkSpecialist) else specialist.backbone
        )
        return found


def heatmap(specialist: Specialist, image: ImageRef, option: str | None = None) -> Heatmap:
    """Where a specialist found what speaks for its answer, or for another option.

    Networks are explained by Grad-CAM (Selvaraju et al., 2017), linear heads on pooled features by their
    class activation map (Zhou et al., 2016), which is exact, and nearest neighbours by what each place adds
    to the similarity with those that vote for the option.

    Args:
        specialist: a network, a linear head on pooled features, nearest neighbours, or several of one kind.
        image: what to explain.
        option: key of the option; the specialist's own answer when None.

    Raises:
        ModelError: the specialist has no heat map, or captum is not installed.
        LabelError: the specialist has no such option.
        ImageError: the image cannot be read.
    """
    return explainer(specialist).explain(image, option)


def explainer(specialist: Specialist) -> Explainer:
    """What makes heat maps of this specialist, for more than one image; ModelError where it has none."""
    if isinstance(specialist, BaggedSpecialist):
        return BaggedExplainer(specialist)
    if isinstance(specialist, NetworkSpecialist | EpochsHead):
        return NetworkExplainer(specialist)
    if isinstance(specialist, FeatureSpecialist) and specialist.features == "texture":
        raise ModelError(
            f"specialist {specialist.name!r} has no heat map: its features are statistics without places",
            remedy="Explain a network, a linear probe or a k-NN on pooled features.",
        )
    if isinstance(specialist, LinearProbe):
        return LinearExplainer(specialist)
    if isinstance(specialist, NearestNeighbours):
        return NeighbourExplainer(specialist)
    raise ModelError(
        f"specialist {specialist.name!r} has no heat map: how it computes is not known",
        remedy="Explain a network, a linear probe or a k-NN on pooled features.",
    )


class NetworkExplainer(Explainer):
    """Grad-CAM of the uncalibrated logit, which the temperature does not move."""

    method = "grad-cam"

    def __init__(self, specialist: NetworkSpecialist | EpochsHead) -> None:
        from gsco.specialists.gradcam import GradCAM

        super().__init__(specialist)
        self._gradcam = GradCAM(specialist.plain_network())

    def evidence(self, image: ImageRef, option: int) -> NDArray[np.floating[Any]]:
        """Positive evidence, (h, w)."""
        pixels = self._eye().transform(load_image(image))[None].contiguous()
        grid: NDArray[np.floating[Any]] = self._gradcam.grid(pixels, option).numpy()
        return grid


class PooledExplainer(Explainer):
    """Heads on the mean of the last feature maps: what holds for the mean holds for each place before it."""

    def _places(self, image: ImageRef) -> NDArray[np.float64]:
        """Features at each position less their mean over the training cases, (h, w, channels)."""
        maps = extract(self.specialist.backbone, [image], cache=None, kind="maps")[0]
        places: NDArray[np.float64] = np.moveaxis(maps, 0, -1).astype(np.float64) - self.specialist.mean
        return places


class LinearExplainer(PooledExplainer):
    """Class activation map: the head at each position. Its mean over all positions is the logit."""

    method = "cam"

    def evidence(self, image: ImageRef, option: int) -> NDArray[np.floating[Any]]:
        """Share of the logit, without the bias, at each position, (h, w)."""
        head: LinearProbe = self.specialist
        share: NDArray[np.float64] = self._places(image) @ (head.weight[option] * head.inverse)
        return share


class NeighbourExplainer(PooledExplainer):
    """What each position adds to the similarity with the neighbours that vote for the option.

    The mean over all positions is their mean similarity, weighted as they vote.
    """

    method = "similarity"

    def evidence(self, image: ImageRef, option: int) -> NDArray[np.floating[Any]]:
        """Share of the cosine similarity at each position, (h, w); 0 where no neighbour has the option."""
        head: NearestNeighbours = self.specialist
        places = self._places(image)
        query = places.mean(axis=(0, 1))
        length = max(float(np.linalg.norm(query)), 1e-12)
        rows, weights = head.voters(query / length)
        mine = (head.labels[rows, option] > 0) if head.multi_label else (head.labels[rows] == option)
        if not mine.any():
            return np.zeros(places.shape[:2])
        towards = np.average(head.bank[rows[mine]].astype(np.float64), axis=0, weights=weights[mine])
        share: NDArray[np.float64] = places @ (towards / length)
        return share


class BaggedExplainer(Explainer):
    """The mean of what the members' explainers find."""

    def __init__(self, specialist: BaggedSpecialist) -> None:
        super().__init__(specialist)
        self._each = [explainer(member) for member in specialist.members]
        self.method = self._each[0].method

    def evidence(self, image: ImageRef, option: int) -> NDArray[np.floating[Any]]:
        """Mean over the members, (h, w)."""
        mean: NDArray[np.floating[Any]] = np.mean(
            [each.evidence(image, option) for each in self._each], axis=0
        )
        return mean


def spread(
    grid: NDArray[np.floating[Any]], shape: tuple[int, int], *, inner: float = 1.0
) -> NDArray[np.float32]:
    """What is positive, spread over a picture by bicubic interpolation and scaled to a maximum of 1.

    Args:
        grid: (h, w) over the network's input.
        shape: (H, W) of the picture.
        inner: side of the picture, which stands in the middle, as a share of the input's side.

    Returns:
        float32 (H, W); zeros where nothing is positive.
    """
    import torch
    from torch.nn.functional import interpolate

    positive = torch.from_numpy(np.maximum(grid, 0).astype(np.float32))[None, None]
    whole = (round(shape[0] / inner), round(shape[1] / inner))
    values = interpolate(positive, size=whole, mode="bicubic", align_corners=False)[0, 0].clamp_(min=0)
    top, left = (whole[0] - shape[0]) // 2, (whole[1] - shape[1]) // 2
    values = values[top : top + shape[0], left : left + shape[1]]
    highest = float(values.max())
    if not np.isfinite(highest) or highest <= 0:
        return np.zeros(shape, dtype=np.float32)
    return np.asarray((values / highest).numpy(), dtype=np.float32)
