from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gsco
from gsco.cli.demo import find_breastmnist, make_phantoms


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without data, and a proxy that nobody listens at, so that a download fails at once."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GSCO_DATA", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return tmp_path


@pytest.mark.parametrize("place", ["breastmnist.npz", "medmnist/breastmnist.npz"])
def test_a_copy_at_hand_is_taken(offline: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    copy = offline / "data" / place
    copy.parent.mkdir(parents=True)
    np.savez(copy, train_images=np.zeros((1, 28, 28), np.uint8))
    monkeypatch.setenv("GSCO_DATA", str(offline / "data"))
    assert find_breastmnist(offline / "demo-data") == copy
    assert not (offline / "demo-data").exists()


def test_medmnists_own_folder_is_looked_into(offline: Path) -> None:
    copy = offline / ".medmnist" / "breastmnist.npz"
    copy.parent.mkdir()
    np.savez(copy, train_images=np.zeros((1, 28, 28), np.uint8))
    assert find_breastmnist(offline / "demo-data") == copy


def test_without_a_copy_and_a_network_there_is_none(offline: Path) -> None:
    assert find_breastmnist(offline / "demo-data") is None
    assert list((offline / "demo-data").iterdir()) == []


def test_then_the_demo_takes_phantoms_which_are_made_once(tmp_path: Path) -> None:
    folder = make_phantoms(tmp_path / "phantoms")
    first = gsco.load_dataset(folder)
    assert first.card["synthetic"] is True
    assert len(first) == 360
    made = (folder / "labels.csv").stat().st_mtime_ns
    make_phantoms(folder)
    assert (folder / "labels.csv").stat().st_mtime_ns == made
