"""Score closed options with shared work: what prompts have in common goes through the model once.

Two prompts about one image share the image and the words before the evidence; the choices of one prompt
share the whole prompt. Both are read once, kept as a key-value cache, and continued in a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

Forward = Callable[..., Any]
"""``forward(ids (B, T), attention_mask (B, past + T), position_ids (B, T), past_key_values)`` -> an
output with ``hidden`` (B, T, D) and ``past_key_values``."""


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Length of the longest run of ids that all sequences start with, leaving each at least one id more."""
    shortest = min(len(s) for s in sequences) - 1
    first = sequences[0]
    for i in range(shortest):
        if any(s[i] != first[i] for s in sequences[1:]):
            return i
    return max(shortest, 0)


def continue_batch(
    forward: Forward, past: Any, past_length: int, suffixes: Sequence[Sequence[int]], *, device: torch.device
) -> tuple[torch.Tensor, list[int], Any]:
    """Run several continuations of one cached beginning.

    Args:
        forward: see `Forward`.
        past: cache of the beginning, batch 1; it is copied, not changed.
        past_length: tokens in it.
        suffixes: token ids, each at least one.
        device: of the model.

    Returns:
        Hidden states (n, longest, D), the length of each suffix, and the new cache (batch n).
    """
    n, longest = len(suffixes), max(len(s) for s in suffixes)
    ids = torch.zeros((n, longest), dtype=torch.long, device=device)
    mask = torch.zeros((n, past_length + longest), dtype=torch.long, device=device)
    mask[:, :past_length] = 1
    for row, suffix in enumerate(suffixes):
        ids[row, : len(suffix)] = torch.tensor(list(suffix), device=device)
        mask[row, past_length : past_length + len(suffix)] = 1
    cache = copy.deepcopy(past)
    if cache is not None and n > 1:
        cache.batch_repeat_interleave(n)
    positions = torch.arange(past_length, past_length + longest, device=device).expand(n, -1)
    # Rows of like length need no mask of their own, and attention is faster without one.
    same = all(len(s) == longest for s in suffixes)
    hidden, new = forward(ids, None if same else mask, positions, cache)
    return hidden, [len(s) for s in suffixes], new


def choice_log_probabilities(
    forward: Forward,
    head: Callable[[torch.Tensor], torch.Tensor],
    first_hidden: torch.Tensor,
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
        first_hidden: hidden state at the prompt's last token, (D,).
        past: cache of the whole prompt, batch 1; needed where a choice has more than one token.
        past_length: tokens in it.
        choices: token ids of each choice, its end of turn included where that should count.
        device: of the model.

    Returns:
        float64 (n_choices,), not normalised over the choices.
    """
    first = functional.log_softmax(head(first_hidden).double(), dim=-1)
    total = first[torch.tensor([c[0] for c in choices], device=device)]
    if all(len(c) == 1 for c in choices):
        return total
    hidden, _, _ = continue_batch(forward, past, past_length, [c[:-1] or c for c in choices], device=device)
    for row, choice in enumerate(choices):
        if len(choice) == 1:
            continue
        logits = head(hidden[row, : len(choice) - 1])
        logp = functional.log_softmax(logits.double(), dim=-1)
        rest = torch.tensor(choice[1:], device=device)
        total[row] += logp.gather(1, rest[:, None]).sum()
    return total


def normalised(total: torch.Tensor) -> tuple[float, ...]:
    """Log-probabilities among the choices only."""
    return tuple(float(x) for x in functional.log_softmax(total, dim=-1))
