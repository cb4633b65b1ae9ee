"""What is drawn follows the model's probabilities, and depends on the request alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare

from gsco.cases import ImageRef
from gsco.generalist import Generalist, Request, Sampling
from gsco.generalist.nano.backend import NanoGeneralist
from gsco.generalist.sampling import drawing
from gsco.generalist.transformers_backend import TransformersGeneralist

from .tiny import save_tiny_internvl, tiny_nano

N = 6000


def nano(_: Path) -> Generalist:
    model, tokenizer = tiny_nano()
    return NanoGeneralist(model, tokenizer, fingerprint="tiny")


def internvl(folder: Path) -> Generalist:
    return TransformersGeneralist.from_pretrained(
        str(save_tiny_internvl(folder)), device="cpu", dtype="float32"
    )


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.7), (1.0, 0.05)])
def test_tokens_are_drawn_by_their_probability(temperature: float, top_p: float) -> None:
    logits = torch.tensor([2.0, -1.0, 0.5, 0.0, 1.2, -3.0])
    draw = drawing([Request("", sampling=Sampling(temperature, seed, top_p)) for seed in range(N)])
    assert draw is not None
    drawn = draw(torch.zeros(N, 1, dtype=torch.long), logits.repeat(N, 1)).argmax(dim=1)
    expected = (logits.double() / temperature).softmax(dim=0).numpy()
    ordered = np.argsort(-expected)
    before = np.cumsum(expected[ordered]) - expected[ordered]
    expected[ordered[before >= top_p]] = 0
    counts = np.bincount(drawn.numpy(), minlength=len(logits))
    assert not counts[expected == 0].any()
    held = expected > 0
    if held.sum() > 1:
        assert chisquare(counts[held], expected[held] / expected.sum() * N).pvalue > 0.001


@pytest.mark.parametrize("load", [nano, internvl])
def test_an_answer_is_that_of_its_seed_however_it_is_batched(
    load: Callable[[Path], Generalist], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    model = load(tmp_path / "model")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(
        tmp_path / "a.png"
    )
    seen = Request("Report this.", ImageRef(tmp_path / "a.png"))
    requests = [
        seen,
        *(replace(seen, sampling=Sampling(1.0, seed)) for seed in (1, 2, 3)),
        Request("What is shown in this picture of a lung?", sampling=Sampling(1.5, 1)),
        seen,
    ]
    together = model.generate(requests, max_new_tokens=8)
    assert together == [model.generate([request], max_new_tokens=8)[0] for request in requests]
    assert together[0] == together[-1]  # the most probable
    assert len(set(together[:4])) == 4


@pytest.mark.parametrize("wrong", [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.0), (1.0, 1.1), (float("nan"), 1.0)])
def test_what_is_out_of_range_is_refused(wrong: tuple[float, float]) -> None:
    temperature, top_p = wrong
    with pytest.raises(ValueError, match="is"):
        Sampling(temperature, 0, top_p)
