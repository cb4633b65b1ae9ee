"""Converted tiny models, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from generalist.tiny import tiny_tokenizer
from gsco.generalist.internvl_chat import convert_checkpoint

from .old_layout import ONE_SHARD, State, config_of, write_old


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folder of a converted checkpoint, by source and options."""
    made: dict[tuple[object, ...], Path] = {}

    def convert(source: Path, **options: bool) -> Path:
        key = (source, *sorted(options.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("converted") / "model"
            convert_checkpoint(source, made[key], **options)
        return made[key]

    return convert


@pytest.fixture(scope="session")
def with_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An old checkpoint with a tokenizer beside it, as a release has."""
    tokenizer = tiny_tokenizer(("<img>", "</img>", "<IMG_CONTEXT>"))

    def lengthen(state: State) -> None:
        for name in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
            more = torch.zeros(len(tokenizer) - len(state[name]), state[name].shape[1])
            state[name] = torch.cat([state[name], more])

    text = {**config_of(ONE_SHARD)["llm_config"], "vocab_size": len(tokenizer)}
    folder = tmp_path_factory.mktemp("release") / "tiny-meddr"
    write_old(folder, change=lengthen, llm_config=text)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    return folder
