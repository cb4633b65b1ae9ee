"""A tiny random model of each family that transformers has natively, its real processor, made offline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast

from .tiny import END, save_tiny_internvl, tiny_tokenizer

TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, "tie_word_embeddings": False,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
CLIP: dict[str, Any] = {
    "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "image_size": 28, "patch_size": 14, "projection_dim": 32,
}  # fmt: skip
SIGLIP: dict[str, Any] = {
    "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "image_size": 28, "patch_size": 14, "vision_use_head": False,
}  # fmt: skip


def chatml(image: str) -> str:
    """ChatML with a family's own sign for an image."""
    return (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% for c in m['content'] %}{% if c['type'] == 'image' %}" + image + "\n"
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def vicuna(image: str) -> str:
    """LLaVA 1.5's template: nothing ends an answer."""
    return (
        "{% for m in messages %}{% if m['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
        "{% for c in m['content'] %}{% if c['type'] == 'image' %}" + image + "\n"
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% if m['role'] == 'user' %} {% else %} {% endif %}"
        "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )


def tokenizer(*extra: str, **named: str) -> PreTrainedTokenizerFast:
    signs = (*extra, *named.values())
    return PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(signs).backend_tokenizer,
        bos_token="<|im_start|>",
        eos_token=END,
        pad_token=END,
        extra_special_tokens=named or list(extra),
    )


def _save(folder: Path, model: Any, processor: Any) -> Path:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # random weights of ordinary size hardly tell one answer from another
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _model(config: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(config)


def _qwen(folder: Path, kind: str) -> Path:
    import transformers as t

    words = tokenizer("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    patch = 16 if kind == "Qwen3VL" else 14
    images = t.Qwen2VLImageProcessor(patch_size=patch, min_pixels=4 * patch**2, max_pixels=64 * patch**2)
    videos = t.Qwen3VLVideoProcessor() if kind == "Qwen3VL" else t.Qwen2VLVideoProcessor()
    template = chatml("<|vision_start|><|image_pad|><|vision_end|>")
    processor = getattr(t, f"{kind}Processor")(images, words, videos, chat_template=template)
    vision: dict[str, Any] = {"depth": 2, "num_heads": 2, "patch_size": patch, "in_channels": 3}
    if kind == "Qwen2VL":
        vision |= {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
    elif kind == "Qwen2_5_VL":
        vision |= {
            "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 64, "window_size": 56,
            "fullatt_block_indexes": [1],
        }  # fmt: skip
    else:
        vision |= {
            "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 64,
            "num_position_embeddings": 64, "deepstack_visual_indexes": [0],
        }  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
    if kind == "Qwen3VL":
        rope["mrope_interleaved"] = True
    text = {**TEXT, "vocab_size": len(words), "rope_parameters": rope}
    if kind == "Qwen3VL":
        text["head_dim"] = 8
    ids = {
        f"{name}_token_id": words.convert_tokens_to_ids(f"<|{sign}|>")
        for name, sign in (
            ("image", "image_pad"), ("video", "video_pad"),
            ("vision_start", "vision_start"), ("vision_end", "vision_end"),
        )
    }  # fmt: skip
    config = getattr(t, f"{kind}Config")(
        vision_config=vision, text_config=text, tie_word_embeddings=False, **ids
    )
    return _save(folder, _model(config), processor)


def _llava(folder: Path) -> Path:
    import transformers as t

    words = tokenizer("<image>")
    processor = t.LlavaProcessor(
        t.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}), words,
        patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=vicuna("<image>"),
    )  # fmt: skip
    config = t.LlavaConfig(
        vision_config=CLIP,
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(words)},
        image_token_index=words.convert_tokens_to_ids("<image>"), vision_feature_layer=-2,
    )  # fmt: skip
    return _save(folder, _model(config), processor)


def _llava_next(folder: Path) -> Path:
    import transformers as t

    words = tokenizer("<image>")
    grid = [[28, 56], [56, 28], [56, 56]]
    processor = t.LlavaNextProcessor(
        t.LlavaNextImageProcessor(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=grid
        ), words, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=chatml("<image>"),
    )  # fmt: skip
    config = t.LlavaNextConfig(
        vision_config=CLIP,
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(words)},
        image_token_index=words.convert_tokens_to_ids("<image>"), image_grid_pinpoints=grid,
    )  # fmt: skip
    return _save(folder, _model(config), processor)


def _llava_onevision(folder: Path) -> Path:
    import transformers as t

    words = tokenizer("<image>", "<video>")
    grid = [[28, 56], [56, 28], [56, 56]]
    processor = t.LlavaOnevisionProcessor(
        t.LlavaOnevisionImageProcessor(size={"height": 28, "width": 28}, image_grid_pinpoints=grid), words,
        t.LlavaOnevisionVideoProcessor(), num_image_tokens=4, vision_feature_select_strategy="full",
        chat_template=chatml("<image>"),
    )  # fmt: skip
    config = t.LlavaOnevisionConfig(
        vision_config=SIGLIP,
        text_config={**TEXT, "model_type": "qwen2", "vocab_size": len(words)},
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"), image_grid_pinpoints=grid,
        vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip
    return _save(folder, _model(config), processor)


def _gemma3(folder: Path) -> Path:
    import transformers as t

    words = tokenizer(
        boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft_token>"
    )
    processor = t.Gemma3Processor(
        t.Gemma3ImageProcessor(size={"height": 28, "width": 28}), words, image_seq_length=4,
        chat_template=chatml("<start_of_image>"),
    )  # fmt: skip
    config = t.Gemma3Config(
        vision_config=SIGLIP,
        text_config={
            **TEXT, "vocab_size": len(words), "head_dim": 8, "sliding_window": 64, "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        mm_tokens_per_image=4, image_token_index=words.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=words.convert_tokens_to_ids("<end_of_image>"),
    )  # fmt: skip
    model = _model(config)
    torch.nn.init.normal_(
        model.model.multi_modal_projector.mm_input_projection_weight
    )  # zeros: it sees nothing
    return _save(folder, model, processor)


def _smolvlm(folder: Path, kind: str) -> Path:
    import transformers as t

    words = tokenizer(
        "<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>",
        *(f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)),
    )  # fmt: skip
    images = getattr(t, f"{kind}ImageProcessor")(
        size={"longest_edge": 56}, max_image_size={"longest_edge": 28}, do_image_splitting=True
    )
    more = {"video_processor": t.SmolVLMVideoProcessor()} if kind == "SmolVLM" else {}
    processor = getattr(t, f"{kind}Processor")(
        images, tokenizer=words, image_seq_len=1, chat_template=chatml("<image>"), **more
    )
    config = getattr(t, f"{kind}Config")(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "image_size": 28, "patch_size": 14,
        },
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(words)},
        image_token_id=words.convert_tokens_to_ids("<image>"), scale_factor=2, pad_token_id=1,
    )  # fmt: skip
    return _save(folder, _model(config), processor)


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "InternVL": lambda folder: save_tiny_internvl(folder, spread=3.0),
    "Qwen2-VL": lambda folder: _qwen(folder, "Qwen2VL"),
    "Qwen2.5-VL": lambda folder: _qwen(folder, "Qwen2_5_VL"),
    "Qwen3-VL": lambda folder: _qwen(folder, "Qwen3VL"),
    "LLaVA": _llava,
    "LLaVA-NeXT": _llava_next,
    "LLaVA-OneVision": _llava_onevision,
    "Gemma 3": _gemma3,
    "SmolVLM": lambda folder: _smolvlm(folder, "SmolVLM"),
    "Idefics3": lambda folder: _smolvlm(folder, "Idefics3"),
}
