"""Drawing tokens at random, each request with random numbers of its own.

The Gumbel-max trick (Gumbel 1954): the highest of logits to which noise of Gumbel's distribution was added is
a token drawn by its probability. So decoding stays greedy, and a request writes the same whichever others
share its batch, which one stream of random numbers for all rows would not give.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from gsco.generalist.base import Request, Sampling


def drawing(requests: Sequence[Request]) -> LogitsProcessorList | None:
    """For ``generate(do_sample=False)`` of transformers, to draw as the requests say; None where none does.

    Args:
        requests: one for each row of the batch, in order.
    """
    if all(request.sampling is None for request in requests):
        return None
    return LogitsProcessorList([_Drawn([request.sampling for request in requests])])


class _Drawn(LogitsProcessor):
    """Scores of the rows that sample, with noise; others as they are."""

    def __init__(self, samplings: Sequence[Sampling | None]) -> None:
        self._rows = [
            (row, sampling, torch.Generator().manual_seed(sampling.seed))
            for row, sampling in enumerate(samplings)
            if sampling is not None
        ]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores (B, vocabulary), the highest of a row at the token that is drawn."""
        drawn = scores.float()
        for row, sampling, generator in self._rows:
            logits = drawn[row] / sampling.temperature
            if sampling.top_p < 1:
                logits = _nucleus(logits, sampling.top_p)
            waits = torch.empty(logits.shape).exponential_(generator=generator)
            drawn[row] = logits - waits.log().to(logits.device)
        return drawn  # type: ignore[return-value]


def _nucleus(logits: torch.Tensor, share: float) -> torch.Tensor:
    """-inf outside the smallest set of tokens that holds `share` (Holtzman et al., ICLR 2020)."""
    ordered, tokens = logits.softmax(dim=-1).sort(descending=True)
    outside = ordered.cumsum(dim=-1) - ordered >= share
    return logits.index_fill(0, tokens[outside], -torch.inf)
