"""What becomes of each tensor: which output shard holds it, from where; and that nothing is left over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gsco.errors import ModelError
from gsco.generalist.internvl_chat.checkpoint import Checkpoint, Held, listed
from gsco.generalist.internvl_chat.config_map import Layout
from gsco.generalist.internvl_chat.key_map import is_recomputed, native_pieces, vision_layer
from gsco.generalist.internvl_chat.tensors import (
    CHUNK,
    FLOATS,
    TensorInfo,
    in_file_order,
    read_tensor,
    torch_type,
)


@dataclass(frozen=True, slots=True)
class LoraDelta:
    """A LoRA update that was not merged: weight + scale * B @ A."""

    a: Held
    b: Held
    scale: float


@dataclass(frozen=True, slots=True)
class Output:
    """A native tensor: what it will be, and which rows of what it comes from."""

    info: TensorInfo
    source: Held
    rows: slice | None = None
    delta: LoraDelta | None = None

    def chunks(self) -> Iterator[bytes]:
        """Its bytes, in pieces of about `CHUNK`.

        Raises:
            ModelError: a value does not fit into the type asked for.
        """
        if self.delta is not None:
            yield from self._merged(self.delta)
        elif self.info.dtype == self.source.info.dtype:
            yield from self.source.file.chunks(self.source.name, self.rows)
        else:
            for piece in self.source.file.chunks(self.source.name, self.rows):
                yield self._cast(self._floats(piece))

    def _floats(self, piece: bytes) -> Any:
        import torch

        return torch.frombuffer(bytearray(piece), dtype=torch_type(self.source.info.dtype))

    def _cast(self, values: Any) -> bytes:
        import torch

        out = values.to(torch_type(self.info.dtype))
        if self.info.dtype == "F16" and not bool(torch.isfinite(out).all()):
            raise ModelError(
                f"{self.source.name} has values beyond the range of float16",
                where=str(self.source.file.path),
                remedy="Convert with --dtype bfloat16.",
            )
        data: bytes = out.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return data

    def _merged(self, delta: LoraDelta) -> Iterator[bytes]:
        """Computed in float32 and rounded once."""
        height, width = self.source.info.shape
        a = read_tensor(delta.a.file, delta.a.name).float()
        b = read_tensor(delta.b.file, delta.b.name).float()
        first, last = (0, height) if self.rows is None else (self.rows.start, self.rows.stop)
        step = max(1, CHUNK // (width * 4))
        for start in range(first, last, step):
            stop = min(start + step, last)
            piece = b"".join(self.source.file.chunks(self.source.name, slice(start, stop)))
            base = self._floats(piece).float().reshape(stop - start, width)
            yield self._cast(base + delta.scale * (b[start:stop] @ a))


@dataclass(frozen=True, slots=True)
class Plan:
    """Output shards, each with its tensors in the order of the file."""

    shards: tuple[dict[str, Output], ...]
    dropped: int

    @property
    def shard_names(self) -> tuple[str, ...]:
        """File names of the shards."""
        n = len(self.shards)
        if n == 1:
            return ("model.safetensors",)
        return tuple(f"model-{i:05d}-of-{n:05d}.safetensors" for i in range(1, n + 1))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(out.info.nbytes for shard in self.shards for out in shard.values())


def make_plan(
    checkpoint: Checkpoint, layout: Layout, *, where: str, dtype: str | None, drop_unused_layers: bool
) -> Plan:
    """One output shard for each shard of the checkpoint that anything is kept of.

    Args:
        checkpoint: what there is.
        layout: what its configuration says.
        where: what errors name.
        dtype: PyTorch's name of a floating-point type for all weights; as they are by default.
        drop_unused_layers: leave out the layers of the vision tower behind `Layout.select_layer`.

    Raises:
        ModelError: tensors of another layout, or LoRA matrices that cannot be merged.
    """
    deltas = _deltas(checkpoint, layout, where)
    shards, strange, dropped = [], [], 0
    for file in checkpoint.files:
        shard: dict[str, Output] = {}
        for old, held in checkpoint.tensors[file.path].items():
            layer = vision_layer(old)
            if is_recomputed(old):
                continue
            if drop_unused_layers and layer is not None and layer >= layout.used_layers:
                dropped += 1
                deltas.pop(old.removesuffix(".weight"), None)
                continue
            pieces = native_pieces(old)
            if not pieces:
                strange.append(old)
            delta = deltas.pop(old.removesuffix(".weight"), None)
            for piece in pieces:
                shard[piece.name] = _output(held, piece.third, dtype, delta)
        if shard:
            order = in_file_order(shard, {name: out.info for name, out in shard.items()})
            shards.append({name: shard[name] for name in order})
    if strange:
        raise ModelError(
            f"holds {len(strange)} tensors that are not of InternVL-Chat's layout: {listed(strange)}",
            where=where,
            remedy="Is it a whole checkpoint, of this architecture?",
        )
    if deltas:
        raise ModelError(
            f"holds LoRA matrices of weights that it lacks: {listed(sorted(deltas))}", where=where
        )
    return Plan(tuple(shards), dropped)


def _output(held: Held, third: int | None, dtype: str | None, delta: LoraDelta | None) -> Output:
    info = held.info
    kind = FLOATS[dtype] if dtype and info.dtype in FLOATS.values() else info.dtype
    if third is None:
        return Output(TensorInfo(kind, info.shape), held, None, delta)
    rows = info.shape[0] // 3
    part = slice(third * rows, (third + 1) * rows)
    return Output(TensorInfo(kind, (rows, *info.shape[1:])), held, part, delta)


def _deltas(checkpoint: Checkpoint, layout: Layout, where: str) -> dict[str, LoraDelta]:
    """The LoRA updates by module. InternVL's wrapping sets alpha to twice the rank, whatever the rank."""
    out = {}
    for module, sides in checkpoint.lora.items():
        part = module.split(".")[0]
        fits = set(sides) == {"A", "B"} and sides["A"].info.shape[0] == sides["B"].info.shape[1]
        if not fits or sides["A"].info.shape[0] != layout.ranks.get(part):
            raise ModelError(
                f"the LoRA matrices of {module} do not fit config.json (rank {layout.ranks.get(part, 0)})",
                where=where,
                remedy="Merge them with the code that trained them.",
            )
        out[module] = LoraDelta(sides["A"], sides["B"], 2.0)
    return out


def check_against_model(plan: Plan, shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Compare with what the native model has.

    Args:
        plan: what would be written.
        shapes: name -> shape of every tensor of the model.
        where: what errors name.

    Raises:
        ModelError: tensors are missing, left over, or of another shape than the configuration says.
    """
    planned = {name: out for shard in plan.shards for name, out in shard.items()}
    missing = sorted(shapes.keys() - planned.keys())
    extra = sorted(planned.keys() - shapes.keys())
    if missing:
        raise ModelError(
            f"lacks {len(missing)} tensors of the model that config.json describes: {listed(missing)}",
            where=where,
            remedy="Fetch the checkpoint again, all shards of it.",
        )
    if extra:
        raise ModelError(
            f"{len(extra)} tensors are left over, which the model that config.json describes does not have: "
            + listed([planned[name].source.name for name in extra]),
            where=where,
            remedy="Does config.json belong to these weights?",
        )
    for name, out in planned.items():
        shape, old = out.info.shape, out.source.info.shape
        if shape != shapes[name] or (out.rows is not None and old[0] % 3):
            raise ModelError(
                f"{out.source.name} has shape {_shape(old)}, config.json asks for {_shape(shapes[name])}"
                + (" three times" if out.rows is not None else ""),
                where=where,
                remedy="Does config.json belong to these weights?",
            )
        if out.info.dtype not in FLOATS.values():
            raise ModelError(
                f"{out.source.name} is of type {out.info.dtype}, which is quantised or no weight",
                where=where,
                remedy="Take the checkpoint in bfloat16, float16 or float32.",
            )


def _shape(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides)) or "a single number"
