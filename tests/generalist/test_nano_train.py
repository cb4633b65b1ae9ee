"""Training MedDr-nano's adapter: it learns, it survives kill -9, it refuses what does not fit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from gsco.cases import ImageRef
from gsco.errors import ModelError, RunError
from gsco.generalist.nano.assemble import check_adapter
from gsco.generalist.nano.train import TrainConfig, train_nano
from gsco.generalist.records import Record, read_records, write_records

SETTINGS = {
    "batch_size": 4, "lora_rank": 4, "lora_alpha": 8, "views": 2, "save_steps": 2, "learning_rate": 5e-3,
}  # fmt: skip
CONFIG = TrainConfig(**SETTINGS)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    folder = tmp_path_factory.mktemp("records")
    out = []
    for i in range(48):
        path = folder / f"{i % 4}.png"
        if not path.exists():
            Image.new("RGB", (40, 40), (60 * (i % 4), 10, 200)).save(path)
        answer = "AB"[i % 2]
        image = ImageRef(path) if i % 3 else None
        out.append(Record(str(i), "see", "made", image, f"Options:\nA. x{'*' * (i % 2)}\nB. y", answer))
    return read_records(write_records(out, folder))


@pytest.fixture(scope="module")
def trained(base: Path, records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_nano(records, tmp_path_factory.mktemp("trained"), config=CONFIG, base=base)


def test_training_writes_adapter_log_and_facts(trained: Path, records: list[Record]) -> None:
    check_adapter(trained)
    state = load_file(trained / "adapter_model.safetensors")
    assert all(t.dtype == torch.float16 for t in state.values())
    assert any("multi_modal_projector" in key for key in state)
    assert any(t.abs().max() > 0 for key, t in state.items() if "lora_B" in key)
    facts = json.loads((trained / "training.json").read_text())
    assert facts["records"] == len(records)
    assert facts["steps"] == 12
    steps = [json.loads(line)["step"] for line in (trained / "training_log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert not (trained / "work").exists()


def test_products_in_bfloat16_learn_nearly_the_same(
    trained: Path, base: Path, records: list[Record], tmp_path: Path
) -> None:
    config = TrainConfig(**SETTINGS, bf16=True)  # type: ignore[arg-type]
    train_nano(records, tmp_path, config=config, base=base)

    def losses(folder: Path) -> list[float]:
        lines = (folder / "training_log.jsonl").read_text().splitlines()
        return [found["loss"] for line in lines if "loss" in (found := json.loads(line))]

    assert losses(tmp_path) == pytest.approx(losses(trained), rel=0.05)
    exact, rounded = (load_file(f / "adapter_model.safetensors") for f in (trained, tmp_path))
    assert any(not torch.equal(exact[key], rounded[key]) for key in exact)


def test_killed_training_resumes_to_the_same_weights(
    base: Path, records: list[Record], trained: Path, tmp_path: Path
) -> None:
    write_records(records, tmp_path / "records")
    script = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "from gsco.generalist.nano.train import TrainConfig, train_nano\n"
        "from gsco.generalist.records import read_records\n"
        f"config = TrainConfig(**{SETTINGS})\n"
        "records, out, base = map(Path, sys.argv[1:])\n"
        "train_nano(read_records(records), out, config=config, base=base)\n"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-c", script, str(tmp_path / "records" / "records.jsonl"), str(out), str(base)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while process.poll() is None and not list((out / "work").glob("checkpoint-*/trainer_state.json")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert process.poll() is None, "training ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "adapter_model.safetensors").exists()
    with (out / "training_log.jsonl").open("a") as log:
        log.write('{"step": 999, "loss": 1.0}\n{"step": 1000, "lo')  # logged, then killed
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    resumed, whole = (load_file(p / "adapter_model.safetensors") for p in (out, trained))
    assert resumed.keys() == whole.keys()
    for key in whole:
        np.testing.assert_allclose(resumed[key].float(), whole[key].float(), atol=2e-3)
    logged, whole_log = ((p / "training_log.jsonl").read_text().splitlines() for p in (out, trained))
    assert [json.loads(line)["step"] for line in logged] == [json.loads(line)["step"] for line in whole_log]


def test_unfinished_work_of_other_records_is_refused(
    base: Path, records: list[Record], tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "facts.json").write_text("{}")
    with pytest.raises(RunError, match="of other data or by another recipe"):
        train_nano(records, tmp_path, config=CONFIG, base=base)


def test_an_adapter_of_another_model_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no adapter"):
        check_adapter(tmp_path)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "some/llama"
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="another model"):
        check_adapter(tmp_path)
