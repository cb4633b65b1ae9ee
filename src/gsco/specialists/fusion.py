"""Fusing for inference on a CPU: batch norm into convolutions, activations into the convolution's kernel."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

log = logging.getLogger(__name__)


def for_inference(model: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """A channels-last copy of a network, fused as far as that leaves its features alone.

    Args:
        model: a network with timm's ``forward_features``, in eval mode; it is not changed.
        shape: (channels, height, width) of its input.
    """
    folded = fold_batch_norm(model, shape).to(memory_format=torch.channels_last).requires_grad_(False)
    return fuse_activations(folded, shape)


def fold_batch_norm(model: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """A copy of an eval-mode network with each batch norm folded into the convolution before it.

    Which norm follows which convolution is watched in one forward pass, not guessed from names. The
    result is compared with the original on a random picture; where they differ (a convolution that is
    used twice, say) the unfolded copy is returned.

    Args:
        model: the network, in eval mode.
        shape: (channels, height, width) of its input.
    """
    model = copy.deepcopy(model).eval()
    produced: dict[int, str] = {}
    kept: list[torch.Tensor] = []  # outputs stay alive so that no id is used twice
    pairs: list[tuple[str, str]] = []
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):

            def saw_conv(_module: nn.Module, _inputs: Any, output: torch.Tensor, name: str = name) -> None:
                kept.append(output)
                produced[id(output)] = name

            hooks.append(module.register_forward_hook(saw_conv))
        elif isinstance(module, nn.BatchNorm2d):

            def saw_norm(_module: nn.Module, inputs: Any, _output: Any, name: str = name) -> None:
                if id(inputs[0]) in produced:
                    pairs.append((produced[id(inputs[0])], name))

            hooks.append(module.register_forward_hook(saw_norm))
    probe = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.forward_features(probe)  # type: ignore[operator]
        for hook in hooks:
            hook.remove()
        folded = copy.deepcopy(model)
        for conv_name, norm_name in pairs:
            _fold_one(folded, conv_name, norm_name)
        actual = folded.forward_features(probe)  # type: ignore[operator]
    scale = float(expected.abs().max()) or 1.0
    return folded if float((actual - expected).abs().max()) <= 1e-4 * scale else model


def _fold_one(model: nn.Module, conv_name: str, norm_name: str) -> None:
    """Fold one norm into one convolution and put the norm's activation (timm's fused kind) in its place."""
    conv = cast("nn.Conv2d", model.get_submodule(conv_name))
    norm = cast("nn.BatchNorm2d", model.get_submodule(norm_name))
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        return
    scale = torch.rsqrt(variance + norm.eps) * (1.0 if norm.weight is None else norm.weight)
    shift = (0.0 if norm.bias is None else norm.bias) - mean * scale
    bias = shift if conv.bias is None else conv.bias * scale + shift
    conv.weight = nn.Parameter(conv.weight * scale[:, None, None, None])
    conv.bias = nn.Parameter(bias)
    parent, _, leaf = norm_name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, getattr(norm, "act", nn.Identity()))


class FusedConvolution(nn.Module):
    """A convolution and the activation after it as one oneDNN kernel, with weights in oneDNN's own layout.

    Args:
        conv: with bias; timm's "same" padding is understood.
        activation: oneDNN's name of the activation and its scalars.
        shape: of the input it will mostly see, (N, C, H, W).
    """

    def __init__(self, conv: nn.Conv2d, activation: tuple[str, list[float]], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.same = type(conv).__name__ == "Conv2dSame"
        self.kernel, self.stride, self.dilation = conv.kernel_size, list(conv.stride), list(conv.dilation)
        self.padding = [0, 0] if self.same else [int(side) for side in conv.padding]
        self.groups = conv.groups
        self.activation, self.scalars = activation
        reorder = torch.ops.mkldnn._reorder_convolution_weight
        self.packed = reorder(
            conv.weight.detach(), self.padding, self.stride, self.dilation, self.groups, list(shape)
        )
        self.bias = None if conv.bias is None else conv.bias.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the activated output."""
        if self.same:
            from timm.layers import pad_same

            x = pad_same(x, list(self.kernel), self.stride, self.dilation)
        done: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            x,
            self.packed,
            self.bias,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
            self.activation,
            self.scalars,
            "",
        )
        return done


def fuse_activations(model: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """The network with each convolution and the ReLU or ReLU6 right after it in one kernel.

    The kernels are those PyTorch's own compiler calls. Where this build of PyTorch has none, or where the
    features change, the network is returned as it came.

    Args:
        model: batch norm already folded, channels-last, in eval mode; it is not changed.
        shape: (channels, height, width) of its input.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return model
    probe = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))
    probe = probe.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = cast("Callable[..., torch.Tensor]", model.forward_features)(probe)
        fused = copy.deepcopy(model)
        try:
            for conv_name, activation_name, size in _conv_then_activation(fused, probe):
                _fuse_one(fused, conv_name, activation_name, size)
            actual = cast("Callable[..., torch.Tensor]", fused.forward_features)(probe)
        except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
            log.debug("activations are not fused: %s", error)
            return model
    scale = float(expected.abs().max()) or 1.0
    return fused if float((actual - expected).abs().max()) <= 1e-4 * scale else model


def _conv_then_activation(
    model: nn.Module, probe: torch.Tensor
) -> list[tuple[str, str | None, tuple[int, ...]]]:
    """Each plain convolution, the activation that alone takes its output, and the shape of its input."""
    found: list[tuple[str, str | None, tuple[int, ...]]] = []
    position: dict[int, tuple[int, int]] = {}
    kept: list[torch.Tensor] = []
    hooks = []
    for name, module in model.named_modules():
        if _is_plain(module):

            def saw_conv(_module: nn.Module, inputs: Any, output: torch.Tensor, name: str = name) -> None:
                kept.append(output)
                position[id(output)] = (len(found), output._version)
                found.append((name, None, tuple(inputs[0].shape)))

            hooks.append(module.register_forward_hook(saw_conv))
        elif isinstance(module, nn.ReLU | nn.ReLU6):

            def saw_activation(_module: nn.Module, inputs: Any, name: str = name) -> None:
                # the same tensor may have been added to in place on the way: then its version has moved on
                at, version = position.pop(id(inputs[0]), (-1, -1))
                if at >= 0 and version == inputs[0]._version:
                    found[at] = (found[at][0], name, found[at][2])

            hooks.append(module.register_forward_pre_hook(saw_activation))
    cast("Callable[..., torch.Tensor]", model.forward_features)(probe)
    for hook in hooks:
        hook.remove()
    names = [name for name, _, _ in found]
    return [row for row in found if names.count(row[0]) == 1]


def _is_plain(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d) or module.padding_mode != "zeros":
        return False
    return type(module).__name__ in {"Conv2d", "Conv2dSame"} and not isinstance(module.padding, str)


def _fuse_one(model: nn.Module, conv_name: str, activation_name: str | None, shape: tuple[int, ...]) -> None:
    conv = cast("nn.Conv2d", model.get_submodule(conv_name))
    kernel: tuple[str, list[float]] = ("none", [])
    if activation_name is not None:
        six = isinstance(model.get_submodule(activation_name), nn.ReLU6)
        kernel = ("hardtanh", [0.0, 6.0]) if six else ("relu", [])
        _put(model, activation_name, nn.Identity())
    _put(model, conv_name, FusedConvolution(conv, kernel, shape))


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
