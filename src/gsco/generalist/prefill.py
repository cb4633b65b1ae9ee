"""Score closed options with shared work: what prompts have in common goes through the model once.

Two prompts about one image share the image and the words before the evidence; the choices of one prompt
share the whole prompt. The common beginning is read once and kept as a key-value cache. The different
endings are laid one after the other in a single row, each seeing the beginning and itself only, so that
endings of unlike length cost no padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

Forward = Callable[..., tuple[torch.Tensor, Any]]
"""``forward(ids (1, T), attention_mask (1, 1, T, past + T) bool or None, position_ids (1, T), cache)``
-> hidden states (1, T, D) and the cache, which then holds T tokens more."""


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Length of the longest run of ids that all sequences start with, leaving each at least one id more."""
    shortest = min(len(s) for s in sequences) - 1
    first = sequences[0]
    for i in range(shortest):
        if any(s[i] != first[i] for s in sequences[1:]):
            return i
    return max(shortest, 0)


def continue_each(
    forward: Forward, past: Any, past_length: int, endings: Sequence[Sequence[int]], *, device: torch.device
) -> tuple[list[torch.Tensor], Any]:
    """Run several endings of one cached beginning in one pass.

    Args:
        forward: see `Forward`.
        past: cache of the beginning (batch 1), or None where there is none; the endings are added to it.
        past_length: tokens in it.
        endings: token ids, each at least one.
        device: of the model.

    Returns:
        Hidden states of each ending (its length, D), and the cache with all endings in it.
    """
    lengths = [len(ending) for ending in endings]
    total = sum(lengths)
    ids = torch.tensor([[token for ending in endings for token in ending]], device=device)
    positions = torch.cat([torch.arange(past_length, past_length + n) for n in lengths])[None].to(device)
    mask = None
    if len(endings) > 1:  # one ending alone is plain causal attention
        ending = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        own = (ending[:, None] == ending[None, :]).tril()
        seen = torch.ones(total, past_length, dtype=torch.bool)
        mask = torch.cat([seen, own], dim=1)[None, None].to(device)
    hidden, cache = forward(ids, mask, positions, past)
    return list(torch.split(hidden[0], lengths)), cache


def choice_log_probabilities(
    forward: Forward,
    head: Callable[[torch.Tensor], torch.Tensor],
    last_hidden: torch.Tensor,
    past: Any,
    past_length: int,
    choices: Sequence[Sequence[int]],
    *,
    device: torch.device,
) -> torch.Tensor:
    """Natural log-probability of each choice as a continuation, summed over its tokens.

    Args:
        forward: see `Forward`.
        head: hidden states (..., D) -> logits (..., vocabulary).
        last_hidden: hidden state at the prompt's last token, (D,).
        past: cache of the whole prompt; needed where a choice has more than one token, and added to.
        past_length: tokens in it.
        choices: token ids of each choice, its end of turn included where that should count.
        device: of the model.

    Returns:
        float64 (n_choices,), not normalised over the choices.
    """
    first = functional.log_softmax(head(last_hidden).double(), dim=-1)
    total = first[torch.tensor([c[0] for c in choices], device=device)]
    rows = [row for row, choice in enumerate(choices) if len(choice) > 1]
    if not rows:
        return total
    hidden, _ = continue_each(forward, past, past_length, [choices[r][:-1] for r in rows], device=device)
    for row, states in zip(rows, hidden, strict=True):
        logp = functional.log_softmax(head(states).double(), dim=-1)
        rest = torch.tensor(choices[row][1:], device=device)
        total[row] += logp.gather(1, rest[:, None]).sum()
    return total


def normalised(total: torch.Tensor) -> tuple[float, ...]:
    """Log-probabilities among the choices only."""
    return tuple(float(x) for x in functional.log_softmax(total, dim=-1))
