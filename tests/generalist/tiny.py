"""Tiny random models of the real classes, made on the spot: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from gsco.generalist.nano.assemble import IMAGE_TOKEN
from gsco.generalist.nano.dialogue import END
from gsco.generalist.nano.modeling import MedDrNanoConfig, MedDrNanoForConditionalGeneration, TimmMapConfig

WORDS = [
    "Options: A. benign B. malignant C. normal answer with one letter user assistant similar 68%",
    "D E F G",
]


def tiny_tokenizer(extra: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE(unk_token=None))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<|im_start|>", END, IMAGE_TOKEN, *extra]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(WORDS, trainer)
    from tokenizers.decoders import ByteLevel

    core.decoder = ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token=END,
        pad_token=END,
        extra_special_tokens=[IMAGE_TOKEN, *extra],
    )


def tiny_nano(seed: int = 0) -> tuple[MedDrNanoForConditionalGeneration, PreTrainedTokenizerFast]:
    """MedDr-nano's classes at a hidden width of 32, with EfficientNet-Lite0's real shape of eye."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    config = MedDrNanoConfig(
        vision_config=TimmMapConfig(),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
        ),
        downsample_ratio=1.0,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_seq_length=49,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
    )
    model = MedDrNanoForConditionalGeneration(config)
    model.tie_weights()
    with torch.no_grad():  # random weights of ordinary size make every score nearly even; spread them
        for p in model.model.language_model.parameters():
            p.mul_(4.0)
    return model.eval(), tokenizer


def save_tiny_internvl(folder: Path, seed: int = 0, *, spread: float = 1.0) -> Path:
    """A stock InternVL of transformers, its processor and chat template, saved as a model folder.

    Random weights of ordinary size say little and learn little; `spread` makes those of the language larger.
    """
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    tokenizer = tiny_tokenizer(("<img>", "</img>", "<IMG_CONTEXT>", "<video>"))
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        bos_token="<|im_start|>",
        eos_token=END,
        pad_token=END,
        extra_special_tokens=named,
    )
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% for c in m['content'] %}{% if c['type'] == 'image' %}<IMG_CONTEXT>\n"
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size={"height": 28, "width": 28}, crop_to_patches=False),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=1,
        chat_template=template,
    )
    torch.manual_seed(seed)
    config = InternVLConfig(
        vision_config={
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
            "image_size": [28, 28], "patch_size": [14, 14],
        },
        text_config={
            "model_type": "llama", "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=1,
    )  # fmt: skip
    model = InternVLForConditionalGeneration(config)
    with torch.no_grad():
        for p in model.model.language_model.parameters():
            p.mul_(spread)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
