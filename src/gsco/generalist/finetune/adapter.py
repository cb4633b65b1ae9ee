"""What is trained of a vision-language model: LoRA on its language model, and whole parts on demand."""

from __future__ import annotations

import re
from typing import Any

from gsco.errors import ModelError

_PROJECTORS = ("multi_modal_projector", "merger", "connector", "projector", "mm_projector", "aligner")
_VISION = ("vision_tower", "visual", "vision_model", "vision_encoder")


def language_projections(model: Any) -> str:
    """A pattern of all linear projections inside the language model's layers, for LoRA.

    Raises:
        ModelError: the model does not say where its language model is.
    """
    from torch import nn

    decoder = model.get_decoder()
    prefix = next((name for name, module in model.named_modules() if module is decoder), None)
    if not prefix:
        raise ModelError(f"{type(model).__name__} does not say where its language model is")
    leaves = {
        name.rsplit(".", 1)[-1]
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Linear) and "." in name
    }
    if not leaves:
        raise ModelError(f"{type(model).__name__} has no linear projections in its language model")
    return rf"{re.escape(prefix)}\..*\.({'|'.join(sorted(leaves))})"


def part_named(model: Any, names: tuple[str, ...], what: str) -> str:
    """Full name of the first module whose last name is one of `names`; ModelError where there is none."""
    for wanted in names:
        for name, _ in model.named_modules():
            if name.rsplit(".", 1)[-1] == wanted:
                return str(name)
    raise ModelError(f"{type(model).__name__} has no {what} known by name ({', '.join(names)})")


def with_adapter(
    model: Any, *, rank: int, alpha: int, dropout: float, projector: bool = False, vision: bool = False
) -> Any:
    """The model with LoRA matrices on all projections of its language model, all else frozen.

    Args:
        model: an image-text-to-text model.
        rank / alpha / dropout: of LoRA; the MedDr recipe has 16, 32 and .05.
        projector: whether the part between eye and language is trained, too, whole.
        vision: whether the eye is trained, too, whole.

    Raises:
        ModelError: a part cannot be found.
    """
    from peft import LoraConfig, get_peft_model

    whole = [part_named(model, _PROJECTORS, "projector")] if projector else []
    whole += [part_named(model, _VISION, "vision part")] if vision else []
    return get_peft_model(
        model,
        LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=language_projections(model),
            modules_to_save=whole or None,
            task_type="CAUSAL_LM",
        ),
    )
