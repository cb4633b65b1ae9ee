"""InternVL-Chat V1.x in transformers: its InternVL class with the older order of visual tokens.

Both fold squares of neighbouring patches into one token ("pixel shuffle"). Since V2 the tokens are turned
back into row order afterwards, in V1.x they are not. Weights cannot make up for it, and the wrong order gives
wrong answers without an error; hence a class and a ``model_type`` of its own. Importing this module makes
them known to transformers' Auto classes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLModel,
    InternVLVisionConfig,
)
from transformers.configuration_utils import SubConfigSpec

from .processing import InternVLChatV1Processor


class InternVLChatV1Config(InternVLConfig):
    """InternVL's configuration with the defaults of V1.x: a Llama inside, own output matrix."""

    model_type = "internvl_chat_v1"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
        "vision_config": InternVLVisionConfig,
    }
    tie_word_embeddings: bool = False


class InternVLChatV1Model(InternVLModel):
    """Vision tower, projector and language model, with pixel shuffle v1."""

    config_class = InternVLChatV1Config

    def pixel_shuffle(self, vision_features: torch.Tensor, scale_factor: float = 0.5) -> torch.Tensor:
        """Patches (B, H, W, C) -> (B, W * scale, H * scale, C / scale**2): columns first, as in V1.x."""
        folded: torch.Tensor = super().pixel_shuffle(vision_features, scale_factor)
        return folded.permute(0, 2, 1, 3).contiguous()


class InternVLChatV1ForConditionalGeneration(InternVLForConditionalGeneration):
    """The whole model; used and saved like InternVL's."""

    config_class = InternVLChatV1Config

    def __init__(self, config: InternVLChatV1Config) -> None:
        super(InternVLForConditionalGeneration, self).__init__(config)
        self.model = InternVLChatV1Model(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()


def register() -> None:
    """Make the classes known to transformers' Auto classes (idempotent)."""
    AutoConfig.register("internvl_chat_v1", InternVLChatV1Config, exist_ok=True)
    AutoModelForImageTextToText.register(
        InternVLChatV1Config, InternVLChatV1ForConditionalGeneration, exist_ok=True
    )
    AutoProcessor.register(InternVLChatV1Config, InternVLChatV1Processor, exist_ok=True)
    # saving puts this file and `processing.py` beside the weights, for programs that do not know this package
    InternVLChatV1Config.register_for_auto_class("AutoConfig")
    InternVLChatV1ForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")
    InternVLChatV1Processor.register_for_auto_class("AutoProcessor")


register()
