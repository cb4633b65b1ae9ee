"""A converted release answers through `load_generalist`, with the prompt and pixels it was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from transformers import AutoProcessor

from gsco.cases import ImageRef
from gsco.errors import ModelError
from gsco.generalist import Request, load_generalist
from gsco.generalist.internvl_chat import Conversion, convert_checkpoint
from gsco.generalist.internvl_chat.chat_template import SYSTEM
from gsco.generalist.internvl_chat.processing import InternVLChatV1Processor

from .old_layout import copy_of


@pytest.fixture(scope="module")
def made(with_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Conversion:
    return convert_checkpoint(with_tokenizer, tmp_path_factory.mktemp("meddr") / "new")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("picture") / "scan.png"
    Image.fromarray(pixels).save(path)
    return path


def prompt(processor: Any, *messages: dict[str, Any]) -> str:
    text: str = processor.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
    return text


def asked(text: str, *, image: bool = True) -> dict[str, Any]:
    content = [{"type": "image"}] if image else []
    return {"role": "user", "content": [*content, {"type": "text", "text": text}]}


def test_prompt_is_hermes_2(made: Conversion) -> None:
    """As InternVL's template of that name puts it: no line break after <|im_end|>, the image first."""
    processor = AutoProcessor.from_pretrained(made.folder)
    assert isinstance(processor, InternVLChatV1Processor)
    assert prompt(processor, asked("What is it?")) == (
        f"<|im_start|>system\n{SYSTEM}<|im_end|><|im_start|>user\n<IMG_CONTEXT>\nWhat is it?<|im_end|>"
        "<|im_start|>assistant\n"
    )
    own = {"role": "system", "content": "Be brief."}
    assert prompt(processor, own, asked("Why?", image=False)) == (
        "<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\nWhy?<|im_end|><|im_start|>assistant\n"
    )


def test_the_system_message_is_the_checkpoints_where_it_has_one(with_tokenizer: Path, tmp_path: Path) -> None:
    folder = copy_of(with_tokenizer, tmp_path / "old")
    (folder / "conversation.py").write_text(
        "raise SystemExit('never run')\n"
        "register(Conversation(name='other', system_message='no'))\n"
        "register(Conversation(name='Hermes-2', system_message='It\\'s \"so\".', sep='<|im_end|>'))\n"
    )
    made = convert_checkpoint(folder, tmp_path / "new")
    assert made.system_message == "the checkpoint's conversation.py"
    text = prompt(AutoProcessor.from_pretrained(made.folder), asked("?"))
    assert text.startswith('<|im_start|>system\nIt\'s "so".<|im_end|><|im_start|>user\n')
    made = convert_checkpoint(folder, tmp_path / "none", system="")
    assert made.system_message == "--system"
    text = prompt(AutoProcessor.from_pretrained(made.folder), asked("?"))
    assert text.startswith("<|im_start|>user\n")


def test_pixels_and_tokens(made: Conversion, picture: Path) -> None:
    """One stretched tile whatever the shape, equal to MedDr's torchvision transform for evaluation."""
    processor = AutoProcessor.from_pretrained(made.folder)
    image = Image.open(picture)
    found = processor(images=[image], text="<IMG_CONTEXT>\nWhat?", return_tensors="pt")
    reference = transforms.Compose([
        transforms.Resize((56, 56), interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    torch.testing.assert_close(found["pixel_values"][0], reference(image), rtol=0, atol=2e-6)
    tokens = processor.tokenizer.convert_ids_to_tokens(found["input_ids"][0])
    assert tokens[:6] == ["<img>", *["<IMG_CONTEXT>"] * 4, "</img>"]
    config = json.loads((made.folder / "config.json").read_text())
    assert config["image_token_id"] == processor.image_token_id
    two = processor(images=[image, image], text="<IMG_CONTEXT><IMG_CONTEXT>", return_tensors="pt")
    assert len(two["pixel_values"]) == 2


def test_answers_as_a_generalist(made: Conversion, picture: Path) -> None:
    generalist = load_generalist(str(made.folder))
    ref = ImageRef(picture)
    requests = [
        Request("benign or malignant?", ref, ("benign", "malignant", "normal")),
        Request("A. or B.?", ref, ("A", "B")),
        Request("answer with one letter", None, ("A", "B")),
    ]
    together = generalist.score_options(requests)
    alone = [generalist.score_options([request])[0] for request in requests]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-5)
    written = generalist.generate(requests, max_new_tokens=6)
    assert written == [generalist.generate([request], max_new_tokens=6)[0] for request in requests]


def test_ends_where_a_turn_ends(made: Conversion) -> None:
    processor = AutoProcessor.from_pretrained(made.folder)
    settings = json.loads((made.folder / "generation_config.json").read_text())
    assert settings["eos_token_id"][0] == processor.tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_a_tokenizer_without_the_image_tokens(with_tokenizer: Path, tmp_path: Path) -> None:
    from generalist.tiny import tiny_tokenizer

    folder = copy_of(with_tokenizer, tmp_path / "old")
    tiny_tokenizer().save_pretrained(folder)
    with pytest.raises(ModelError, match="does not know <img>, <IMG_CONTEXT>, </img>"):
        convert_checkpoint(folder, tmp_path / "new")


def test_an_unknown_chat_template(with_tokenizer: Path, tmp_path: Path) -> None:
    folder = copy_of(with_tokenizer, tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "template": "vicuna_v1.1"}))
    made = convert_checkpoint(folder, tmp_path / "new")
    assert not made.processor
    assert "'vicuna_v1.1' is not known" in made.notes[0]
