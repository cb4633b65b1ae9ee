"""Names of tensors: InternVL-Chat V1.x, as MedDr is published, and the InternVL class of transformers."""

from __future__ import annotations

import re
from dataclasses import dataclass

_VISION = {
    r"embeddings\.class_embedding": "embeddings.cls_token",
    r"embeddings\.position_embedding": "embeddings.position_embeddings",
    r"embeddings\.patch_embedding\.(weight|bias)": r"embeddings.patch_embeddings.projection.\1",
    r"encoder\.layers\.(\d+)\.ls([12])": r"encoder.layer.\1.lambda_\2",
    r"encoder\.layers\.(\d+)\.attn\.([qk])_norm\.weight": r"encoder.layer.\1.attention.\2_norm.weight",
    r"encoder\.layers\.(\d+)\.attn\.proj\.(\w+)": r"encoder.layer.\1.attention.projection_layer.\2",
    r"encoder\.layers\.(\d+)\.norm1\.(weight|bias)": r"encoder.layer.\1.layernorm_before.\2",
    r"encoder\.layers\.(\d+)\.norm2\.(weight|bias)": r"encoder.layer.\1.layernorm_after.\2",
    r"encoder\.layers\.(\d+)\.mlp\.fc([12])\.(\w+)": r"encoder.layer.\1.mlp.fc\2.\3",
}
_QKV = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.attn\.qkv\.(\w+)")
_PROJECTOR = {"0": "layer_norm", "1": "linear_1", "3": "linear_2"}
_RULES = [
    *(
        (re.compile(rf"vision_model\.{old}"), rf"model.vision_tower.{new}")
        for old, new in _VISION.items()
    ),
    (re.compile(r"language_model\.model\.(.+)"), r"model.language_model.\1"),
    (re.compile(r"language_model\.lm_head\.weight"), "lm_head.weight"),
]  # fmt: skip
_RECOMPUTED = re.compile(r"language_model\..*rotary_emb\.inv_freq")
_LAYER = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Piece:
    """A native tensor as part of an old one.

    Attributes:
        name: what the native class calls it.
        third: which third of the old tensor's rows it is (0, 1, 2); None for all of them.
    """

    name: str
    third: int | None = None


def native_pieces(old: str) -> tuple[Piece, ...]:
    """The native tensors that an old one becomes; none when its name is not of this layout.

    A fused ``attn.qkv`` becomes three. The text part keeps the names of Llama.
    """
    fused = _QKV.fullmatch(old)
    if fused:
        layer, end = fused.groups()
        return tuple(
            Piece(f"model.vision_tower.encoder.layer.{layer}.attention.{letter}_proj.{end}", third)
            for third, letter in enumerate("qkv")
        )
    parts = old.split(".")
    if parts[0] == "mlp1" and len(parts) == 3 and parts[1] in _PROJECTOR:
        return (Piece(f"model.multi_modal_projector.{_PROJECTOR[parts[1]]}.{parts[2]}"),)
    for rule, new in _RULES:
        found = rule.fullmatch(old)
        if found:
            return (Piece(found.expand(new)),)
    return ()


def is_recomputed(old: str) -> bool:
    """Whether the tensor is a table that the model computes itself (written by early transformers)."""
    return _RECOMPUTED.fullmatch(old) is not None


def vision_layer(old: str) -> int | None:
    """The layer of the vision tower that an old tensor belongs to, counted from 0."""
    found = _LAYER.match(old)
    return int(found[1]) if found else None
