"""The names map one to one, and nothing is left over."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from gsco.generalist.internvl_chat.config_map import native_config, read_layout
from gsco.generalist.internvl_chat.key_map import native_pieces, vision_layer
from gsco.generalist.internvl_chat.modeling import InternVLChatV1ForConditionalGeneration

from .old_layout import ONE_SHARD, config_of, state_of

PARTS = [
    "ls1", "ls2", "attn.qkv.weight", "attn.qkv.bias", "attn.q_norm.weight", "attn.k_norm.weight",
    "attn.proj.weight", "attn.proj.bias", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias",
    "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias",
]  # fmt: skip
LLAMA = [
    "self_attn.q_proj.weight", "self_attn.o_proj.weight", "mlp.gate_proj.weight", "input_layernorm.weight",
]  # fmt: skip
vision = st.builds("vision_model.encoder.layers.{}.{}".format, st.integers(0, 200), st.sampled_from(PARTS))
text = st.builds("language_model.model.layers.{}.{}".format, st.integers(0, 200), st.sampled_from(LLAMA))
single = st.sampled_from([name for name in state_of(ONE_SHARD) if ".layers." not in name])
old_names = st.one_of(vision, text, single)


@given(st.sets(old_names, max_size=40))
def test_no_two_names_become_one(names: set[str]) -> None:
    pieces = [piece.name for name in names for piece in native_pieces(name)]
    assert len(pieces) == len(set(pieces))
    assert len(pieces) == sum(3 if ".qkv." in name else 1 for name in names)


@given(vision)
def test_a_layer_keeps_its_number(name: str) -> None:
    layer = vision_layer(name)
    assert layer == int(name.split(".")[3])
    assert all(f".layer.{layer}." in piece.name for piece in native_pieces(name))


@given(st.text(st.characters(codec="ascii"), max_size=40))
def test_other_names_are_not_of_the_layout(name: str) -> None:
    assert native_pieces(f"vision_model.{name}x{name}") == ()
    assert native_pieces(f"qllama.{name}") == ()


def test_every_tensor_of_the_native_model_comes_from_one() -> None:
    old = config_of(ONE_SHARD)
    config = native_config(
        old, read_layout(old, "here"), image_token_id=300, norm_type="rms_norm", tied=False, dtype=None,
        drop_unused_layers=False,
    )  # fmt: skip
    with torch.device("meta"):
        wanted = set(InternVLChatV1ForConditionalGeneration(config).state_dict())
    assert {piece.name for name in state_of(ONE_SHARD) for piece in native_pieces(name)} == wanted
