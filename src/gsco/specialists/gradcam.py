"""Grad-CAM of any timm or torchvision network: which feature maps to look at, and how much each place counts.

The maps are found by watching one pass, not by a table of names: the last ones before pooling on whose places
the logit depends. In a transformer that reads its answer from a class token, the patches of the last
block no longer count, so these are the tokens that go into its attention.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from gsco.errors import ModelError

LEAST_SIDE = 6
"""Maps of fewer positions a side say too little; earlier ones are taken, where the network has any.

Of 4, 6 and 8 the one whose maps lie most on what phantoms show (`benchmarks/heatmaps.py`, other phantoms)."""
LEAST_SIDE_OF_PATCHES = 4
"""The same of transformers, whose maps keep one side: a larger one would be a padded window."""

_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


class GradCAM:
    """Gradient-weighted class activation maps (Selvaraju et al., 2017), computed by captum.

    Args:
        model: network from normalised (1, 3, S, S) to logits (1, options), in eval mode; its weights are
            frozen, nothing else is changed.

    Raises:
        ModelError: captum is not installed.
    """

    def __init__(self, model: nn.Module) -> None:
        try:
            import captum.attr  # type: ignore[import-untyped]
        except ImportError:
            raise ModelError(
                "heat maps of networks need captum, which is not installed",
                remedy="Install it: pip install 'gsco[explain]'.",
            ) from None
        self._captum = captum.attr
        self.model = model.eval().requires_grad_(False)
        self._prefix = int(getattr(model, "num_prefix_tokens", 0))
        self.layer: str | None = None

    def grid(self, pixels: torch.Tensor, option: int) -> torch.Tensor:
        """How much each position speaks for an option, float32 (h, w), not negative.

        Args:
            pixels: one normalised picture, (1, 3, S, S).
            option: position of the logit to explain.

        Raises:
            ModelError: the network has no feature maps on which the logit depends.
        """
        if self.layer is None:
            self.layer = self._find(pixels, option)
        spy = nn.Identity()
        with self._watched(self.model.get_submodule(self.layer), spy), torch.enable_grad():
            cam = self._captum.LayerGradCam(self.model, spy)
            found = cam.attribute(pixels.clone().requires_grad_(True), target=option, relu_attributions=True)
        grid: torch.Tensor = found.detach()[0, 0]
        return grid

    @contextmanager
    def _watched(self, module: nn.Module, spy: nn.Module) -> Iterator[None]:
        """Send the module's output through `spy` as (1, C, h, w); tokens before the grid go past it."""

        def through(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            if output.ndim == 4:
                if not self._is_nhwc(output):
                    return spy(output)  # type: ignore[no-any-return]
                return spy(output.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # type: ignore[no-any-return]
            tokens = output[:, self._prefix :].transpose(1, 2)
            side = round(tokens.shape[2] ** 0.5)
            passed = spy(tokens.reshape(*tokens.shape[:2], side, side)).flatten(2).transpose(1, 2)
            return torch.cat([output[:, : self._prefix], passed], dim=1)

        hook = module.register_forward_hook(through)
        try:
            yield
        finally:
            hook.remove()

    def _find(self, pixels: torch.Tensor, option: int) -> str:
        """Name of the module that gives the maps."""
        seen: list[tuple[str, nn.Module, torch.Tensor]] = []

        def look(name: str) -> Any:
            def saw(module: nn.Module, _inputs: Any, output: Any) -> None:
                if isinstance(output, torch.Tensor):
                    seen.append((name, module, output))

            return saw

        hooks = [m.register_forward_hook(look(name)) for name, m in self.model.named_modules() if name]
        try:
            with torch.enable_grad():
                logits = self.model(pixels.clone().requires_grad_(True))
        finally:
            for hook in hooks:
                hook.remove()
        calls = Counter(name for name, _, _ in seen)
        shape = self._token_shape(pixels)
        fitting = [
            (name, output)
            for name, module, output in seen
            if calls[name] == 1 and output.requires_grad and self._fits(module, output, shape)
        ]
        outputs = [output for _, output in fitting]
        gradients = torch.autograd.grad(logits[0, option], outputs, allow_unused=True) if outputs else ()
        alive = [
            (name, self._side(output))
            for (name, output), gradient in zip(fitting, gradients, strict=True)
            if gradient is not None and self._counts(gradient)
        ]
        if not alive:
            raise ModelError(
                f"{type(self.model).__name__} has no feature maps on which its answer depends",
                remedy="Explain a convolutional network or a vision transformer.",
            )
        wanted = LEAST_SIDE_OF_PATCHES if hasattr(self.model, "patch_embed") else LEAST_SIDE
        least = min(wanted, max(side for _, side in alive))
        return [name for name, side in alive if side >= least][-1]

    def _token_shape(self, pixels: torch.Tensor) -> tuple[int, ...] | None:
        """Shape of the tokens that the network ends in; None where it ends in maps."""
        if not hasattr(self.model, "forward_features"):
            return None
        with torch.no_grad():
            features = self.model.forward_features(pixels)  # type: ignore[operator]
        square = round(max(features.shape[1] - self._prefix, 0) ** 0.5) ** 2 + self._prefix
        return tuple(features.shape) if features.ndim == 3 and square == features.shape[1] else None

    def _fits(self, module: nn.Module, output: torch.Tensor, tokens: tuple[int, ...] | None) -> bool:
        if tokens is not None:  # a Linear of this shape is a projection inside the attention
            return tuple(output.shape) == tokens and not isinstance(module, nn.Linear)
        square = output.ndim == 4 and (output.shape[2] == output.shape[3] or self._is_nhwc(output))
        return square and self._side(output) > 1 and not isinstance(module, _POOLS)

    def _is_nhwc(self, output: torch.Tensor) -> bool:
        """Pictures are square, so the two sides that are alike are height and width."""
        _, one, two, three = output.shape
        return one == two and (two != three or getattr(self.model, "output_fmt", "NCHW") == "NHWC")

    def _side(self, output: torch.Tensor) -> int:
        if output.ndim == 3:
            return round(math.sqrt(output.shape[1] - self._prefix))
        return int(output.shape[1] if self._is_nhwc(output) else output.shape[2])

    def _counts(self, gradient: torch.Tensor) -> bool:
        """Whether the answer depends on positions at all, not on the tokens before them alone."""
        if gradient.ndim == 3:
            strength = gradient[0, self._prefix :].abs().amax(dim=1)
        else:
            strength = gradient[0].abs().amax(dim=2 if self._is_nhwc(gradient) else 0)
        return bool((strength > 0).any())
