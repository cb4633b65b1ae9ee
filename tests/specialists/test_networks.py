from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gsco.cases import Dataset
from gsco.specialists import train_specialist
from gsco.specialists.backbones import Backbone
from gsco.specialists.calibration import judge, softmax
from gsco.specialists.named_networks import create_network
from gsco.specialists.networks import NetworkSpecialist, start_head
from gsco.specialists.registry import training_job


@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_resnet"])
def test_fine_tuning_starts_from_a_fitted_classifier(
    dataset: Dataset, tmp_path: Path, architecture: str
) -> None:
    """Before any training, the network answers the training cases as the logistic regression does."""
    torch.manual_seed(0)
    model, _ = create_network(architecture, pretrained=False, num_classes=3)
    job = training_job(dataset, cache=tmp_path)
    mean = std = (0.5, 0.5, 0.5)
    trunk = {key: value.clone() for key, value in model.state_dict().items()}
    start_head(model, job, 48, mean, std)
    network = Backbone(model.eval(), name="x", size=48, mean=mean, std=std)
    from gsco.cases import load_image

    pictures = [load_image(case.image) for case in job.train]
    (logits,) = network.apply(pictures, lambda batch: [network.model(batch)])
    assert judge(softmax(logits), job.train_targets)["accuracy"] > 0.9
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, trunk[key])}
    classifier = next(name for name, module in model.named_modules() if module is model.get_classifier())
    assert changed == {f"{classifier}.weight", f"{classifier}.bias"}


def test_small_network_learns_shapes_from_nothing(dataset: Dataset, tmp_path: Path) -> None:
    made = train_specialist("small_cnn", dataset, cache=tmp_path, size=24)
    test = dataset.split("test")
    found = made.predict([case.image for case in test])
    assert judge(found, np.asarray(dataset.targets(test)))["accuracy"] >= 0.9
    assert isinstance(made, NetworkSpecialist)
    assert not list((tmp_path / "training").glob("*"))  # a training that is over leaves no checkpoint


def test_a_picture_has_the_same_answer_in_any_company(dataset: Dataset, tmp_path: Path) -> None:
    made = train_specialist("small_cnn", dataset, cache=tmp_path, size=24, quick=True)
    images = [case.image for case in dataset.split("test")]
    alone = np.concatenate([made.predict([image]) for image in images])
    np.testing.assert_allclose(alone, made.predict(images), rtol=0, atol=1e-6)
