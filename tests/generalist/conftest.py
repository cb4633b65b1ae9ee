"""A base model folder of MedDr-nano's classes, tiny and random, for the tests of its training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from .tiny import tiny_nano


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("base")
    model, tokenizer = tiny_nano()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
