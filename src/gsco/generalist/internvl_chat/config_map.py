"""The configuration of InternVL-Chat V1.x as one of the native class, whose defaults are other ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gsco.errors import ModelError

_TEXT = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "initializer_range",
    "rms_norm_eps", "rope_theta", "rope_scaling", "attention_bias", "attention_dropout", "mlp_bias",
    "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
_VISION = {
    "hidden_size": "hidden_size",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "hidden_act": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
    "num_channels": "num_channels",
    "patch_size": "patch_size",
    "initializer_range": "initializer_range",
    "attention_dropout": "attention_dropout",
    "dropout": "hidden_dropout_prob",
    "qkv_bias": "attention_bias",
    "qk_normalization": "use_qk_norm",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """What an old configuration says beyond the native one.

    Attributes:
        vision_layers: layers of the vision tower in the checkpoint.
        select_layer: which hidden state the projector reads; 0 is the embeddings, -1 the last layer.
        template: name of the chat template.
        image_size: side of the square image in pixels.
        image_tokens: visual tokens of an image.
        ranks: LoRA ranks with which vision and language model are wrapped, 0 where they are not.
    """

    vision_layers: int
    select_layer: int
    template: str
    image_size: int
    image_tokens: int
    ranks: Mapping[str, int]

    @property
    def used_layers(self) -> int:
        """Layers of the vision tower that the projector's input depends on."""
        return self.select_layer if self.select_layer >= 0 else self.vision_layers + self.select_layer + 1


def read_layout(config: Mapping[str, Any], where: str) -> Layout:
    """Check that a configuration is of InternVL-Chat V1.x with a Llama inside.

    Raises:
        ModelError: it is of another layout; the message names it.
    """
    kind = config.get("model_type")
    if kind in {"internvl", "internvl_chat_v1"}:
        raise ModelError(
            f"is a model of transformers already (model_type {kind!r})",
            where=where,
            remedy="Use it as it is: --generalist FOLDER.",
        )
    vision, text = config.get("vision_config"), config.get("llm_config")
    if kind != "internvl_chat" or not isinstance(vision, dict) or not isinstance(text, dict):
        raise ModelError(
            f"is no checkpoint in the layout of InternVL-Chat (model_type {kind!r})",
            where=where,
            remedy="Name one like Sunanhe/MedDr_0401 (internvl_chat, vision_config, llm_config).",
        )
    inside = (text.get("architectures") or [text.get("model_type")])[0]
    if inside not in {"LlamaForCausalLM", "llama"}:
        raise ModelError(
            f"has {inside} as its language model; only Llama's (also Yi's) names are known here",
            where=where,
            remedy="Take the native conversion that the model's authors publish (its id ends in -hf).",
        )
    if config.get("ps_version", "v1") != "v1" or config.get("dynamic_image_size") or config.get("pad2square"):
        raise ModelError(
            "is a later InternVL-Chat: pixel shuffle v2, image tiles or padded images",
            where=where,
            remedy="Take the native conversion that the model's authors publish (its id ends in -hf).",
        )
    try:
        size = int(config.get("force_image_size") or vision["image_size"])
        ratio = float(config.get("downsample_ratio", 0.5))
        layout = Layout(
            vision_layers=int(vision["num_hidden_layers"]),
            select_layer=int(config.get("select_layer", -1)),
            template=str(config.get("template") or ""),
            image_size=size,
            image_tokens=int((size // int(vision["patch_size"])) ** 2 * ratio**2),
            ranks={
                "vision_model": int(config.get("use_backbone_lora") or 0),
                "language_model": int(config.get("use_llm_lora") or 0),
            },
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"config.json lacks or garbles {error}", where=where) from error
    if not 0 < layout.used_layers <= layout.vision_layers:
        raise ModelError(
            f"select_layer {layout.select_layer} is outside of {layout.vision_layers} layers", where=where
        )
    return layout


def native_config(
    config: Mapping[str, Any],
    layout: Layout,
    *,
    image_token_id: int,
    norm_type: str,
    tied: bool,
    dtype: str | None,
    drop_unused_layers: bool,
) -> Any:
    """The configuration of the converted model (an `InternVLChatV1Config`).

    Args:
        config: the old ``config.json``, checked by `read_layout`.
        layout: what `read_layout` found.
        image_token_id: token that stands for one visual token.
        norm_type: ``rms_norm`` (InternViT-6B) or ``layer_norm`` (InternViT-300M).
        tied: whether the checkpoint has no output matrix of its own.
        dtype: PyTorch's name of the weights' type, for loaders that ask.
        drop_unused_layers: whether the layers behind `select_layer` are left out.

    Raises:
        ModelError: transformers refuses a value.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import InternVLVisionConfig, LlamaConfig

    from gsco.generalist.internvl_chat.modeling import InternVLChatV1Config

    old_vision, old_text = config["vision_config"], config["llm_config"]
    vision = {new: old_vision[old] for old, new in _VISION.items() if old_vision.get(old) is not None}
    text = {key: old_text[key] for key in _TEXT if old_text.get(key) is not None}
    try:
        return InternVLChatV1Config(
            vision_config=InternVLVisionConfig(
                **vision,
                projection_dropout=vision.get("hidden_dropout_prob", 0.0),
                num_hidden_layers=layout.used_layers if drop_unused_layers else layout.vision_layers,
                image_size=[layout.image_size, layout.image_size],
                norm_type=norm_type,
                use_mean_pooling=True,  # the old tower ends without a norm, and so does this one then
            ),
            text_config=LlamaConfig(**text, tie_word_embeddings=tied),
            downsample_ratio=float(config.get("downsample_ratio", 0.5)),
            vision_feature_layer=-1 if drop_unused_layers else layout.select_layer,
            vision_feature_select_strategy="default",
            projector_hidden_act="gelu",
            image_token_id=image_token_id,
            image_seq_length=layout.image_tokens,
            tie_word_embeddings=tied,
            dtype=dtype,
            architectures=["InternVLChatV1ForConditionalGeneration"],
            auto_map={
                "AutoConfig": "modeling.InternVLChatV1Config",
                "AutoModelForImageTextToText": "modeling.InternVLChatV1ForConditionalGeneration",
            },
        )
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ModelError(
            f"config.json has a value that transformers refuses ({' '.join(str(error).split())})"
        ) from error
