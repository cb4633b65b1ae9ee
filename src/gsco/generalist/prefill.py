"""Score closed options with shared work: what prompts have in common goes through the model once.

Two prompts about one image share the image and the words before the evidence; the choices of one prompt
share the whole prompt. The common beginning is read once and kept as a key-value cache. Then all the
different endings are laid one after the other in a single row, each seeing the beginning, itself, and as
much of an earlier ending as it begins with (the arm that hears similar cases and specialists begins like
the one that hears similar cases); then all choices of all prompts likewise, each seeing its own prompt.
Unlike lengths cost no padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

Spans = tuple[tuple[int, int], ...]
"""Places in the cache, (start, end) each, in reading order."""

Forward = Callable[..., tuple[torch.Tensor, Any]]
"""``forward(ids (1, T), attention_mask (1, 1, T, past + T) bool or None, position_ids (1, T), cache)``
-> hidden states (1, T, D) and the cache, which then holds T tokens more."""


@dataclass(frozen=True, slots=True)
class Row:
    """A run of tokens to read.

    Attributes:
        ids: token ids, at least one.
        sees: what it may look at of the cache and of the rows before it, which stand in the cache's order
            behind what was there; itself it sees causally.
        start: position of its first token in its own sequence.
    """

    ids: Sequence[int]
    sees: Spans
    start: int


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Length of the longest run of ids that all sequences start with, leaving each at least one id more."""
    shortest = min(len(s) for s in sequences) - 1
    first = sequences[0]
    for i in range(shortest):
        if any(s[i] != first[i] for s in sequences[1:]):
            return i
    return max(shortest, 0)


def read_rows(
    forward: Forward, past: Any, past_length: int, rows: Sequence[Row], *, device: torch.device
) -> tuple[list[torch.Tensor], Any]:
    """Read several rows in one pass.

    Args:
        forward: see `Forward`.
        past: the cache (batch 1), or None where there is none; the rows are added to it.
        past_length: tokens in it.
        rows: what to read.
        device: of the model.

    Returns:
        Hidden states of each row (its length, D), and the cache with all rows in it.
    """
    lengths = [len(row.ids) for row in rows]
    ids = torch.tensor([[token for row in rows for token in row.ids]], device=device)
    positions = torch.cat([torch.arange(r.start, r.start + len(r.ids)) for r in rows])[None].to(device)
    mask = None
    if len(rows) > 1 or rows[0].sees != ((0, past_length),):  # else plain causal attention
        owner = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(lengths))
        visible = torch.zeros(len(rows), past_length + len(owner), dtype=torch.bool)
        for i, row in enumerate(rows):
            for start, end in row.sees:
                visible[i, start:end] = True
        seen = visible[owner]
        seen[:, past_length:] |= (owner[:, None] == owner[None, :]).tril()
        mask = seen[None, None].to(device)
    hidden, cache = forward(ids, mask, positions, past)
    return list(torch.split(hidden[0], lengths)), cache


def score_choices(
    forward: Forward,
    head: Callable[[torch.Tensor], torch.Tensor],
    past: Any,
    past_length: int,
    endings: Sequence[Sequence[int]],
    choices: Sequence[Sequence[Sequence[int]]],
    *,
    device: torch.device,
) -> list[torch.Tensor]:
    """Natural log-probability of each choice after each prompt, summed over the choice's tokens.

    Args:
        forward: see `Forward`.
        head: hidden states (..., D) -> logits (..., vocabulary).
        past: cache of the prompts' common beginning, or None; it is added to.
        past_length: tokens in it.
        endings: what each prompt has beyond it, token ids, at least one each.
        choices: token ids of each choice of each prompt, its end of turn included where that should count.
        device: of the model.

    Returns:
        One float64 tensor (n_choices,) a prompt, not normalised over the choices.
    """
    shared: Spans = ((0, past_length),) if past_length else ()
    rows, places = _as_tree(endings, shared, past_length)
    hidden, cache = read_rows(forward, past, past_length, rows, device=device)
    totals = []
    for states, group in zip(hidden, choices, strict=True):
        first = functional.log_softmax(head(states[-1]).double(), dim=-1)
        totals.append(first[torch.tensor([choice[0] for choice in group], device=device)])
    length = past_length + sum(len(row.ids) for row in rows)
    longer = [(p, c) for p, group in enumerate(choices) for c, choice in enumerate(group) if len(choice) > 1]
    if not longer:
        return totals
    rows = [Row(choices[p][c][:-1], (*shared, *places[p]), past_length + len(endings[p])) for p, c in longer]
    hidden, _ = read_rows(forward, cache, length, rows, device=device)
    for (p, c), states in zip(longer, hidden, strict=True):
        logp = functional.log_softmax(head(states).double(), dim=-1)
        rest = torch.tensor(choices[p][c][1:], device=device)
        totals[p][c] += logp.gather(1, rest[:, None]).sum()
    return totals


def _as_tree(
    endings: Sequence[Sequence[int]], shared: Spans, past_length: int
) -> tuple[list[Row], list[Spans]]:
    """A row for what each ending has beyond an earlier one, and where all of each ending then stands."""
    rows: list[Row] = []
    places: list[Spans] = []
    end = past_length
    for i, ending in enumerate(endings):
        begun: Spans = ()
        n = 0
        for earlier, place in zip(endings[:i], places, strict=True):
            common = common_prefix([earlier, ending])
            if common > n:
                n, begun = common, _first(place, common)
        rows.append(Row(ending[n:], (*shared, *begun), past_length + n))
        places.append((*begun, (end, end + len(ending) - n)))
        end += len(ending) - n
    return rows, places


def _first(spans: Spans, n: int) -> Spans:
    """The first `n` places of spans."""
    out = []
    for start, end in spans:
        if n > 0:
            out.append((start, min(end, start + n)))
        n -= end - start
    return tuple(out)


def normalised(total: torch.Tensor) -> tuple[float, ...]:
    """Log-probabilities among the choices only."""
    return tuple(float(x) for x in functional.log_softmax(total, dim=-1))
