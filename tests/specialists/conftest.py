"""A tiny dataset with something to learn, and a tiny backbone that stands in a folder as people keep them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gsco.cases import Dataset, load_dataset

SPLITS = {"train": 36, "val": 12, "test": 12}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """60 noisy pictures of 24 px: stripes across, stripes down, or a disc; two of a patient."""
    folder = tmp_path_factory.mktemp("shapes")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :24]
    shapes = {
        "across": (y // 3 % 2) * 120.0,
        "disc": (np.hypot(y - 12, x - 12) < 7) * 140.0,
        "down": (x // 3 % 2) * 120.0,
    }
    rows = []
    for split, n in SPLITS.items():
        for i in range(n):
            label = sorted(shapes)[i % 3]
            grey = np.clip(shapes[label] + 60 + rng.normal(0, 25, (24, 24)), 0, 255).astype(np.uint8)
            name = f"images/{split}{i}.png"
            Image.fromarray(grey).save(folder / name)
            rows.append([name, label, split, f"{split}-{i // 2}"])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "label", "split", "patient_id"], *rows])
    return load_dataset(folder)


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small EfficientNet with fixed random weights, in timm's own layout."""
    import timm
    from timm.models import save_for_hf

    folder = tmp_path_factory.mktemp("backbone")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = timm.create_model("test_efficientnet")
        for module in model.modules():  # statistics that are not the identity, so that folding can be wrong
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(0, 0.1)
    save_for_hf(model, folder, safe_serialization=True)
    return folder
