"""A recipe file for fine-tuning a vision-language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gsco.errors import UserError

Parallel = Literal["ddp", "fsdp", "zero3"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(_Strict):
    """Low-rank matrices on all projections of the language model (Hu et al., 2022)."""

    rank: int = Field(default=16, gt=0)
    alpha: int = Field(default=32, gt=0)
    dropout: float = Field(default=0.05, ge=0, lt=1)


class FinetuneRecipe(_Strict):
    """The whole of a fine-tuning; the defaults are MedDr's."""

    model: str = Field(default="", description="folder or hub id of an image-text-to-text model")
    data: str = Field(default="", description="meta file of the training data")
    held_out: str | None = Field(default=None, description="meta file of data to evaluate on")
    lora: Lora = Lora()
    train_projector: bool = False
    train_vision: bool = False
    image: dict[str, Any] = Field(
        default_factory=dict, description="settings of the model's image processor, e.g. its size"
    )
    max_tokens: int = Field(default=2048, gt=0, description="longer records are skipped")
    epochs: float = Field(default=2, gt=0)
    batch_size: int = Field(default=256, gt=0, description="records of one step, over all processes")
    records_at_once: int = Field(default=4, gt=0, description="records in one pass of one process")
    group_by_length: bool = True
    learning_rate: float = Field(default=1e-5, gt=0)
    warmup: float = Field(default=0.03, ge=0, lt=1, description="share of all steps")
    weight_decay: float = Field(default=0.05, ge=0)
    clip: float = Field(default=1.0, gt=0, description="norm of the gradient, at most")
    precision: Literal["fp32", "bf16"] = "bf16"
    gradient_checkpointing: bool = True
    quantization: Literal["4bit", "8bit"] | None = Field(default=None, description="of the frozen weights")
    parallel: Parallel = Field(
        default="ddp", description="how several processes share the work; one process has no use for it"
    )
    workers: int = Field(default=0, ge=0, description="processes that read images")
    evaluate_every: int = Field(default=200, gt=0, description="steps")
    save_every: int = Field(default=200, gt=0, description="steps")
    seed: int = 0

    @model_validator(mode="after")
    def _whole_batches(self) -> FinetuneRecipe:
        if self.batch_size % self.records_at_once:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of records_at_once {self.records_at_once}"
            )
        return self

    def accumulation(self, processes: int) -> int:
        """Passes that each process adds up for one step.

        Raises:
            UserError: the batch cannot be shared evenly.
        """
        at_once = self.records_at_once * processes
        if self.batch_size % at_once:
            raise UserError(
                f"batch_size {self.batch_size} cannot be shared by {processes} processes of"
                f" {self.records_at_once} records each",
                remedy=f"Take a multiple of {at_once}.",
            )
        return self.batch_size // at_once


def is_finetune_recipe(content: Any) -> bool:
    """Whether a recipe's content is of this kind: it has none of the keys of MedDr-nano's own recipes."""
    return isinstance(content, dict) and not {"sources", "stages"} & set(content)


def read_finetune_recipe(content: Mapping[str, Any], where: str, **changes: Any) -> FinetuneRecipe:
    """Check a recipe; UserError naming the file and the first thing that is wrong.

    Args:
        content: of the YAML file.
        where: the file.
        changes: fields that go before the file's, where they are not None.
    """
    try:
        given = {key: value for key, value in changes.items() if value is not None}
        recipe = FinetuneRecipe.model_validate({**content, **given})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{place}: {said}" if place else said, where=where) from error
    for key in ("model", "data"):
        if not getattr(recipe, key):
            raise UserError(
                f"names no {key}", where=where, remedy=f"Add `{key}:` to the recipe, or give --{key}."
            )
    return recipe
