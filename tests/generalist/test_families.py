"""Every family, tiny and random: scored as by full passes, batched as alone, trained on answers."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from gsco.cases import ImageRef
from gsco.generalist import Example, Request
from gsco.generalist.chat_markup import stop_ids
from gsco.generalist.finetune.adapter import with_adapter
from gsco.generalist.finetune.batches import Collator
from gsco.generalist.finetune.encoding import IGNORED, Encoded, Encoder
from gsco.generalist.transformers_backend import TransformersGeneralist

from .families import FAMILIES
from .test_scoring import constrained

CHOICES = ("benign", "benign keratosis", "malignant", "normal tissue")


@pytest.fixture(scope="module", params=list(FAMILIES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if request.param == "SmolVLM" and importlib.util.find_spec("num2words") is None:
        pytest.skip("SmolVLM's processor needs num2words")
    torch.set_num_threads(1)
    folder = FAMILIES[request.param](tmp_path_factory.mktemp("family"))
    yield TransformersGeneralist.from_pretrained(str(folder), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRef]:
    folder = tmp_path_factory.mktemp("images")
    refs = []
    for i, size in enumerate([(60, 80), (40, 40), (90, 50)]):
        noise = np.random.default_rng(i).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
        refs.append(ImageRef(folder / f"{i}.png"))
    return refs


def requests_of(images: list[ImageRef]) -> list[Request]:
    prompts = ("Options: benign, malignant.", "Options: A. benign: 68%\nB. malignant, similar 10%")
    shown = (Example("similar?", images[1], "benign"), Example("similar?", images[2], "malignant"))
    return [
        Request(prompts[0], images[0], CHOICES, examples=shown),
        Request(prompts[1], images[0], CHOICES, examples=shown[:1]),
        *(Request(prompt, image, CHOICES) for image in (*images, None) for prompt in prompts),
    ]


def test_options_are_scored_as_by_full_passes(model: TransformersGeneralist, images: list[ImageRef]) -> None:
    for request in requests_of(images)[::2]:
        inputs = model._inputs([request])

        def following(begun: list[int], inputs: Any = inputs) -> torch.Tensor:
            full = dict(inputs)
            length = inputs["input_ids"].shape[1]
            more = torch.tensor([begun], dtype=torch.long)
            for key, value in inputs.items():
                if value.shape == (1, length):
                    tail = {"input_ids": more, "attention_mask": torch.ones_like(more)}
                    full[key] = torch.cat([value, tail.get(key, torch.zeros_like(more))], dim=1)
            with torch.inference_mode():
                logits: torch.Tensor = model.model(**full, use_cache=False).logits
            return logits[0, -1]

        answers = [
            model._tokenizer(choice, add_special_tokens=False).input_ids + model._end for choice in CHOICES
        ]
        expected = constrained(answers, following)
        assert np.ptp(expected) > 1e-3  # the model has an opinion, so the comparison means something
        np.testing.assert_allclose(model.score_options([request])[0].probabilities, expected, atol=1e-5)


def test_a_batch_answers_as_each_alone(model: TransformersGeneralist, images: list[ImageRef]) -> None:
    requests = requests_of(images)
    together = model.generate(requests, max_new_tokens=4)
    assert together == [model.generate([request], max_new_tokens=4)[0] for request in requests]
    scores = model.score_options(requests)
    for request, score in zip(requests, scores, strict=True):
        alone = model.score_options([request])[0]
        np.testing.assert_allclose(score.probabilities, alone.probabilities, atol=1e-5)


def test_the_image_is_seen(model: TransformersGeneralist, images: list[ImageRef]) -> None:
    first, second, blind = (
        model.score_options([Request("Options: benign.", image, CHOICES)])[0].log_probabilities
        for image in (images[0], images[2], None)
    )
    assert first != second != blind != first


def test_the_examples_are_seen(model: TransformersGeneralist, images: list[ImageRef]) -> None:
    """Another image or another answer in an example is another question."""
    first, second = (Example("similar?", images[i], "benign") for i in (1, 2))
    said = [
        model.score_options([Request("Options: benign.", images[0], CHOICES, examples=shown)])[0]
        for shown in [(first,), (second,), (replace(first, answer="malignant"),), (first, second), ()]
    ]
    assert len({score.log_probabilities for score in said}) == 5


def chat(*texts: str, images: int = 1) -> list[dict[str, Any]]:
    out = []
    for i, text in enumerate(texts):
        content = [{"type": "image"}] * (images if i == 0 else 0) + [{"type": "text", "text": text}]
        out.append({"role": ("user", "assistant")[i % 2], "content": content})
    return out


def encoded(model: TransformersGeneralist) -> list[Encoded]:
    encoder = Encoder(model.processor, stops=stop_ids(model.model, model._tokenizer))
    pictures = [Image.new("RGB", (60 + 20 * i, 50), (200, 60 * i, 0)) for i in range(2)]
    return [
        encoder(chat("similar?", "benign", "And then?", "D E"), pictures[:1]),
        encoder(chat("normal tissue?", "malignant", images=2), pictures),
        encoder(chat("similar 68%", "normal", images=0)),
    ]


def test_labels_are_the_answers_and_their_ends(model: TransformersGeneralist) -> None:
    said = []
    for one in encoded(model):
        labelled = one.labels != IGNORED
        assert torch.equal(one.labels[labelled], one.inputs["input_ids"][0][labelled])
        assert int(one.labels[labelled][-1]) == model._tokenizer.eos_token_id == model._tokenizer.pad_token_id
        said.append("".join(model._tokenizer.decode(one.labels[labelled]).replace("<|im_end|>", "|").split()))
    assert said[0] in ("benign|DE|", "benignDE|")  # LLaVA 1.5 ends only the last answer
    assert said[1:] == ["malignant|", "normal|"]


def test_the_prompt_is_that_of_use(model: TransformersGeneralist, images: list[ImageRef]) -> None:
    """What stands before the first answer is what the model reads when it is asked."""
    request = Request("similar?", images[0])
    asked = model._inputs([request])["input_ids"][0]
    encoder = Encoder(model.processor)
    from gsco.cases import load_image

    one = encoder(chat("similar?", "benign"), [load_image(images[0])])
    first = int((one.labels != IGNORED).nonzero()[0])
    assert one.inputs["input_ids"][0][:first].tolist() == asked.tolist()


def summed_loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    inputs = {key: value for key, value in batch.items() if key not in ("records", "labels")}
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    targets = batch["labels"][:, 1:]
    return functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def test_a_mixed_batch_has_the_loss_of_its_records(model: TransformersGeneralist) -> None:
    """One image, two images and none in one batch, padded; a blank row changes nothing."""
    rows = encoded(model)
    collate = Collator(int(model._tokenizer.pad_token_id))
    blank = Collator(int(model._tokenizer.pad_token_id), blank=rows[0].without_labels())
    model.model.train()
    try:
        with torch.no_grad():
            alone = sum(float(summed_loss(model.model, collate([("x", row)]))) for row in rows)
            together = float(summed_loss(model.model, collate([("x", row) for row in rows])))
            text = float(summed_loss(model.model, collate([("x", rows[2])])))
            with_blank = blank([("x", rows[2])])
            text_with_blank = float(summed_loss(model.model, with_blank))
    finally:
        model.model.eval()
    assert together == pytest.approx(alone, rel=1e-5)
    assert len(with_blank["labels"]) == 2
    assert text_with_blank == pytest.approx(text, rel=1e-5)


def test_lora_is_on_all_projections_of_the_language_model_alone(model: TransformersGeneralist) -> None:
    adapted = with_adapter(model.model, rank=2, alpha=4, dropout=0.0)
    try:
        trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
        leaves = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in trained}
        assert leaves == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
        assert len(trained) == 2 * 2 * 7  # two layers, two matrices
        assert not any("vision" in name or "visual" in name for name in trained)
        loss = summed_loss(adapted, Collator(1)([("x", row) for row in encoded(model)]))
        loss.backward()
        assert all(
            p.grad is not None and bool(p.grad.isfinite().all())
            for name, p in adapted.named_parameters()
            if name in trained
        )
    finally:
        adapted.unload()
