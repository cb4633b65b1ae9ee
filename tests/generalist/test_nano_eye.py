"""The eye is taught names, survives a kill, and goes into the adapter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from gsco.cases import ImageRef, load_image
from gsco.errors import RunError
from gsco.generalist.nano.assemble import load_base
from gsco.generalist.nano.averaging import average_adapters
from gsco.generalist.nano.eye import vision_tokens
from gsco.generalist.nano.eye_training import EyeConfig, open_eye, teach_eye
from gsco.generalist.nano.naming import Shown
from gsco.generalist.nano.train import TrainConfig, train_nano
from gsco.generalist.records import Record

CONFIG = EyeConfig(epochs=3, batch_size=8, learning_rate=1e-4, projector_learning_rate=5e-3)


def examples(folder: Path, n: int) -> list[Shown]:
    options = (("benign",), ("malignant", "normal"))
    out = []
    for i in range(n):
        rng = np.random.default_rng(i)
        noise = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
        noise[..., i % 2] += 150  # red against green
        Image.fromarray(noise).save(folder / f"{i}.png")
        out.append(Shown(ImageRef(folder / f"{i}.png"), options, i % 2, cluster=str(i)))
    return out


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> list[Shown]:
    return examples(tmp_path_factory.mktemp("shown"), 24)


@pytest.fixture(scope="module")
def taught(base: Path, shown: list[Shown], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teach_eye(shown, tmp_path_factory.mktemp("taught"), config=CONFIG, base=base)


def test_what_differs_is_told_apart(taught: Path, base: Path) -> None:
    facts = json.loads((taught / "eye.json").read_text())
    first, last = facts["history"][0], facts["history"][-1]
    assert last["loss"] < first["loss"]
    scores = [epoch["accuracy"]["benign / malignant"] for epoch in facts["history"]]
    assert max(scores) == scores[facts["kept_epoch"] - 1] == 1.0
    model, _ = load_base(base)
    before = {key: value.clone() for key, value in model.model.vision_tower.backbone.state_dict().items()}
    open_eye(model, load_file(taught / "eye.safetensors"))
    after = model.model.vision_tower.backbone.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert any(key.endswith("weight") for key in changed)
    assert not any("running" in key or "num_batches" in key for key in changed)
    assert not (taught / "work").exists()


def test_killed_after_an_epoch_it_ends_the_same(
    taught: Path, base: Path, shown: list[Shown], tmp_path: Path
) -> None:
    class KilledError(Exception):
        pass

    def kill(what: str, done: int, total: int) -> None:
        if what.startswith("teaching") and done == 2 * total // 3:
            raise KilledError

    with pytest.raises(KilledError):
        teach_eye(shown, tmp_path, config=CONFIG, base=base, progress=kill)
    assert (tmp_path / "work" / "checkpoint.pt").exists()
    other = EyeConfig(epochs=2, batch_size=8)
    with pytest.raises(RunError, match="unfinished training of other data"):
        teach_eye(shown, tmp_path, config=other, base=base)
    teach_eye(shown, tmp_path, config=CONFIG, base=base)
    for name in ("eye.safetensors", "projector.safetensors", "eye.json"):
        assert (tmp_path / name).read_bytes() == (taught / name).read_bytes()


def test_the_eye_goes_into_the_adapter(taught: Path, base: Path, shown: list[Shown], tmp_path: Path) -> None:
    from peft import PeftModel

    records = [
        Record(str(i), "see", "made", s.image, "Options:\nA\nB", "AB"[s.truth])
        for i, s in enumerate(shown[:8])
    ]
    settings = TrainConfig(batch_size=4, lora_rank=4, views=1)
    for name, init in (("one", None), ("two", tmp_path / "one")):
        train_nano(
            records,
            tmp_path / name,
            config=settings,
            base=base,
            init=init,
            projector=taught / "projector.safetensors" if init is None else None,
            eye=taught / "eye.safetensors" if init is None else None,  # else that of the adapter
        )
    average_adapters([tmp_path / "one", tmp_path / "two"], tmp_path / "mean")
    model, _ = load_base(base)
    open_eye(model, load_file(taught / "eye.safetensors"))
    image = load_image(ImageRef(shown[0].image.path))
    expected = vision_tokens(model, [image])
    for name in ("two", "mean"):
        plain, _ = load_base(base)
        assert (vision_tokens(plain, [image]) - expected).abs().max() > 1e-2
        adapted = PeftModel.from_pretrained(plain, str(tmp_path / name), torch_device="cpu")
        seen = vision_tokens(adapted.merge_and_unload().eval(), [image])
        torch.testing.assert_close(seen, expected)
    held = load_file(tmp_path / "mean" / "adapter_model.safetensors")
    kinds = {tensor.dtype for key, tensor in held.items() if "running_var" in key}
    assert kinds == {torch.float32}
