"""The mean of several adapters that were trained from the same one (Wortsman et al., ICML 2022)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from gsco.disk import whole_file
from gsco.errors import ModelError


def average_adapters(folders: Sequence[Path], out: Path) -> Path:
    """Write the mean of the adapters' weights, each matrix for itself, to `out`.

    Sound for adapters that began as one: their matrices still mean the same directions. One alone is
    copied as it is.

    Args:
        folders: at least one, each with ``adapter_config.json`` and ``adapter_model.safetensors``.
        out: folder of the mean, of the same types; made where it is missing.

    Raises:
        ModelError: the adapters do not hold the same matrices.
    """
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folders[0] / "adapter_config.json", out / "adapter_config.json")
    if len(folders) == 1:
        shutil.copyfile(folders[0] / "adapter_model.safetensors", out / "adapter_model.safetensors")
        return out
    total: dict[str, torch.Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    for folder in folders:
        held = load_file(folder / "adapter_model.safetensors")
        if total and {k: v.shape for k, v in held.items()} != {k: v.shape for k, v in total.items()}:
            raise ModelError(
                f"holds other matrices than {folders[0]}",
                where=str(folder),
                remedy="Average adapters of one training only.",
            )
        for name, matrix in held.items():
            kinds[name] = matrix.dtype
            part = matrix.float() / len(folders)
            total[name] = total[name] + part if name in total else part
    mean = {name: matrix.to(kinds[name]).contiguous() for name, matrix in total.items()}
    with whole_file(out / "adapter_model.safetensors") as draft:
        save_file(mean, draft, metadata={"format": "pt"})
    return out
