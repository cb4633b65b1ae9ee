"""Checkpoints in the reference's form, made here with the reference's own libraries."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import transforms
from torchvision.models import alexnet

from gsco.cases import Dataset, load_image
from gsco.errors import ModelError
from gsco.specialists import load_specialist, train_specialist
from gsco.specialists.architectures import REFERENCE
from gsco.specialists.calibration import softmax
from gsco.specialists.checkpoints import CheckpointName, export_checkpoint, import_checkpoint

NAME = "breastmnist_28_endToEnd_resnet18_s9930641_best.pth"


@given(
    st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}", fullmatch=True),
    st.integers(1, 2000),
    st.sampled_from(["endToEnd", "linearProbing", "kNN"]),
    st.sampled_from(REFERENCE),
    st.integers(0, 2**40),
    st.sampled_from(["best", "final"]),
)
def test_a_name_is_read_as_it_is_written(
    dataset: str, size: int, procedure: str, architecture: str, seed: int, which: str
) -> None:
    name = CheckpointName(dataset, size, procedure, architecture, seed, which)
    assert CheckpointName.parse(str(name)) == name


@given(st.text(max_size=60))
def test_another_name_is_one_line(text: str) -> None:
    try:
        assert str(CheckpointName.parse(text)).lower() == text.lower() or "_s0" in text
    except ModelError as error:
        assert "\n" not in str(error)


def _save(path: Path, architecture: str, classes: int) -> torch.nn.Module:
    """As the benchmark's training script saves it."""
    torch.manual_seed(0)
    if architecture == "alexnet":
        model = alexnet()
        model.classifier[6] = torch.nn.Linear(4096, classes)
    else:
        model = timm.create_model(architecture, num_classes=classes)
    torch.save(model.state_dict(), path)
    return model.eval()


@pytest.mark.parametrize("architecture", ["resnet18", "alexnet"])
def test_an_imported_network_answers_as_the_references_script_would(
    architecture: str, dataset: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / f"shapes_24_endToEnd_{architecture}_s1_best.pth"
    model = _save(path, architecture, 3)
    made = import_checkpoint(path, dataset=dataset, cache=tmp_path)
    images = [case.image for case in dataset.split("test")[:4]]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    script = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(mean, std), transforms.Pad(100, fill=0)]
    )
    with torch.inference_mode():
        wanted = model(torch.stack([script(load_image(image)) for image in images])).numpy()
    np.testing.assert_allclose(made.logits(images), wanted, atol=1e-4)
    np.testing.assert_allclose(made.predict(images), softmax(wanted, made.temperature), atol=1e-4)
    assert (made.size, made.pad, made.details["seed"]) == (24, 224, 1)
    assert made.details["n_val"] == 12
    made.save_pretrained(tmp_path / "folder")
    np.testing.assert_array_equal(load_specialist(tmp_path / "folder").predict(images), made.predict(images))


def test_without_a_dataset_the_options_are_medmnists(tmp_path: Path) -> None:
    _save(tmp_path / NAME, "resnet18", 2)
    made = import_checkpoint(tmp_path / NAME)
    assert made.options == ("0", "1")
    assert (made.temperature, made.reliability) == (1.0, None)
    _save(tmp_path / "unheard_28_endToEnd_resnet18_s1_best.pth", "resnet18", 2)
    with pytest.raises(ModelError, match="nobody knows the classes of dataset 'unheard'"):
        import_checkpoint(tmp_path / "unheard_28_endToEnd_resnet18_s1_best.pth")


def test_what_is_written_is_what_the_references_script_loads(dataset: Dataset, tmp_path: Path) -> None:
    images = [case.image for case in dataset.split("test")[:3]]
    known = tmp_path / "shapes_24_endToEnd_resnet18_s3_best.pth"
    _save(known, "resnet18", 3)
    made = import_checkpoint(known, dataset=dataset)
    path = export_checkpoint(made, tmp_path, seed=7)
    assert path.name == "shapes_24_endToEnd_resnet18_s7_best.pth"
    model = timm.create_model("resnet18", num_classes=3)
    model.load_state_dict(torch.load(path, weights_only=True))
    again = import_checkpoint(path, dataset=replace(dataset, cases=dataset.split("train")))
    np.testing.assert_array_equal(again.logits(images), made.logits(images))
    assert (made.details["calibrated_on"], again.details["calibrated_on"]) == (dataset.name, None)
    probe = train_specialist("linearProbing:resnet18", dataset, cache=tmp_path, size=24, pad=224, quick=True)
    path = export_checkpoint(probe, tmp_path, seed=7)
    assert path.name == f"{dataset.name}_24_linearProbing_resnet18_s7_best.pth"
    back = import_checkpoint(path, dataset=replace(dataset, cases=dataset.split("train")))
    np.testing.assert_allclose(back.logits(images), probe.logits(images), atol=1e-4)
    head = train_specialist("kNN:resnet18", dataset, cache=tmp_path, size=24, pad=32)
    with pytest.raises(ModelError, match="not one network"):
        export_checkpoint(head, tmp_path, dataset="shapes", seed=7)


@pytest.mark.parametrize(
    ("recipe", "size", "pad", "words"),
    [
        ("endToEnd:resnet18", 24, 0, "trained on 24 pixels without padding"),
        ("linearProbing:resnet18", 24, 32, "trained on 24 pixels padded to 32"),
        ("small_cnn", 24, None, "architecture 'small_cnn' is of this package alone"),
    ],
)
def test_what_the_references_script_would_feed_otherwise_is_not_written(
    recipe: str, size: int, pad: int | None, words: str, dataset: Dataset, tmp_path: Path
) -> None:
    made = train_specialist(recipe, dataset, cache=tmp_path, size=size, pad=pad, quick=True)
    with pytest.raises(ModelError, match=words) as caught:
        export_checkpoint(made, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("code ran",))


def _wrong_classes(path: Path) -> None:
    _save(path, "resnet18", 5)


def _other_architecture(path: Path) -> None:
    _save(path, "resnet26", 2)


def _whole_model(path: Path) -> None:
    torch.save(timm.create_model("resnet18", num_classes=2), path)


def _plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Evil()))


def _numbers(path: Path) -> None:
    torch.save({"epoch": 3, "loss": 0.5}, path)


def _a_list(path: Path) -> None:
    torch.save([torch.zeros(2)], path)


def _text(path: Path) -> None:
    path.write_text("not found")


def _empty(path: Path) -> None:
    path.touch()


def _a_folder(path: Path) -> None:
    path.mkdir()


def _cut(path: Path) -> None:
    _save(path, "resnet18", 2)
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_wrong_classes, "has 5 classes, and the dataset has 2 options"),
        (_other_architecture, "another architecture than its name says"),
        (_whole_model, "not a state dict"),
        (_plain_pickle, "not a state dict"),
        (_numbers, "not a state dict but a mapping of other things"),
        (_a_list, "not a state dict but a list"),
        (_text, "not a state dict"),
        (_cut, "holds more than tensors, or is damaged"),
        (_empty, "is an empty file"),
        (_a_folder, r"cannot be read \(Is a directory\)"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_one_line(
    make: object, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / NAME)  # type: ignore[operator]
    with pytest.raises(ModelError, match=words) as caught:
        import_checkpoint(tmp_path / NAME)
    assert "\n" not in str(caught.value)
    assert "code ran" not in capsys.readouterr().out


def test_a_knn_has_nothing_to_import(tmp_path: Path) -> None:
    path = tmp_path / NAME.replace("endToEnd", "kNN")
    _save(path, "resnet18", 2)
    with pytest.raises(ModelError, match=r"no weights of its own.*--procedure knn") as caught:
        import_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        import_checkpoint(tmp_path / NAME)
