"""Embeddings of every kind of specialist, kept by the fingerprint of its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gsco.cases import Dataset
from gsco.errors import ModelError
from gsco.specialists import Specialist, load_specialist, train_specialist
from gsco.specialists.embeddings import embed


@pytest.fixture(scope="module")
def trained(dataset: Dataset, backbone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("trained")

    def get(recipe: str) -> Specialist:
        name = recipe.partition(":")[0]
        if not (folder / name).exists():
            train_specialist(recipe, dataset, cache=folder / "c", out=folder / name, quick=True, size=32)
        return load_specialist(folder / name)

    return get


@pytest.mark.parametrize("name", ["linear_probe", "texture_probe", "finetuned", "small_cnn"])
def test_pooled_and_unpooled(
    name: str, trained: Any, dataset: Dataset, backbone_folder: Path, tmp_path: Path
) -> None:
    specialist = trained(name if name == "small_cnn" else f"{name}:{backbone_folder}")
    images = [case.image for case in dataset.split("test")]
    pooled = embed(specialist, images, cache=tmp_path)
    maps = embed(specialist, images, pooled=False, cache=tmp_path)
    assert pooled.dtype == maps.dtype == np.float32
    assert pooled.shape[0] == maps.shape[0] == len(images)
    assert maps.ndim == 4
    if name != "texture_probe":
        np.testing.assert_allclose(pooled, maps.mean(axis=(2, 3)), atol=1e-5)
    assert np.ptp(pooled, axis=0).max() > 0
    kept = list((tmp_path / "features").iterdir())
    assert np.array_equal(embed(specialist, images, cache=tmp_path), pooled)
    assert list((tmp_path / "features").iterdir()) == kept


def test_a_head_stands_on_its_embeddings(trained: Any, dataset: Dataset, backbone_folder: Path) -> None:
    specialist = trained(f"linear_probe:{backbone_folder}")
    images = [case.image for case in dataset.split("test")]
    assert np.array_equal(specialist.score(embed(specialist, images)), specialist.logits(images))


class Foreign:
    """A specialist of another package; `embed` is added where a test wants it."""

    name, options, reliability = "foreign", ("a", "b"), None

    def predict(self, images: Any) -> Any:
        return np.full((len(images), 2), 0.5)

    def save_pretrained(self, folder: Path) -> None:
        raise NotImplementedError


def test_one_without_embeddings_is_named(dataset: Dataset) -> None:
    images = [case.image for case in dataset.split("test")]
    with pytest.raises(ModelError, match="'foreign' gives no embeddings"):
        embed(Foreign(), images)

    class Telling(Foreign):
        def embed(self, images: Any) -> Any:
            return np.ones((len(images), 3))

    assert embed(Telling(), images).shape == (12, 3)
    with pytest.raises(ModelError, match="gives no un-pooled embeddings"):
        embed(Telling(), images, pooled=False)
