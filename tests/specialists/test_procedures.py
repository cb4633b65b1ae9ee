"""The reference's ten architectures and three procedures, with random weights and few steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from sklearn.neighbors import KNeighborsClassifier

from gsco.cases import Dataset, load_image
from gsco.specialists import load_specialist, train_specialist
from gsco.specialists.architectures import REFERENCE
from gsco.specialists.backbones import load_backbone, pad_to
from gsco.specialists.epochs_head import fit_head
from gsco.specialists.named_networks import create_network
from gsco.specialists.plain_knn import PlainNeighbours
from gsco.specialists.procedures import PROCEDURES, medmnist, medmnist_plus
from gsco.specialists.registry import training_job


def _cases(dataset: Dataset, n: int) -> Dataset:
    """Few cases of each split, so that the largest of the networks takes seconds."""
    from dataclasses import replace

    few = tuple(case for split in ("train", "val", "test") for case in dataset.split(split)[:n])
    return replace(dataset, cases=few)


@pytest.mark.parametrize("architecture", REFERENCE)
@pytest.mark.parametrize("procedure", PROCEDURES)
def test_every_architecture_goes_through_every_procedure(
    procedure: str, architecture: str, dataset: Dataset, tmp_path: Path
) -> None:
    """At 28 pixels, padded to 64 instead of 224 to be quick; weights are random since no hub is in reach."""
    few = _cases(dataset, 6)
    made = train_specialist(
        f"{procedure}:{architecture}", few, cache=tmp_path, out=tmp_path / "out", size=28, pad=64, quick=True
    )
    assert made.details["pretrained"] is False
    images = [case.image for case in few.split("test")]
    found = made.predict(images)
    assert found.shape == (6, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-9)
    np.testing.assert_array_equal(load_specialist(tmp_path / "out").predict(images), found)


def test_pictures_are_padded_as_the_benchmark_pads(dataset: Dataset) -> None:
    """Against torchvision: normalise, then zeros around, the smaller half above and left."""
    from torchvision import transforms

    backbone = load_backbone("resnet18", pretrained=False, size=27, pad=64)
    picture = load_image(dataset.cases[0].image).resize((27, 27))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    wanted = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(mean, std), transforms.Pad((18, 18, 19, 19))]
    )(picture)
    torch.testing.assert_close(backbone.transform(picture), wanted, atol=1e-5, rtol=0)
    assert pad_to(wanted[None], 32) is not None
    assert pad_to(wanted[None], 32).shape == (1, 3, 64, 64)


def test_rates_of_the_two_recipes() -> None:
    """The cosine against timm's, stepped as the benchmark's code steps it; MedMNIST's against torch's."""
    from timm.scheduler import CosineLRScheduler

    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=1e-4)
    scheduler = CosineLRScheduler(optimiser, t_initial=100, cycle_limit=1, t_in_epochs=True)
    plus, plain = medmnist_plus(28, 224), medmnist(28)
    steps = torch.optim.SGD([weight], lr=1e-3)
    tenths = torch.optim.lr_scheduler.MultiStepLR(steps, [50, 75], gamma=0.1)
    for epoch in range(100):
        assert plus.lr * plus.share(epoch, 3, 100, 7) == pytest.approx(optimiser.param_groups[0]["lr"])
        assert plain.lr * plain.share(epoch, 0, 100, 7) == pytest.approx(steps.param_groups[0]["lr"])
        scheduler.step(epoch=epoch)
        steps.step()
        tenths.step()
    assert (plus.epochs(5000), plain.epochs(10)) == (100, 100)


def test_the_vote_is_scikit_learns(dataset: Dataset, backbone_folder: Path, tmp_path: Path) -> None:
    made = train_specialist(f"kNN:{backbone_folder}", dataset, cache=tmp_path, size=32, pad=0)
    assert isinstance(made, PlainNeighbours)
    test = [case.image for case in dataset.split("test")]
    train = [case.image for case in dataset.split("train")]
    peer = KNeighborsClassifier(n_neighbors=11, algorithm="ball_tree")
    peer.fit(made.embed(train), dataset.targets(dataset.split("train")))
    np.testing.assert_array_equal(made.predict(test).argmax(axis=1), peer.predict(made.embed(test)))


def test_what_the_last_layer_sees_is_timms(dataset: Dataset) -> None:
    """A linear layer on the cached features gives the logits of the whole network."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=3).eval()
    from gsco.specialists.backbones import Backbone

    half = (0.5, 0.5, 0.5)
    backbone = Backbone(model, name="test_vit", size=160, mean=half, std=half)
    pictures = [load_image(case.image) for case in dataset.cases[:3]]
    features = torch.from_numpy(backbone.prelogits(pictures))
    with torch.inference_mode():
        whole = model(torch.stack([backbone.transform(picture) for picture in pictures]))
        torch.testing.assert_close(model.get_classifier()(features), whole, atol=1e-4, rtol=1e-4)


def test_the_head_learns_and_stops_early(dataset: Dataset, tmp_path: Path) -> None:
    job = training_job(dataset, cache=tmp_path)
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 3, (3, 20))
    train = (centres[job.train_targets] + rng.normal(0, 1, (36, 20))).astype(np.float32)
    val = (centres[job.val_targets] + rng.normal(0, 1, (12, 20))).astype(np.float32)
    from dataclasses import replace

    schedule = replace(medmnist_plus(28, None), lr=0.03)
    weight, bias, epochs, best = fit_head(train, val, job, schedule)
    assert ((val @ weight.T + bias).argmax(axis=1) == job.val_targets).all()
    assert best <= epochs <= 100
    again = fit_head(train, val, job, schedule)
    np.testing.assert_array_equal(again[0], weight)
    noise = rng.normal(0, 1, (12, 20)).astype(np.float32)
    _, _, epochs, best = fit_head(train, noise, job, schedule)
    assert epochs < 100
    assert epochs - best == schedule.patience


def test_medmnists_network_keeps_the_size_in_its_stem() -> None:
    model, learned = create_network("medmnist_resnet18", pretrained=False, num_classes=2)
    assert not learned
    assert model.maxpool(model.act1(model.bn1(model.conv1(torch.zeros(2, 3, 28, 28))))).shape[-1] == 28
    assert model(torch.zeros(2, 3, 28, 28)).shape == (2, 2)
    assert sum(p.numel() for p in model.parameters()) == 11_169_858  # Kuangliu's CIFAR ResNet-18, two classes
