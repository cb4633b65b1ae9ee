"""Frozen image backbones: any timm model, with the embedded EfficientNet-Lite0 as the default.

`load_backbone` gives a `Backbone`: pictures in, feature maps or pooled vectors out. It is made for
throughput on a CPU: batch norm and activations are fused into the convolutions, tensors are
channels-last, and images go through in blocks of four, which on the machines measured is both the
fastest block and one whose numbers do not depend on what else is in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gsco.errors import ModelError
from gsco.specialists.fusion import for_inference
from gsco.specialists.named_networks import DEFAULT_BACKBONE, MISFITS, frozen_network, misfit
from gsco.specialists.preparation import stretched

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn


BLOCK = 4


class Backbone:
    """A frozen network that turns pictures into features.

    Attributes:
        name: the timm name or folder it was made from.
        size: side of the square in pixels that a picture is stretched to.
        pad: side to which that square, normalised, is padded with zeros; None where it is not.
        channels: channels of the last feature maps, which is the length of a pooled vector.
        pretrained: whether the weights were learned from anything.
        fingerprint: SHA-256 over weights and transform (hex); two backbones with the same fingerprint
            give the same features.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        interpolation: str = "bicubic",
        pretrained: bool = True,
        pad: int | None = None,
    ) -> None:
        import torch

        self.name = name
        self.size = size
        self.pad = pad if pad and pad > size else None
        self.pretrained = pretrained
        self.interpolation = interpolation
        self._mean = torch.tensor(mean, dtype=torch.float32).mul(255)[:, None, None]
        self._scale = 1 / torch.tensor(std, dtype=torch.float32).mul(255)[:, None, None]
        transform = f"resize {size} {interpolation} mean {tuple(mean)} std {tuple(std)}"
        self.fingerprint = _fingerprint(model, transform + (f" pad {self.pad}" if self.pad else ""))
        side = self.pad or size
        try:
            self.model: Any = for_inference(model, (3, side, side))
            self.channels = int(self.maps([np.zeros((size, size, 3), dtype=np.uint8)]).shape[1])
        except MISFITS as error:
            raise misfit(name, side, error) from error

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """One RGB picture stretched to (size, size, 3) uint8; see `stretched`."""
        return stretched(image, self.size, self.interpolation)

    @property
    def normalisation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What is taken from a pixel of 0 to 255, and by what the rest is multiplied; each (3, 1, 1)."""
        return self._mean, self._scale

    def transform(self, image: Image.Image) -> torch.Tensor:
        """One RGB picture to the network's input, float32 (3, size, size), normalised."""
        return self._batch([self.prepare(image)])[0]

    def maps(self, images: Sequence[NDArray[np.uint8] | Image.Image]) -> NDArray[np.float32]:
        """Last feature maps, float32 (N, channels, H, W); pictures, or arrays from `prepare`."""
        return self.apply(images, lambda batch: [self._last(batch)])[0]

    def pooled(self, images: Sequence[NDArray[np.uint8] | Image.Image]) -> NDArray[np.float32]:
        """Mean of the last feature maps over all positions, float32 (N, channels)."""
        return self.apply(images, lambda batch: [self._last(batch).mean(dim=(2, 3))])[0]

    def _last(self, batch: torch.Tensor) -> torch.Tensor:
        return as_maps(self.model, self.model.forward_features(batch))

    def prelogits(self, images: Sequence[NDArray[np.uint8] | Image.Image]) -> NDArray[np.float32]:
        """What the network's own last layer would see, float32 (N, D).

        Raises:
            ModelError: the network has no head of timm's kind.
        """
        if not hasattr(self.model, "forward_head"):
            raise ModelError(f"backbone {self.name!r} has no head", remedy="Use pooled features.")

        def before_logits(batch: torch.Tensor) -> list[torch.Tensor]:
            return [self.model.forward_head(self.model.forward_features(batch), pre_logits=True).flatten(1)]

        return self.apply(images, before_logits)[0]

    def pooled_and_texture(
        self, images: Sequence[NDArray[np.uint8] | Image.Image]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Pooled last maps, and means and standard deviations of every stage's maps, in one pass.

        Returns:
            float32 (N, channels) and float32 (N, 2 x sum of the stages' channels).

        Raises:
            ModelError: timm cannot give this model's intermediate maps.
        """

        def both(batch: torch.Tensor) -> list[torch.Tensor]:
            import torch

            last, stages = self.model.forward_intermediates(batch, output_fmt="NCHW")
            parts: list[torch.Tensor] = []
            for stage in stages:
                # channels-last in memory, so this is a view, and the sums run along it
                positions = stage.permute(0, 2, 3, 1).flatten(1, 2)
                mean = positions.mean(dim=1, keepdim=True)
                deviation = (positions - mean).square_().mean(dim=1).sqrt_()
                parts += [mean.squeeze(1), deviation]
            return [as_maps(self.model, last).mean(dim=(2, 3)), torch.cat(parts, dim=1)]

        if not hasattr(self.model, "forward_intermediates"):
            raise ModelError(
                f"backbone {self.name!r} does not give its intermediate maps",
                remedy="Choose another backbone for the texture probe, e.g. texture_probe:resnet18.",
            )
        pooled, texture = self.apply(images, both)
        return pooled, texture

    def apply(
        self, images: Sequence[NDArray[np.uint8] | Image.Image], forward: Any
    ) -> list[NDArray[np.float32]]:
        """Run `forward` (of a normalised float32 batch) over the pictures in blocks; one array per output."""
        import torch

        if not images:
            raise ValueError("no images")
        pieces: list[list[NDArray[np.float32]]] = []
        with torch.inference_mode():
            for start in range(0, len(images), BLOCK):
                block = [self._array(image) for image in images[start : start + BLOCK]]
                pieces.append([out.contiguous().numpy() for out in forward(self._batch(block))])
        return [np.concatenate(column) for column in zip(*pieces, strict=True)]

    def _array(self, image: NDArray[np.uint8] | Image.Image) -> NDArray[np.uint8]:
        return image if isinstance(image, np.ndarray) else self.prepare(image)

    def _batch(self, arrays: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """(N, 3, size, size) float32, channels-last in memory because the arrays are."""
        import torch

        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).to(torch.float32)
        return pad_to(pixels.sub_(self._mean).mul_(self._scale), self.pad)


def load_backbone(
    name: str = DEFAULT_BACKBONE,
    *,
    pretrained: bool = True,
    size: int | None = None,
    scratch_ok: bool = False,
    cache: Path | None = None,
    pad: int | None = None,
) -> Backbone:
    """A backbone by timm name or folder.

    Args:
        name: ``"embedded"`` or ``"tf_efficientnet_lite0"`` for the embedded weights; any other timm name
            (weights from the Hub where it can be reached); or a folder in timm's own layout
            (``config.json`` and ``model.safetensors``).
        pretrained: False for random weights.
        size: side of the square input; the model's own when None.
        scratch_ok: where weights are out of reach, go on with random ones (and log a warning) rather
            than raise. Sensible only for a network that will be trained.
        cache: where the embedded weights are kept; see `gsco.embedded`.
        pad: side to which normalised pictures are padded with zeros.

    Raises:
        ModelError: no such model, its weights cannot be had, or it cannot take that size.
    """
    name = DEFAULT_BACKBONE if name == "embedded" else name
    model, learned = frozen_network(
        name, pretrained=pretrained, scratch_ok=scratch_ok, cache=cache, side=pad or size
    )
    config = model.pretrained_cfg
    side = size or int(config.get("input_size", (3, 224, 224))[-1])
    interpolation = config.get("interpolation") or "bicubic"
    return Backbone(
        model,
        name=name,
        size=side,
        mean=config["mean"],
        std=config["std"],
        interpolation=interpolation if interpolation in {"bilinear", "bicubic", "lanczos"} else "bicubic",
        pretrained=learned,
        pad=pad,
    )


def as_maps(model: Any, features: torch.Tensor) -> torch.Tensor:
    """Features of any timm family as (N, C, H, W): token grids are un-flattened, NHWC is permuted."""
    if features.ndim == 4:
        nhwc = getattr(model, "output_fmt", "NCHW") == "NHWC"
        return features.permute(0, 3, 1, 2) if nhwc else features
    if features.ndim == 3:
        tokens = features[:, int(getattr(model, "num_prefix_tokens", 0)) :]
        side = int(tokens.shape[1] ** 0.5)
        if side * side == tokens.shape[1]:
            return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
        return tokens.transpose(1, 2).unsqueeze(2)
    return features.flatten(1)[:, :, None, None]


def pad_to(pictures: torch.Tensor, side: int | None) -> torch.Tensor:
    """(N, C, H, W) with zeros around it up to (N, C, side, side), centred; as it is where no smaller."""
    import torch

    height, width = pictures.shape[-2:]
    if side is None or (side <= height and side <= width):
        return pictures
    more_y, more_x = max(0, side - height), max(0, side - width)
    around = (more_x // 2, more_x - more_x // 2, more_y // 2, more_y - more_y // 2)
    return torch.nn.functional.pad(pictures, around)


def weights_mark(model: nn.Module) -> str:
    """Hash of a network's class and all its weights."""
    return _fingerprint(model, "")


def _fingerprint(model: nn.Module, transform: str) -> str:
    digest = hashlib.sha256(f"gsco-features-1\n{type(model).__name__}\n{transform}\n".encode())
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
