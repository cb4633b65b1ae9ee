"""Score closed options in one pass over a tree: what prompts and choices have in common is read once.

Two prompts about one image share the image and the words before the evidence; the arm that hears similar
cases and specialists begins like the one that hears similar cases; choices that begin alike share their
beginning. All of it is laid out in a single row of tokens, each seeing what precedes it in its own
sequence. Unlike lengths cost no padding.

The probability of a choice is that of constrained decoding: at each token where the choices part, the share
of its token among those that lead on to a choice. Where nothing parts, nothing is asked: a name is not held
against itself for being long or rarely spelt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

RULE = "constrained"
"""What a choice's probability is; part of a backend's fingerprint, so that a run never mixes two rules."""

Ids = tuple[int, ...]
Spans = tuple[tuple[int, int], ...]
"""Places in the row, (start, end) each, in reading order."""


@dataclass(frozen=True, slots=True)
class Row:
    """A run of tokens to read.

    Attributes:
        ids: token ids, at least one.
        sees: what it may look at of the rows before it; itself it sees causally.
        start: position of its first token in its own sequence.
    """

    ids: Sequence[int]
    sees: Spans
    start: int


Forward = Callable[[Sequence[Row]], torch.Tensor]
"""Hidden states (T, D) of all rows' tokens, one row after the other, read in one pass."""

Logits = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""``logits(hidden (D,), ids (k,))`` -> logits (k,) of these ids."""


class ChoiceTree:
    """Where choices part: each beginning that more than one token may follow, with these tokens.

    Args:
        choices: token ids of each choice, no two alike, none the beginning of another (an end of turn, as
            their last id, makes sure of that).

    Raises:
        ValueError: two choices read alike.
    """

    def __init__(self, choices: Sequence[Sequence[int]]) -> None:
        self.choices = [tuple(choice) for choice in choices]
        following: dict[Ids, set[int]] = {}
        for choice in self.choices:
            for i, token in enumerate(choice):
                following.setdefault(choice[:i], set()).add(token)
        self.parts: dict[Ids, Ids] = {
            begun: tuple(sorted(tokens)) for begun, tokens in following.items() if len(tokens) > 1
        }
        if len(set(self.choices)) < len(self.choices) or any(choice in following for choice in self.choices):
            raise ValueError("two choices read alike, or one is the beginning of another")

    def log_probabilities(self, logits: Mapping[Ids, torch.Tensor]) -> tuple[float, ...]:
        """Natural log-probability of each choice; ``exp`` sums to 1.

        Args:
            logits: by beginning, in the order of `parts`, those of the tokens that may follow.
        """
        step: dict[tuple[Ids, int], float] = {}
        for begun, tokens in self.parts.items():
            shares = functional.log_softmax(logits[begun].double(), dim=-1).tolist()
            step.update({(begun, token): share for token, share in zip(tokens, shares, strict=True)})
        return tuple(
            sum(step[choice[:i], choice[i]] for i in range(len(choice)) if choice[:i] in self.parts)
            for choice in self.choices
        )


def score_choices(
    forward: Forward,
    logits: Logits,
    prompts: Sequence[Sequence[int]],
    choices: Sequence[Sequence[Sequence[int]]],
    *,
    device: torch.device,
) -> list[tuple[float, ...]]:
    """Natural log-probability of each choice after each prompt, among the prompt's choices, in one pass.

    Args:
        forward: see `Forward`.
        logits: see `Logits`.
        prompts: token ids of each prompt, at least one each.
        choices: of each prompt, see `ChoiceTree`.
        device: of the model.

    Returns:
        n_choices numbers a prompt; ``exp`` sums to 1.
    """
    trees = [ChoiceTree(group) for group in choices]
    asked = [(p, begun) for p, tree in enumerate(trees) for begun in tree.parts]
    if not asked:
        return [tree.log_probabilities({}) for tree in trees]
    rows, ends = lay_out([(*prompts[p], *begun) for p, begun in asked])
    hidden = forward(rows)
    found: list[dict[Ids, torch.Tensor]] = [{} for _ in trees]
    for (p, begun), end in zip(asked, ends, strict=True):
        following = torch.tensor(trees[p].parts[begun], device=device)
        found[p][begun] = logits(hidden[end], following)
    return [tree.log_probabilities(known) for tree, known in zip(trees, found, strict=True)]


def lay_out(sequences: Sequence[Sequence[int]]) -> tuple[list[Row], list[int]]:
    """A row for what each sequence has beyond earlier ones, and the place of each sequence's last token."""
    rows: list[Row] = []
    places: list[Spans] = []
    length = 0
    for i, sequence in enumerate(sequences):
        begun: Spans = ()
        n = 0
        for earlier, place in zip(sequences[:i], places, strict=True):
            common = common_prefix(earlier, sequence)
            if common > n:
                n, begun = common, _first(place, common)
        if n < len(sequence):
            rows.append(Row(sequence[n:], begun, n))
            begun = (*begun, (length, length + len(sequence) - n))
            length += len(sequence) - n
        places.append(begun)
    return rows, [place[-1][1] - 1 for place in places]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest run of ids that both start with."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def _first(spans: Spans, n: int) -> Spans:
    """The first `n` places of spans."""
    out = []
    for start, end in spans:
        if n > 0:
            out.append((start, min(end, start + n)))
        n -= end - start
    return tuple(out)
