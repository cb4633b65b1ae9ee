"""Where weights come from: the Hub's local cache first, and no long wait where there is no Hub."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from gsco.errors import ModelError
from gsco.specialists import named_networks
from gsco.specialists.named_networks import create_network, hub_is_there

NAME = "test_resnet"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's local cache, in its own layout, with weights of one small network."""
    repository = timm.get_pretrained_cfg(NAME).hf_hub_id
    folder = tmp_path / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    torch.manual_seed(5)
    model = timm.create_model(NAME, pretrained=False)
    save_file(model.state_dict(), folder / "snapshots" / ("0" * 40) / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return folder


@pytest.fixture
def fresh() -> Iterator[None]:
    """No answer remembered from another test."""
    named_networks._answers.cache_clear()
    yield
    named_networks._answers.cache_clear()


def test_weights_in_the_hubs_cache_are_taken_offline(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.manual_seed(5)
    expected = timm.create_model(NAME, pretrained=False).state_dict()
    model, learned = create_network(NAME, pretrained=True, num_classes=3)
    assert learned
    found = model.state_dict()
    alike = [key for key in expected if expected[key].shape == found[key].shape]
    assert len(alike) >= len(expected) - 2  # all but the classifier of another size
    for key in alike:
        torch.testing.assert_close(found[key], expected[key])


def test_damaged_weights_in_the_cache_are_named(hub_cache: Path) -> None:
    (file,) = hub_cache.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        create_network(NAME, pretrained=True)
    assert caught.value.where == str(file)


@pytest.mark.usefixtures("fresh")
def test_a_hub_that_nobody_answers_for_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        assert hub_is_there()
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert not hub_is_there()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    named_networks._answers.cache_clear()
    assert not hub_is_there()
    asked: list[str] = []
    monkeypatch.setattr(named_networks, "_published", lambda name, extra: asked.append(name))
    with pytest.raises(ModelError, match="cannot be reached"):
        create_network(NAME, pretrained=True)
    assert asked == []


@pytest.mark.usefixtures("fresh")
def test_behind_a_proxy_the_client_is_left_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert hub_is_there()
