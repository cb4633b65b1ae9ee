"""MedDr-nano's language model read once over a tree of prompts, without a cache, in fp32 or int8.

The same numbers as transformers' Llama, up to floating point (a test compares them), with what a tree allows
beside it: a row of tokens attends to the places it may see and to no others, where one mask over the whole
tree would compute all pairs of places and throw most of them away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional

from gsco.generalist.nano.int8 import Projection, check_processor, choose_wide_channels
from gsco.generalist.option_tree import Row

Precision = Literal["fp32", "int8"]
Places = slice | torch.Tensor
"""Of tokens in the row; a slice where they are neighbours, which copies nothing."""

_SHORT = 16
"""Rows with fewer tokens share one call, under a mask."""


@dataclass(frozen=True, slots=True)
class _Look:
    """Which places a call of attention asks about, and which it may see.

    Attributes:
        asks: n places of the queries.
        sees: k places of the keys.
        bias: 0 where a query sees a key, -inf elsewhere, (n, k); None for causal, with the same places.
    """

    asks: Places
    sees: Places
    bias: torch.Tensor | None


class Reader:
    """Reads rows of tokens with the weights of a Llama model.

    Args:
        model: transformers' ``LlamaModel`` in fp32; its weights are shared, not copied, in fp32.
        precision: of the matrix products; see `gsco.generalist.nano.int8`.
        sample: embeddings (T, D) of any ordinary text, by which int8 finds the channels it leaves in fp32.

    Raises:
        ModelError: int8 on a processor that does not multiply it exactly.
    """

    def __init__(self, model: Any, precision: Precision = "fp32", *, sample: torch.Tensor | None = None):
        config = model.config
        self._heads: int = config.num_attention_heads
        self._shared: int = config.num_key_value_heads
        self._size: int = config.hidden_size // self._heads
        self._eps: float = config.rms_norm_eps
        self._rotary = model.rotary_emb
        self._last: torch.Tensor = model.norm.weight
        self._layers = [_Layer(layer) for layer in model.layers]
        if precision == "int8":
            if sample is None:
                raise ValueError("int8 needs a sample of text")
            check_processor()
            with choose_wide_channels([p for layer in self._layers for p in layer.projections]):
                self(sample, [Row(range(len(sample)), (), 0)])

    def __call__(self, embeds: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """Hidden states (T, D) of rows that lie one after the other.

        Args:
            embeds: of their tokens, (T, D).
            rows: what each row sees, and where it starts in its own sequence.
        """
        looks = _looks(rows, embeds.device)
        places = torch.cat([torch.arange(row.start, row.start + len(row.ids)) for row in rows])
        cos, sin = self._rotary(embeds[None], places[None].to(embeds.device))
        turn = cos[0][:, None], _signed(sin[0])[:, None]
        x = embeds
        for layer in self._layers:
            seen = layer.attention_input(functional.rms_norm(x, x.shape[1:], layer.before, self._eps))
            x = x + layer.attention_output(self._attend(seen, turn, looks))
            gate, up = layer.gate_up(functional.rms_norm(x, x.shape[1:], layer.after, self._eps)).chunk(2, 1)
            x = x + layer.down(functional.silu(gate).mul_(up))
        return functional.rms_norm(x, x.shape[1:], self._last, self._eps)

    def _attend(
        self, seen: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor], looks: Sequence[_Look]
    ) -> torch.Tensor:
        seen = seen.view(len(seen), self._heads + 2 * self._shared, self._size)
        turned, value = seen[:, : -self._shared], seen[:, -self._shared :]
        half = self._size // 2
        swapped = torch.cat([turned[..., half:], turned[..., :half]], dim=-1)
        turned = (turned * turn[0]).addcmul_(swapped, turn[1])
        query, key = turned[:, : self._heads], turned[:, self._heads :]
        out = torch.empty_like(query)
        for look in looks:
            found = functional.scaled_dot_product_attention(
                query[look.asks].transpose(0, 1)[None],
                key[look.sees].transpose(0, 1)[None],
                value[look.sees].transpose(0, 1)[None],
                attn_mask=look.bias,
                is_causal=look.bias is None,
                enable_gqa=True,
            )
            out[look.asks] = found[0].transpose(0, 1)
        return out.flatten(1)


class _Layer:
    """The weights of one decoder layer; what reads the same input is one projection."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.before: torch.Tensor = layer.input_layernorm.weight
        self.after: torch.Tensor = layer.post_attention_layernorm.weight
        self.attention_input = Projection(
            torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
        )
        self.attention_output = Projection(attention.o_proj.weight)
        self.gate_up = Projection(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]))
        self.down = Projection(mlp.down_proj.weight)

    @property
    def projections(self) -> tuple[Projection, ...]:
        return self.attention_input, self.attention_output, self.gate_up, self.down


def _signed(sin: torch.Tensor) -> torch.Tensor:
    """Sines for halves that are swapped without a change of sign."""
    half = sin.shape[-1] // 2
    return torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)


def _looks(rows: Sequence[Row], device: torch.device) -> list[_Look]:
    """The calls of attention that read all rows: one for each long row, one for all short ones."""
    ends = torch.tensor([len(row.ids) for row in rows]).cumsum(0).tolist()
    spans = [(end - len(row.ids), end) for row, end in zip(rows, ends, strict=True)]
    short = [i for i, row in enumerate(rows) if len(row.ids) < _SHORT]
    out = [_look([rows[i]], [spans[i]], device) for i in range(len(rows)) if i not in short]
    if short:
        out.append(_look([rows[i] for i in short], [spans[i] for i in short], device))
    return out


def _look(rows: Sequence[Row], spans: Sequence[tuple[int, int]], device: torch.device) -> _Look:
    asks = torch.cat([torch.arange(start, end) for start, end in spans])
    if len(rows) == 1 and not rows[0].sees:
        return _Look(_places(asks, device), _places(asks, device), None)
    seen = [{place for span in row.sees for place in range(*span)} for row in rows]
    sees = torch.tensor(sorted(set(asks.tolist()).union(*seen)))
    visible = torch.zeros(len(asks), len(sees), dtype=torch.bool)
    first = 0
    for (start, end), places in zip(spans, seen, strict=True):
        of_prefix = torch.tensor([place in places for place in sees.tolist()])
        own = (sees >= start) & (sees[None] <= torch.arange(start, end)[:, None])
        visible[first : first + end - start] = of_prefix | own
        first += end - start
    bias = torch.zeros(visible.shape).masked_fill_(~visible, -torch.inf).to(device)
    return _Look(_places(asks, device), _places(sees, device), bias)


def _places(places: torch.Tensor, device: torch.device) -> Places:
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1) if last - first + 1 == len(places) else places.to(device)
