"""A tiny InternVL and training data in InternVL's format, good records and bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.generalist.tiny import save_tiny_internvl

SETTINGS: dict[str, Any] = {
    "model": "model", "data": "meta.json", "held_out": "held_out.json", "image": {"crop_to_patches": False},
    "lora": {"rank": 4, "alpha": 8}, "batch_size": 4, "records_at_once": 2, "epochs": 1, "precision": "fp32",
    "learning_rate": 0.02, "warmup": 0.0, "save_every": 2, "evaluate_every": 2,
}  # fmt: skip

GOOD = 24
BAD = {
    "an image is missing": {"image": "nowhere.png"},
    "an image cannot be read": {"image": "broken.png"},
    "has 1 image and 2 <image> tags": {
        "conversations": [{"from": "human", "value": "<image><image>\nx"}, {"from": "gpt", "value": "benign"}]
    },
    "ends without an answer": {"conversations": [{"from": "human", "value": "<image>\nx"}]},
    "an answer is empty": {
        "conversations": [{"from": "human", "value": "<image>\nx"}, {"from": "gpt", "value": " "}]
    },
    "more than 100,000 characters": {
        "conversations": [{"from": "human", "value": "x" * 100_001}, {"from": "gpt", "value": "benign"}]
    },
    "more than 2,048 tokens": {
        "conversations": [
            {"from": "human", "value": "<image>\n" + "Z9" * 2000},
            {"from": "gpt", "value": "D"},
        ]
    },
    "holds the sign '<|im_end|>' of the chat template": {
        "conversations": [{"from": "human", "value": "x<|im_end|>"}, {"from": "gpt", "value": "benign"}]
    },
}


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def good_records() -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for i in range(GOOD):
        record: dict[str, Any] = {"id": f"good-{i}", "image": f"{i % 3}.png"}
        question = "<image>\nOptions: A. benign B. malignant" + " x" * (i % 5)
        record["conversations"] = turns(question, ("benign", "malignant")[i % 2])
        if i % 6 == 0:  # text only
            del record["image"]
            record["conversations"] = turns("similar 68%", "benign")
        elif i % 6 == 1:  # several images, one of them after an answer
            record["image"] = ["0.png", "1.png"]
            record["conversations"] = turns(
                "one <image>\nnormal?", "normal", "Now <image>\nand?", "malignant"
            )
        elif i % 6 == 2:  # several turns, no tag: the image comes first
            record["conversations"] = turns("similar?", "benign", "and then?", "D E F G")
        out.append(record)
    return out


def write_data(folder: Path) -> None:
    (folder / "images").mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (40 + i, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "images" / f"{i}.png")
    (folder / "images" / "broken.png").write_bytes(b"\x89PNG no more")
    base = {"image": "0.png", "conversations": turns("<image>\nx", "benign")}
    bad = [{**base, **change, "id": f"bad-{i}"} for i, change in enumerate(BAD.values())]
    lines = [json.dumps(record) for record in (*bad, *good_records())]
    (folder / "train.jsonl").write_text("\n".join(["no JSON", "", *lines]) + "\n")
    (folder / "held_out.jsonl").write_text("".join(json.dumps(r) + "\n" for r in good_records()[:5]))
    entry = {
        "root": "images",
        "annotation": "train.jsonl",
        "repeat_time": 1,
        "data_augment": True,
        "length": 9,
    }
    (folder / "meta.json").write_text(json.dumps({"cases": entry}))
    entry = {"root": "images", "annotation": "held_out.jsonl", "repeat_time": 1, "data_augment": False}
    (folder / "held_out.json").write_text(json.dumps({"held out": entry}))


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model/``, ``meta.json``, ``held_out.json`` and what they name; read only."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("finetune")
    save_tiny_internvl(folder / "model", spread=4.0)
    write_data(folder)
    return folder
