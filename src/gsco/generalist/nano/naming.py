"""What images show, as names in the language model's own embedding space: targets for MedDr-nano's eye.

An image's projected tokens are drawn, on average, towards the input embedding of the name of what it shows
and away from the names of the other options (cosine, cross-entropy), at the norm that word embeddings have.
The language model then meets images as words it knows. This costs no pass through the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from gsco.cases import ImageRef

SHARPNESS = 12.0  # cosine similarities times this are the logits
HELD_OUT = 8  # every eighth cluster of images judges the epochs


@dataclass(frozen=True, slots=True)
class Shown:
    """One image and what it shows.

    Attributes:
        image: the image.
        options: what it might show; each a tuple of names for the same thing.
        truth: position of what it shows.
        cluster: patient or group, kept together when a part is held out.
    """

    image: ImageRef
    options: tuple[tuple[str, ...], ...]
    truth: int
    cluster: str


class Words:
    """Unit vectors of option names in the language model's embedding space, and the norm of embeddings."""

    def __init__(self, table: torch.Tensor, tokenizer: Any) -> None:
        self._table = table
        self._tokenizer = tokenizer
        self._known: dict[tuple[tuple[str, ...], ...], torch.Tensor] = {}
        self.norm = float(table.norm(dim=1).mean())

    def of(self, options: tuple[tuple[str, ...], ...]) -> torch.Tensor:
        """One row per option (n_options, D): its names' mean embedding, less what all options share."""
        if options not in self._known:
            rows = []
            for names in options:
                ids = [self._tokenizer(" " + name, add_special_tokens=False).input_ids for name in names]
                rows.append(torch.stack([self._table[torch.tensor(i)].mean(dim=0) for i in ids]).mean(dim=0))
            stacked = torch.stack(rows)
            self._known[options] = functional.normalize(stacked - stacked.mean(dim=0, keepdim=True), dim=1)
        return self._known[options]


def _logits(projected: torch.Tensor, options: torch.Tensor) -> torch.Tensor:
    pooled = functional.normalize(projected.mean(dim=0), dim=0)
    logits: torch.Tensor = torch.mv(options, pooled).mul(SHARPNESS)
    return logits


def naming_loss(
    projected: torch.Tensor, examples: Sequence[Shown], rows: Sequence[int], words: Words
) -> torch.Tensor:
    """Cross-entropy of the true names, plus how far the tokens are from the norm of words.

    Args:
        projected: tokens of the images, (B, T, D).
        examples / rows: what they show: `examples[r]` for each of B rows.
        words: of the language model.
    """
    terms = [
        functional.cross_entropy(
            _logits(tokens, words.of(examples[r].options)), torch.tensor(examples[r].truth)
        )
        for tokens, r in zip(projected, rows, strict=True)
    ]
    size = (projected.norm(dim=-1) / words.norm - 1.0).square().mean()
    loss: torch.Tensor = torch.stack(terms).mean() + 0.3 * size
    return loss


def balanced_order(rng: np.random.Generator, examples: Sequence[Shown], rows: Sequence[int]) -> list[int]:
    """As many draws as rows, every label of every label set equally often within its set."""
    groups: dict[tuple[Any, int], list[int]] = {}
    sizes: dict[Any, int] = {}
    for r in rows:
        groups.setdefault((examples[r].options, examples[r].truth), []).append(r)
        sizes[examples[r].options] = sizes.get(examples[r].options, 0) + 1
    weight = {r: 1.0 / len(members) for members in groups.values() for r in members}
    p = np.asarray([weight[r] * sizes[examples[r].options] for r in rows])
    return [int(r) for r in rng.choice(np.asarray(rows), size=len(rows), p=p / p.sum())]


def held_out(examples: Sequence[Shown], seed: int) -> tuple[list[int], list[int]]:
    """Rows to learn from and rows that judge the epochs, no cluster in both; all judge where none is left."""
    clusters = sorted({e.cluster for e in examples})
    held = set(np.random.default_rng(seed).permutation(clusters)[::HELD_OUT].tolist())
    train = [i for i, e in enumerate(examples) if e.cluster not in held]
    judge = [i for i, e in enumerate(examples) if e.cluster in held]
    return train, judge or train


@torch.inference_mode()
def balanced_accuracy(
    examples: Sequence[Shown],
    rows: Sequence[int],
    words: Words,
    project: Callable[[Sequence[int]], torch.Tensor],
    *,
    batch_size: int = 16,
) -> dict[str, float]:
    """Balanced accuracy of the nearest name by label set, which is called by its first names.

    Args:
        examples / rows: what is judged.
        words: of the language model.
        project: rows to their projected tokens (n, T, D).
        batch_size: rows at once.
    """
    hits: dict[str, dict[int, list[bool]]] = {}
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        for r, tokens in zip(part, project(part), strict=True):
            shown = examples[r]
            right = int(_logits(tokens, words.of(shown.options)).argmax()) == shown.truth
            name = " / ".join(names[0] for names in shown.options[:4])
            hits.setdefault(name, {}).setdefault(shown.truth, []).append(right)
    return {
        name: round(float(np.mean([np.mean(values) for values in by_label.values()])), 4)
        for name, by_label in hits.items()
    }
