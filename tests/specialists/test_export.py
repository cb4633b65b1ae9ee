"""Specialists as graphs of other runtimes: the same answers, or nothing on disk."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gsco.cases import Dataset
from gsco.errors import DatasetError, ModelError, StorageError
from gsco.specialists import export as exporting
from gsco.specialists import load_specialist, train_specialist
from gsco.specialists.export import PARITY, Gate, check, export_specialist
from gsco.specialists.exported import ExportedSpecialist
from gsco.specialists.fastest import export_fastest
from gsco.specialists.named_networks import create_network
from gsco.specialists.networks import NetworkSpecialist
from gsco.specialists.trained import TrainedSpecialist

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
HALF = (0.5, 0.5, 0.5)


def network(
    architecture: str, size: int, options: tuple[str, ...], pad: int | None = None
) -> NetworkSpecialist:
    """An untrained network with batch statistics that are not the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model, _ = create_network(architecture, pretrained=False, num_classes=len(options), side=pad or size)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    made = NetworkSpecialist(
        name="net",
        recipe="finetuned",
        options=options,
        architecture=architecture,
        size=size,
        mean=HALF,
        std=HALF,
        pad=pad,
    )
    made.adopt(model.state_dict())
    made.temperature = 0.7
    made.reliability = 0.6
    return made


@pytest.fixture(scope="module")
def small(dataset: Dataset) -> NetworkSpecialist:
    return network("test_resnet", 32, dataset.task.keys)


@pytest.fixture(scope="module")
def images(dataset: Dataset) -> list[Any]:
    return [case.image for case in dataset.split("test")]


@pytest.fixture(scope="module")
def small_onnx(small: NetworkSpecialist, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "small"
    export_specialist(small, out)
    return out


def copied(source: Path, target: Path) -> Path:
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize(
    ("architecture", "size", "pad"),
    [
        ("resnet18", 28, 32),
        ("tf_efficientnet_lite0", 32, None),
        ("vit_tiny_patch16_224", 32, None),
    ],
)
def test_a_network_answers_as_before(
    dataset: Dataset, images: list[Any], tmp_path: Path, architecture: str, size: int, pad: int | None
) -> None:
    source = network(architecture, size, dataset.task.keys, pad)
    made = export_specialist(source, tmp_path / "out", dataset=dataset)
    read = load_specialist(tmp_path / "out")
    assert isinstance(read, ExportedSpecialist)
    np.testing.assert_array_equal(read.predict(images), made.predict(images))
    np.testing.assert_allclose(read.predict(images), source.predict(images), rtol=0, atol=PARITY)
    assert (read.name, read.options, read.temperature, read.reliability) == ("net", source.options, 0.7, 0.6)
    assert read.report["compared on"] == "12 validation cases of " + dataset.name
    assert 0 <= read.report["largest difference of a logit"] <= PARITY
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "largest difference of a probability" in card
    assert "Not a medical device" in card


@pytest.mark.parametrize("recipe", ["linear_probe", "knn"])
def test_backbone_and_head_are_one_graph(
    dataset: Dataset, images: list[Any], backbone_folder: Path, tmp_path: Path, recipe: str
) -> None:
    source = train_specialist(f"{recipe}:{backbone_folder}", dataset, cache=tmp_path / "cache", size=32)
    export_specialist(source, tmp_path / "out", dataset=dataset)
    read = load_specialist(tmp_path / "out")
    np.testing.assert_allclose(read.logits(images), source.logits(images), rtol=0, atol=PARITY)
    assert read.val_metrics == pytest.approx(source.val_metrics)
    # what the copy stands for is a folder of its own: the weights of the backbone are not asked for again
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"config.json", "README.md", "model.onnx"}


def test_openvino_answers_as_before(
    dataset: Dataset, small: NetworkSpecialist, images: list[Any], tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    export_specialist(small, tmp_path / "out", to="openvino", dataset=dataset)
    assert (tmp_path / "out" / "model.bin").is_file()
    read = load_specialist(tmp_path / "out")
    np.testing.assert_allclose(read.predict(images), small.predict(images), rtol=0, atol=PARITY)


def test_the_graph_takes_any_batch_and_a_picture_has_the_same_answer_in_each(
    small_onnx: Path, images: list[Any]
) -> None:
    session = onnxruntime.InferenceSession((small_onnx / "model.onnx").read_bytes())
    pixels = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    (together,) = session.run(None, {"pixels": pixels})
    alone = [session.run(None, {"pixels": row[None]})[0][0] for row in pixels]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
    read = load_specialist(small_onnx)
    assert read.predict([]).shape == (0, 3)
    np.testing.assert_allclose(
        np.concatenate([read.predict([image]) for image in images]), read.predict(images), rtol=0, atol=1e-6
    )


def test_saved_again_it_is_the_same(small_onnx: Path, tmp_path: Path) -> None:
    load_specialist(small_onnx).save_pretrained(tmp_path / "again")
    for file in small_onnx.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precision_passes_an_open_gate_and_says_its_figures(
    dataset: Dataset, small: NetworkSpecialist, images: list[Any], tmp_path: Path, precision: str
) -> None:
    made = export_specialist(
        small, tmp_path / "out", precision=precision, dataset=dataset, gate=Gate(loss=1, agreement=0)
    )
    read = load_specialist(tmp_path / "out")
    assert isinstance(read, ExportedSpecialist)
    assert read.precision == precision
    worst = np.abs(read.logits(images) - small.logits(images)).max()
    assert 0 < worst < 0.2 * np.abs(small.logits(images)).max()
    assert {"accuracy", "accuracy of the original", "macro_f1", "agreement"} <= set(made.report)


def test_lower_precision_that_fails_the_gate_leaves_nothing(
    dataset: Dataset, small: NetworkSpecialist, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"int8 does not pass: accuracy .* agreement"):
        export_specialist(
            small, tmp_path / "out", precision="int8", dataset=dataset, gate=Gate(agreement=1.01)
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("accuracy", "macro_f1", "agreement", "passes"),
    [(0.8, 0.8, 1.0, True), (0.796, 0.796, 0.99, True), (0.794, 0.8, 1.0, False), (0.8, 0.794, 1.0, False),
     (0.8, 0.8, 0.98, False), (0.9, 0.9, 0.98, False)],
)  # fmt: skip
def test_the_gate_is_what_it_says(accuracy: float, macro_f1: float, agreement: float, passes: bool) -> None:
    report = {"largest difference of a probability": 0.1, "largest difference of a logit": 1.0,
              "largest logit": 3.0,
              "agreement": agreement, "accuracy": accuracy, "accuracy of the original": 0.8,
              "macro_f1": macro_f1, "macro_f1 of the original": 0.8, "compared on": "9 cases"}  # fmt: skip
    if passes:
        check(report, "int8", Gate())
    else:
        with pytest.raises(ModelError, match="does not pass"):
            check(report, "int8", Gate())


@pytest.mark.parametrize(
    ("probability", "logit", "largest", "passes"),
    [(9e-5, 9e-5, 0.1, True), (2e-4, 1e-5, 9.0, False), (1e-5, 2e-4, 0.5, False), (1e-5, 2e-4, 9.0, True),
     (1e-5, 1e-3, 9.0, False), (float("nan"), 0.0, 1.0, False), (0.0, float("nan"), 1.0, False)],
)  # fmt: skip
def test_parity_is_what_it_says(probability: float, logit: float, largest: float, passes: bool) -> None:
    report = {"largest difference of a probability": probability, "largest difference of a logit": logit,
              "largest logit": largest}  # fmt: skip
    if passes:
        check(report, "fp32", Gate())
    else:
        with pytest.raises(ModelError, match="differs from the original"):
            check(report, "fp32", Gate())


def test_a_graph_that_says_something_else_leaves_nothing(
    small: NetworkSpecialist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = network("test_resnet", 32, small.options)
    other.adopt({key: torch.from_numpy(value * 1.01) for key, value in small._state.items()})
    graph = exporting.to_onnx(exporting.graph_of(other))
    monkeypatch.setattr(exporting, "to_onnx", lambda _graph: graph)
    with pytest.raises(ModelError, match=r"differs from the original by .* allowed are 1e-04"):
        export_specialist(small, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_fastest_that_passes_is_kept_and_says_why(
    dataset: Dataset, small: NetworkSpecialist, images: list[Any], tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    report = export_fastest(small, tmp_path / "out", dataset=dataset, gate=Gate(agreement=1.01))
    rows = {row["candidate"]: row for row in report["candidates"]}
    assert {"pytorch", "onnx fp32", "onnx int8", "openvino fp32", "openvino int8"} <= set(rows)
    timed = {
        name: row["batch_1"] * row["batch_16"] for name, row in rows.items() if row["batch_1"] is not None
    }
    assert set(timed) == {"pytorch", "onnx fp32", "openvino fp32"}  # the gate lets nothing lower through
    assert report["kept"] == min(timed, key=lambda name: timed[name])
    read = load_specialist(tmp_path / "out")
    np.testing.assert_allclose(read.predict(images), small.predict(images), rtol=0, atol=PARITY)
    assert "least CPU time of 3 that pass" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_cannot_be_asked_for(
    dataset: Dataset, small: NetworkSpecialist, backbone_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ModelError, match=r"no export target 'tensorrt'.*onnx, openvino, auto"):
        export_specialist(small, out, to="tensorrt")
    with pytest.raises(ModelError, match="onnx has no precision 'bf16'"):
        export_specialist(small, out, precision="bf16")
    with pytest.raises(DatasetError, match="precision int8 is checked on labelled validation cases"):
        export_specialist(small, out, precision="int8")
    with pytest.raises(DatasetError, match="chosen on validation cases"):
        export_fastest(small, out, dataset=None)
    strange = network("test_resnet", 32, ("cat", "dog"))
    with pytest.raises(DatasetError, match="the specialist cat, dog"):
        export_specialist(strange, out, dataset=dataset)
    texture = train_specialist(f"texture_probe:{backbone_folder}", dataset, cache=tmp_path / "cache", size=32)
    with pytest.raises(ModelError, match="reads texture features, which the network alone does not give"):
        export_specialist(texture, out, dataset=dataset)
    assert not out.exists()
    out.mkdir()
    with pytest.raises(StorageError, match="exists already"):
        export_specialist(small, out)
    with pytest.raises(ModelError, match="kind 'exported' cannot be exported"):
        export_specialist(load_specialist(export_specialist_to(small, tmp_path / "one")), tmp_path / "two")


def export_specialist_to(source: TrainedSpecialist, out: Path) -> Path:
    export_specialist(source, out)
    return out


@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
def test_a_runtime_that_is_not_installed_is_named(
    small: NetworkSpecialist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name.split(".")[0] == library:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    to = "onnx" if library == "onnxruntime" else library
    with pytest.raises(ModelError, match=rf"is not installed .* pip install 'gsco\[{to}\]'"):
        export_specialist(small, tmp_path / "out", to=to)
    assert not list(tmp_path.iterdir())


def test_a_damaged_graph_is_named(small_onnx: Path, tmp_path: Path) -> None:
    folder = copied(small_onnx, tmp_path / "bent")
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"bent: model.onnx is damaged: its checksum"):
        load_specialist(folder)
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"is incomplete: no model\.onnx"):
        load_specialist(folder)


def test_a_graph_that_is_none_is_named(small_onnx: Path, tmp_path: Path) -> None:
    import hashlib

    folder = copied(small_onnx, tmp_path / "none")
    (folder / "model.onnx").write_bytes(b"no graph at all")
    config = json.loads((folder / "config.json").read_text())
    config["model"]["sha256"]["model.onnx"] = hashlib.sha256(b"no graph at all").hexdigest()
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"none: model.onnx cannot be read by ONNX Runtime"):
        load_specialist(folder)


def test_other_options_than_the_graph_answers_are_refused(small_onnx: Path, tmp_path: Path) -> None:
    folder = copied(small_onnx, tmp_path / "more")
    config = json.loads((folder / "config.json").read_text())
    config["options"].append("fourth")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"answers 3 options, config\.json names 4"):
        load_specialist(folder)
