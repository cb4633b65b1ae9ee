"""MedDr and its kin: checkpoints in the layout of InternVL-Chat V1.x as models of transformers."""

from gsco.generalist.internvl_chat.adapter import convert_adapter
from gsco.generalist.internvl_chat.convert import Conversion, convert_checkpoint

__all__ = ["Conversion", "convert_adapter", "convert_checkpoint"]
