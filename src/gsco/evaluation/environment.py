"""What a run was made with: ``environment.json``. It holds nothing that identifies a person or a place."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any

from gsco.specialists.machine import cpu_name

_PACKAGES = (
    "gsco",
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "peft",
    "faiss-cpu",
    "numpy",
    "scipy",
    "scikit-learn",
    "pillow",
    "pydicom",
    "medmnist",
)


def describe_environment(threads: int) -> dict[str, Any]:
    """Versions, processor and thread counts of this process.

    Args:
        threads: CPU threads that torch was told to use.
    """
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "schema": 1,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "byte_order": sys.byteorder,
        "packages": versions,
    }


def set_threads(threads: int | None) -> int:
    """Tell torch how many CPU threads to use; returns the count in force."""
    import torch

    if threads is not None and threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    return int(torch.get_num_threads())
