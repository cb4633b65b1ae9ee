"""What a network is trained with: device, precision, compilation, one process or several."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gsco.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class Machine:
    """Where training happens.

    Attributes:
        device: a torch device (``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``).
        precision: of the forward pass (automatic mixed precision); weights and optimiser stay fp32.
        compile: whether the network goes through ``torch.compile``.
        processes: processes that train together, as ``accelerate launch`` or ``torchrun`` started them.
        rank: the number of this one, from 0.
    """

    device: str = "cpu"
    precision: Precision = "fp32"
    compile: bool = False
    processes: int = 1
    rank: int = 0

    @classmethod
    def choose(cls, device: str = "auto", precision: str = "auto", *, compile: bool | None = None) -> Machine:
        """The machine at hand.

        Args:
            device: ``auto`` takes a GPU where there is one.
            precision: ``auto`` takes bf16 where the GPU has it, else fp16 on a GPU, else fp32. A CPU with
                AVX512-BF16 or AMX trains convolutions twice as fast in bf16, others gain nothing; it has to
                be asked for, or the same command would give other weights on another processor.
            compile: None compiles on a GPU only: on a CPU a training of minutes does not earn it back.

        Raises:
            ModelError: a device that is not there, or an unknown precision.
        """
        import torch

        has_gpu = torch.cuda.is_available()
        if device == "auto":
            device = "cuda" if has_gpu else "cpu"
        try:
            kind = torch.device(device)
        except RuntimeError:
            raise ModelError(
                f"no device {device!r}", remedy="Choose cpu, cuda, cuda:N, mps or auto."
            ) from None
        here = {
            "cpu": True,
            "cuda": has_gpu and (kind.index or 0) < torch.cuda.device_count(),
            "mps": torch.backends.mps.is_available(),
        }
        if not here.get(kind.type, False):
            raise ModelError(
                f"device {device!r} is not there",
                remedy="Take --device cpu, or auto, which takes what there is.",
            )
        if precision == "auto":
            on_gpu = "bf16" if has_gpu and torch.cuda.is_bf16_supported() else "fp16"
            precision = on_gpu if kind.type == "cuda" else "fp32"
        if precision not in {"fp32", "bf16", "fp16"} or (precision == "fp16" and kind.type != "cuda"):
            raise ModelError(
                f"no precision {precision!r} on {kind.type}", remedy="Choose fp32 or bf16; fp16 on a GPU."
            )
        return cls(
            device=device,
            precision=precision,  # type: ignore[arg-type]
            compile=kind.type == "cuda" if compile is None else compile,
            processes=int(os.environ.get("WORLD_SIZE", "1")),
            rank=int(os.environ.get("RANK", "0")),
        )

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0


def cpu_name() -> str:
    """The model of the processor, or ``unknown``."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:  # noqa: PTH123 - not a file of a user
            for line in stream:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


ONE_CPU = Machine()
"""One process, in fp32: what everything falls back on."""


class Engine:
    """A network and its optimiser on a machine; on one CPU process in fp32 it adds nothing.

    Attributes:
        model: what is called in training; `weights` is the network behind it.
        optimiser: what steps.
    """

    def __init__(self, model: nn.Module, optimiser: torch.optim.Optimizer, machine: Machine) -> None:
        import torch

        self.machine = machine
        self.weights = model
        self.model: Any = model
        self.optimiser: Any = optimiser
        self.device = torch.device(machine.device)
        self._accelerator: Any = None
        self._scaler: Any = None
        if machine.processes > 1:
            from accelerate import Accelerator

            self._accelerator = Accelerator(
                cpu=machine.device == "cpu",
                mixed_precision={"fp32": "no"}.get(machine.precision, machine.precision),
            )
            self.model, self.optimiser = self._accelerator.prepare(model, optimiser)
            self.device = self._accelerator.device
        elif machine.precision == "fp16":
            self._scaler = torch.amp.GradScaler(self.device.type)
        if machine.compile:
            self.model = torch.compile(self.model)

    @contextlib.contextmanager
    def forward(self) -> Iterator[None]:
        """The precision of a forward pass."""
        import torch

        if self._accelerator is not None:
            with self._accelerator.autocast():
                yield
        elif self.machine.precision == "fp32":
            yield
        else:
            kind = torch.bfloat16 if self.machine.precision == "bf16" else torch.float16
            with torch.autocast(self.device.type, dtype=kind):
                yield

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a loss."""
        if self._accelerator is not None:
            self._accelerator.backward(loss)
        elif self._scaler is not None:
            self._scaler.scale(loss).backward()
        else:
            loss.backward()  # type: ignore[no-untyped-call]

    def step(self, clip: float | None) -> None:
        """Clip the gradients and take a step with them."""
        import torch

        if self._scaler is not None:
            self._scaler.unscale_(self.optimiser)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(self.weights.parameters(), clip)
        if self._scaler is not None:
            self._scaler.step(self.optimiser)
            self._scaler.update()
        else:
            self.optimiser.step()

    def agreed(self, value: float) -> float:
        """The first process's value, in all of them."""
        if self._accelerator is None:
            return value
        from accelerate.utils import broadcast_object_list

        return float(broadcast_object_list([value])[0])
