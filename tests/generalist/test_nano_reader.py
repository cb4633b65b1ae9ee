"""MedDr-nano's reader: transformers' numbers in fp32, and int8 that depends on its own row alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gsco.generalist import Request
from gsco.generalist.nano.backend import NanoGeneralist
from gsco.generalist.nano.int8 import Projection, choose_wide_channels
from gsco.generalist.nano.reader import Reader
from gsco.generalist.option_tree import lay_out

from .tiny import tiny_nano


@pytest.fixture(scope="module")
def language() -> torch.nn.Module:
    torch.set_num_threads(1)
    model, _ = tiny_nano()
    return model.model.language_model  # type: ignore[no-any-return]


SEQUENCES = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=60), min_size=1, max_size=5)


@given(SEQUENCES)
@settings(max_examples=40, deadline=None)
def test_a_tree_reads_as_transformers_reads_each_sequence(language: torch.nn.Module, sequences: list) -> None:
    rows, ends = lay_out(sequences)
    ids = torch.tensor([token for row in rows for token in row.ids])
    with torch.inference_mode():
        found = Reader(language)(language.embed_tokens(ids), rows)  # type: ignore[operator]
        for sequence, end in zip(sequences, ends, strict=True):
            expected = language(input_ids=torch.tensor([sequence])).last_hidden_state[0, -1]
            torch.testing.assert_close(found[end], expected, atol=2e-5, rtol=1e-4)


def packed(weight: torch.Tensor, sample: torch.Tensor) -> Projection:
    projection = Projection(weight)
    with choose_wide_channels([projection]):
        projection(sample)
    return projection


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_int8_depends_on_its_own_row_alone(seed: int, rows: int, others: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 128, generator=generator)
    beside = 100 * torch.randn(others, 128, generator=generator)
    projection = packed(torch.randn(96, 128, generator=generator), x)
    alone = projection(x.clone())
    together = projection(torch.cat([beside, x]))[others:]
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)


def test_wide_channels_stay_exact() -> None:
    """One channel a thousand times as wide as the others does not take their range."""
    torch.manual_seed(0)
    x, weight = torch.randn(50, 128), torch.randn(96, 128)
    x[:, 17] *= 1000
    exact = x @ weight.T
    kept = (packed(weight, x)(x.clone()) - exact).abs().mean()
    narrow = Projection(weight)
    narrow.to_int8(torch.zeros(0, dtype=torch.long))
    lost = (narrow(x.clone()) - exact).abs().mean()
    assert kept < 0.2
    assert lost > 20 * kept


def test_int8_says_nearly_what_fp32_says() -> None:
    model, tokenizer = tiny_nano()
    requests = [
        Request(f"Options: benign, malignant. similar {i}% malignant", None, ("benign", "malignant"))
        for i in range(30)
    ]
    exact = NanoGeneralist(model, tokenizer, fingerprint="a").score_options(requests)
    rough = NanoGeneralist(model, tokenizer, fingerprint="b", precision="int8").score_options(requests)
    gaps = np.array([a.probabilities - b.probabilities for a, b in zip(exact, rough, strict=True)])
    assert 0 < np.abs(gaps).max() < 0.1


def test_int8_needs_a_sample(language: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="sample"):
        Reader(language, "int8")


def test_no_weights_are_kept_twice() -> None:
    projection = packed(torch.randn(64, 64), torch.randn(8, 64))
    assert projection.weight.numel() == 0
