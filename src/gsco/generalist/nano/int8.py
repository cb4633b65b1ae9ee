"""Matrix products in int8 that depend on nothing but their own row.

Weights have a scale for each output, inputs one for each token: so an answer does not depend on what else is
read in the same pass, as it would with one scale for a whole batch. A few channels of a language model are
many times as wide as the others and would take the whole range of a scale; these are multiplied in fp32
beside (Dettmers et al., LLM.int8(), 2022), chosen once when the model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.nn import functional

from gsco.errors import ModelError

WIDE_CHANNELS = 32
"""Input channels of a projection that stay in fp32: the widest on a sample of text."""

_TOP = 127.0
_ZERO = 128  # inputs are unsigned, as the processor's instruction wants them


def check_processor() -> None:
    """ModelError unless this processor's products of int8 are exact.

    Those without VNNI add pairs of products in 16 bits, which saturate, and say nothing.
    """
    if hasattr(torch.ops.onednn, "qlinear_pointwise"):
        extreme = torch.full((2, 64), 255, dtype=torch.uint8)
        weight = torch.full((16, 64), 127, dtype=torch.int8)
        found = _product(extreme, _pack(weight), torch.ones(16))
        if bool((found == 64 * 127 * (255 - _ZERO)).all()):
            return
    raise ModelError(
        "this processor does not multiply int8 exactly", remedy="Leave ?dtype=int8 out; fp32 is the default."
    )


def _pack(weight: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.onednn.qlinear_prepack(weight, None)
    return packed


def _product(x: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """``(x - 128) @ weight.T * scale``: uint8 (T, inputs), int8 packed, fp32 (outputs,) -> fp32."""
    zeros = torch.zeros(len(scale), dtype=torch.int32)
    found: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
        x, 1.0, _ZERO, packed, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return found


class Projection:
    """``x @ weight.T``, in fp32 until `to_int8` is called.

    Args:
        weight: (outputs, inputs), fp32.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight.detach()
        self._packed: torch.Tensor | None = None
        self._width: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(T, inputs) -> (T, outputs); `x` may be changed."""
        if self._packed is None:
            if self._width is not None:
                torch.maximum(self._width, x.abs().amax(0), out=self._width)
            return functional.linear(x, self.weight)
        aside = x.index_select(1, self._wide)
        x.index_fill_(1, self._wide, 0)
        scale = x.abs().amax(1, keepdim=True).clamp_(min=1e-12).div_(_TOP)
        whole = _product(x.div_(scale).round_().add_(_ZERO).to(torch.uint8), self._packed, self._scale)
        return whole.mul_(scale).addmm_(aside, self._aside)

    def to_int8(self, wide: torch.Tensor) -> None:
        """Pack the weights, all but the input channels `wide` (k,), which stay in fp32."""
        narrow = self.weight.clone()
        narrow[:, wide] = 0
        self._wide = wide
        self._aside = self.weight[:, wide].t().contiguous()
        self._scale = narrow.abs().amax(1).clamp_(min=1e-12).div_(_TOP)
        self._packed = _pack((narrow / self._scale[:, None]).round_().to(torch.int8))
        self.weight = self.weight[:0]

    def _watch(self) -> None:
        self._width = torch.zeros(self.weight.shape[1])

    def _watched(self) -> torch.Tensor:
        if self._width is None:
            raise RuntimeError("nothing was watched")
        width, self._width = self._width, None
        return width


@contextmanager
def choose_wide_channels(projections: Sequence[Projection]) -> Iterator[None]:
    """Watch what the projections are given inside of the block, and pack them by it at its end."""
    for projection in projections:
        projection._watch()
    yield
    for projection in projections:
        width = projection._watched()
        projection.to_int8(width.topk(min(WIDE_CHANNELS, len(width) // 2)).indices.sort().values)
