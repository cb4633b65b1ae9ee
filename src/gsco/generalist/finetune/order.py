"""The order in which records are read: batches of like length, shuffled by seed, all epochs in one row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FILLER = -1
"""Stands at the end of the row where records do not fill the last batch; it counts for nothing."""

_WINDOW = 16


def training_order(
    lengths: Sequence[int], *, batch_size: int, epochs: float, seed: int, by_length: bool = True
) -> list[int]:
    """Positions of records in reading order; `batch_size` neighbours are one step of the optimiser.

    The order depends on the seed and on the whole batch only, not on how many processes share it, so that
    any number of them takes the same steps. Records are shuffled, cut into windows of 16 batches, sorted by
    length within a window, and the batches are shuffled (as ``group_by_length`` of transformers does).

    Args:
        lengths: tokens of each record of one epoch.
        batch_size: records of one step, over all processes and accumulation.
        epochs: passes over the records; a part of one reads that share of its shuffled batches.
        seed: of the order; each epoch has its own.
        by_length: False leaves the sorting out.

    Returns:
        A row whose length is a multiple of `batch_size`; `FILLER` fills its last batch.
    """
    out: list[int] = []
    total = round(len(lengths) * epochs)
    epoch = 0
    while len(out) < total:
        rng = np.random.default_rng([seed, epoch])
        row = _one_epoch(lengths, batch_size, rng, by_length)
        out += row[: total - len(out)]
        epoch += 1
    return out + [FILLER] * (-len(out) % batch_size)


def _one_epoch(lengths: Sequence[int], size: int, rng: np.random.Generator, by_length: bool) -> list[int]:
    order = rng.permutation(len(lengths))
    if not by_length:
        return [int(i) for i in order]
    batches: list[list[int]] = []
    for start in range(0, len(order), size * _WINDOW):
        part = sorted((int(i) for i in order[start : start + size * _WINDOW]), key=lambda i: -lengths[i])
        batches += [part[i : i + size] for i in range(0, len(part), size)]
    full = [batch for batch in batches if len(batch) == size]
    rest = [i for batch in batches if len(batch) < size for i in batch]
    return [i for b in rng.permutation(len(full)) for i in full[int(b)]] + rest
