"""A function, a scikit-learn classifier, an ONNX file: specialists like any other."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gsco.cases import Dataset
from gsco.errors import ModelError
from gsco.specialists import load_specialist
from gsco.specialists.conformance import assert_conformant
from gsco.specialists.registry import training_job
from gsco.specialists.trained import TrainingJob
from gsco.specialists.wrapped import CallableSpecialist, SklearnSpecialist

from .packages import install

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def job(dataset: Dataset, feature_cache: Path) -> TrainingJob:
    return training_job(dataset, cache=feature_cache)


def brightness(pictures: list[Image.Image]) -> np.ndarray:
    grey = np.asarray([np.asarray(picture.convert("L")).mean() / 255 for picture in pictures])
    return np.stack([grey, 1 - grey, np.full(len(grey), 0.3)], axis=1)


def _val(job: TrainingJob) -> dict[str, Any]:
    return {"images": [case.image for case in job.val], "targets": job.val_targets.tolist()}


def test_a_function_is_calibrated_and_conforms(job: TrainingJob, tmp_path: Path) -> None:
    made = CallableSpecialist(brightness, job.options, name="brightness")
    images = [case.image for case in job.val]
    given = brightness([Image.open(image.path).convert("RGB") for image in images])
    np.testing.assert_allclose(made.predict(images), given / given.sum(1, keepdims=True), atol=1e-12)
    made.calibrate(job)
    assert made.temperature != 1.0
    assert_conformant(made, **_val(job))
    with pytest.raises(ModelError, match=r"'brightness' is a Python object and cannot be saved.*ONNX"):
        made.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda pictures: [[0.5, 0.5]] * len(pictures), r"gave \(1, 2\) for 1 picture and 3 options"),
        (lambda pictures: [[0.5, np.nan, 0.5]] * len(pictures), "no probabilities"),
        (lambda pictures: [[0.0, 0.0, 0.0]] * len(pictures), "no probabilities"),
        (lambda pictures: [[-0.5, 1.0, 0.5]] * len(pictures), "no probabilities"),
    ],
)
def test_a_function_that_gives_no_probabilities_is_told_so(
    answer: Any, message: str, job: TrainingJob
) -> None:
    with pytest.raises(ModelError, match=message):
        CallableSpecialist(answer, job.options, name="wrong").predict([job.val[0].image])


def test_a_classifier_of_scikit_learn_fitted_by_us_or_before(
    job: TrainingJob, backbone_folder: Path, tmp_path: Path
) -> None:
    from sklearn.naive_bayes import GaussianNB

    arguments = {"options": job.options, "backbone_name": str(backbone_folder), "cache": job.cache}
    ours = SklearnSpecialist(GaussianNB(), name="bayes", **arguments).fit(job)
    assert ours.reliability is not None and ours.reliability > 0.4
    assert_conformant(ours, **_val(job))
    # fitted before, to option keys, in another order than the task's, one option never met
    features = ours.embed([case.image for case in job.train])
    keys = np.asarray([case.label for case in job.train])
    met = keys != job.options[1]
    theirs = SklearnSpecialist(GaussianNB().fit(features[met], keys[met]), name="theirs", **arguments)
    assert (theirs.predict([case.image for case in job.val])[:, 1] < 1e-9).all()
    with pytest.raises(ModelError, match="cannot be saved"):
        ours.save_pretrained(tmp_path / "saved")
    strange = SklearnSpecialist(GaussianNB().fit(features, keys == "disc"), name="strange", **arguments)
    with pytest.raises(ModelError, match="no option"):
        strange.calibrate(job)


class Tiny(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, outputs, 5, stride=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).relu().mean(dim=(2, 3))


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tiny]:
    """A foreign graph with five outputs for grey pictures of 20 pixels, built node by node."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    torch.manual_seed(3)
    model = Tiny(5).eval()
    weights = [
        numpy_helper.from_array(model.layer.weight.detach().numpy(), "w"),
        numpy_helper.from_array(model.layer.bias.detach().numpy(), "b"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 20, 20])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    path.write_bytes(made.SerializeToString())
    return path, model


def test_an_onnx_file_answers_as_its_network_and_lives_in_a_folder(
    onnx_file: tuple[Path, Tiny], job: TrainingJob, tmp_path: Path
) -> None:
    from gsco.specialists.wrapped_onnx import OnnxSpecialist

    path, model = onnx_file
    made = OnnxSpecialist.of(path, job.options, mean=[0.4], std=[0.2], columns=[4, 0, 2])
    images = [case.image for case in job.val]
    pixels = [
        np.asarray(Image.open(i.path).convert("L").resize((20, 20), Image.Resampling.BILINEAR))
        for i in images
    ]
    batch = torch.from_numpy((np.stack(pixels)[:, None].astype(np.float32) / 255 - 0.4) / 0.2)
    with torch.no_grad():
        expected = model(batch)[:, [4, 0, 2]]
    np.testing.assert_allclose(made.logits(images), expected, atol=1e-5)
    made.calibrate(job)
    assert_conformant(made, **_val(job), folder=tmp_path)
    read = load_specialist(tmp_path / "saved")
    assert isinstance(read, OnnxSpecialist)
    assert (read.name, read.columns, read.temperature) == ("tiny", (4, 0, 2), made.temperature)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "gives 5 numbers for 3 options.*columns="),
        ({"columns": [0, 1, 5]}, "gives 5 numbers"),
        ({"columns": [0, 1]}, "2 columns are named for 3 options"),
        ({"columns": [0, 1, 2], "size": 28}, "takes 20 pixels, not 28"),
        ({"columns": [0, 1, 2], "channels": 3}, "takes 1 channels, not 3"),
    ],
)
def test_an_onnx_file_that_does_not_fit_is_told_at_once(
    arguments: dict[str, Any], message: str, onnx_file: tuple[Path, Tiny], job: TrainingJob
) -> None:
    from gsco.specialists.wrapped_onnx import OnnxSpecialist

    with pytest.raises(ModelError, match=message):
        OnnxSpecialist.of(onnx_file[0], job.options, **arguments)


def test_a_file_that_is_no_onnx_is_one_line(job: TrainingJob, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from gsco.specialists.wrapped_onnx import OnnxSpecialist

    (tmp_path / "torn.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match="cannot be opened by ONNX Runtime") as raised:
        OnnxSpecialist.of(tmp_path / "torn.onnx", job.options)
    assert "\n" not in str(raised.value)
    with pytest.raises(ModelError, match="cannot be read"):
        OnnxSpecialist.of(tmp_path / "absent.onnx", job.options)


def test_the_torchxrayvision_example_is_a_plugin_that_conforms(
    phantom_folder: Path, feature_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("torchxrayvision") is None:
        pytest.skip("torchxrayvision is not installed")
    from dataclasses import replace

    from gsco.cases import Option, load_dataset

    code = (EXAMPLES / "torchxrayvision_specialist.py").read_text()
    entries = {
        "gsco.specialists": {"torchxrayvision": "xrv_package:torchxrayvision"},
        "gsco.specialist_kinds": {"torchxrayvision": "xrv_package:XrvSpecialist"},
    }
    install(tmp_path / "site", monkeypatch, "xrv_package", code, entries)
    monkeypatch.delitem(sys.modules, "xrv_package", raising=False)
    phantoms = load_dataset(phantom_folder)
    options = (Option("no_finding", "no finding"), Option("pneumonia", "pneumonia"))
    cases = tuple(
        replace(case, labels=("no_finding" if case.label == "no_finding" else "pneumonia",))
        for case in phantoms
    )
    two = replace(phantoms, task=replace(phantoms.task, options=options), cases=cases)
    from gsco.specialists import train_specialist

    made = train_specialist("torchxrayvision", two, cache=feature_cache)
    val = two.split("val")
    (tmp_path / "check").mkdir()
    assert_conformant(made, [case.image for case in val][:4], folder=tmp_path / "check")
