"""MedDr-nano's architecture: the InternVL class of transformers with a small convolutional eye.

EfficientNet-Lite0 (7 x 7 x 1,280 map, 49 visual tokens) -> LayerNorm, Linear, GELU, Linear -> SmolLM2-135M.

transformers reads an InternVL configuration back with *its own* vision configuration whatever the file
says, and then starts a random vision tower without an error; hence the configuration subclass, which
keeps the vision part's type.
"""

from __future__ import annotations

from typing import Any, ClassVar

import timm
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.internvl.modeling_internvl import InternVLCausalLMOutputWithPast

IMAGE_TOKENS = 49


class TimmMapConfig(PreTrainedConfig):
    """A timm convolutional backbone whose last map is read as tokens."""

    model_type = "gsco_timm_map"
    base_config_key = "vision_config"

    architecture: str = "tf_efficientnet_lite0"
    hidden_size: int = 1280
    image_size: int = 224


class TimmMapModel(PreTrainedModel):
    """Pixels (B, 3, H, W), normalised as the backbone expects -> tokens (B, H/32 * W/32, hidden_size)."""

    config_class = TimmMapConfig
    main_input_name = "pixel_values"
    _no_split_modules: ClassVar[list[str]] = ["backbone"]

    def __init__(self, config: TimmMapConfig) -> None:
        super().__init__(config)
        self.backbone = timm.create_model(
            config.architecture, pretrained=False, num_classes=0, global_pool=""
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """The backbone keeps timm's own initialisation."""

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """Return the flattened last map as `last_hidden_state`, rows first."""
        maps = self.backbone(pixel_values)
        return BaseModelOutputWithPooling(last_hidden_state=maps.flatten(2).transpose(1, 2))


class MedDrNanoConfig(InternVLConfig):
    """InternVL's configuration with a vision part that keeps its own type when read back."""

    model_type = "meddr_nano"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="gsco_timm_map"),
    }


class MedDrNanoForConditionalGeneration(InternVLForConditionalGeneration):
    """InternVL's model under MedDr-nano's configuration, able to start from stored vision tokens."""

    config_class = MedDrNanoConfig

    def project(self, vision_tokens: torch.Tensor) -> torch.Tensor:
        """Vision tokens (B, 49, 1280) -> language-model embeddings (B, 49, 576)."""
        projected: torch.Tensor = self.model.multi_modal_projector(vision_tokens)
        return projected

    def forward(
        self,
        *args: Any,
        vision_tokens: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As InternVL, with two savings.

        Args:
            vision_tokens: stored output of the eye (B, 49, 1280), instead of `pixel_values`.
            labels: token ids (B, T), -100 where nothing is asked. The loss is the mean cross-entropy over
                the labelled positions; logits are computed there only, and returned as (n_labelled, vocab).
        """
        if vision_tokens is not None:
            encoded = BaseModelOutputWithPooling(pooler_output=self.project(vision_tokens))
            kwargs["mm_encoder_outputs"] = {"image": encoded}
        if labels is None:
            return super().forward(*args, **kwargs)
        kwargs.pop("num_items_in_batch", None)
        kwargs["use_cache"] = False
        hidden = self.model(*args, **kwargs)[0]
        asked = labels[:, 1:] != -100
        logits = self.lm_head(hidden[:, :-1][asked])
        loss = nn.functional.cross_entropy(logits.float(), labels[:, 1:][asked])
        return InternVLCausalLMOutputWithPast(loss=loss, logits=logits)


def register() -> None:
    """Make the classes known to transformers' Auto classes (idempotent)."""
    AutoConfig.register("gsco_timm_map", TimmMapConfig, exist_ok=True)
    AutoModel.register(TimmMapConfig, TimmMapModel, exist_ok=True)
    AutoConfig.register("meddr_nano", MedDrNanoConfig, exist_ok=True)
    AutoModelForImageTextToText.register(MedDrNanoConfig, MedDrNanoForConditionalGeneration, exist_ok=True)


register()
