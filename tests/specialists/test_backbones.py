from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from gsco.errors import ModelError
from gsco.specialists.backbones import Backbone, load_backbone
from gsco.specialists.fusion import FusedConvolution, fold_batch_norm, for_inference


def _pictures(n: int, seed: int = 0, size: tuple[int, int] = (40, 30)) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for _ in range(n)]


@pytest.fixture(scope="module")
def backbone(backbone_folder: Path) -> Backbone:
    return load_backbone(str(backbone_folder), size=64)


def test_features_are_those_of_plain_timm(backbone: Backbone, backbone_folder: Path) -> None:
    """Against timm's own model and torchvision's own transform, one picture at a time, NCHW, not folded."""
    from torchvision.transforms import v2

    plain = timm.create_model(f"local-dir:{backbone_folder}", pretrained=True).eval()
    transform = v2.Compose(
        [
            v2.Resize((64, 64), interpolation=v2.InterpolationMode.BICUBIC),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(plain.pretrained_cfg["mean"], plain.pretrained_cfg["std"]),
        ]
    )
    pictures = _pictures(6)
    with torch.inference_mode():
        expected = torch.cat([plain.forward_features(transform(p)[None]) for p in pictures])
    np.testing.assert_allclose(backbone.transform(pictures[0]), transform(pictures[0]), atol=1e-6)
    scale = float(expected.abs().max())
    np.testing.assert_allclose(backbone.maps(pictures), expected, atol=1e-5 * scale)
    np.testing.assert_allclose(backbone.pooled(pictures), expected.mean((2, 3)), atol=1e-5 * scale)


def test_a_picture_has_the_same_features_in_any_company(backbone: Backbone) -> None:
    pictures = _pictures(7)
    together = backbone.pooled(pictures)
    alone = np.concatenate([backbone.pooled([picture]) for picture in pictures])
    backwards = backbone.pooled(pictures[::-1])[::-1]
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-5)
    np.testing.assert_allclose(backwards, together, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(backbone.pooled(pictures), together)


def test_pooled_and_texture_come_from_the_same_maps(backbone: Backbone) -> None:
    pictures = _pictures(5)
    pooled, texture = backbone.pooled_and_texture(pictures)
    np.testing.assert_allclose(pooled, backbone.pooled(pictures), atol=1e-5)
    with torch.inference_mode():
        _, stages = backbone.model.forward_intermediates(backbone.transform(pictures[0])[None])
    expected = [part for s in stages for part in (s.mean((2, 3)), s.std((2, 3), correction=0))]
    np.testing.assert_allclose(texture[0], torch.cat(expected, 1)[0], atol=1e-4)


@pytest.mark.parametrize(
    "name", ["test_efficientnet", "test_resnet", "test_vit", "test_convnext", "test_nfnet"]
)
def test_families_of_timm_give_maps(name: str) -> None:
    made = load_backbone(name, pretrained=False)
    maps = made.maps(_pictures(2))
    assert maps.shape[:2] == (2, made.channels)
    assert maps.ndim == 4
    assert not made.pretrained
    assert np.isfinite(maps).all()


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_byobnet"])
def test_folding_leaves_no_norm_and_the_same_numbers(name: str) -> None:
    model = timm.create_model(name).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    folded = fold_batch_norm(model, (3, 64, 64))
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules()) > 5
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    with torch.inference_mode():
        batch = torch.randn(2, 3, 64, 64)
        torch.testing.assert_close(
            folded.forward_features(batch), model.forward_features(batch), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize(
    "name", ["test_efficientnet", "test_resnet", "test_byobnet", "tf_efficientnet_lite0"]
)
@pytest.mark.parametrize("size", [64, 75])
def test_fused_kernels_give_the_same_numbers(name: str, size: int) -> None:
    """Odd sizes matter: the "same" padding of one side is then another than that of the other."""
    model = timm.create_model(name).eval()
    fused = for_inference(model, (3, size, size))
    assert sum(isinstance(m, FusedConvolution) for m in fused.modules()) > 5
    with torch.inference_mode():
        batch = torch.randn(3, 3, size, size).contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(
            fused.forward_features(batch), model.forward_features(batch), atol=1e-4, rtol=1e-4
        )


def test_an_activation_that_also_leaves_its_input_to_others_is_not_fused_wrongly() -> None:
    class Fork(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
            self.act = torch.nn.ReLU()

        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.act(y) + y

    model = Fork().eval()
    with torch.inference_mode():
        batch = torch.randn(1, 3, 8, 8)
        torch.testing.assert_close(
            for_inference(model, (3, 8, 8)).forward_features(batch), model.forward_features(batch)
        )


def test_a_convolution_used_twice_is_not_folded_wrongly() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)
            self.bn = torch.nn.BatchNorm2d(3)

        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.bn(self.conv(x)))

    model = Twice().eval()
    model.bn.running_var.fill_(4.0)
    with torch.inference_mode():
        batch = torch.randn(1, 3, 8, 8)
        expected = model.forward_features(batch)
        torch.testing.assert_close(fold_batch_norm(model, (3, 8, 8)).forward_features(batch), expected)


def test_fingerprint_names_weights_and_transform(
    backbone: Backbone, backbone_folder: Path, tmp_path: Path
) -> None:
    same = load_backbone(str(shutil.copytree(backbone_folder, tmp_path / "copy")), size=64)
    assert same.fingerprint == backbone.fingerprint
    assert load_backbone(str(backbone_folder), size=32).fingerprint != backbone.fingerprint
    config = json.loads((tmp_path / "copy/config.json").read_text())
    config["pretrained_cfg"]["mean"] = [0.5, 0.5, 0.5]
    (tmp_path / "copy/config.json").write_text(json.dumps(config))
    assert load_backbone(str(tmp_path / "copy"), size=64).fingerprint != backbone.fingerprint


def test_random_weights_do_not_depend_on_what_was_drawn_before() -> None:
    first = load_backbone("test_resnet", pretrained=False)
    torch.rand(5)
    assert load_backbone("test_resnet", pretrained=False).fingerprint == first.fingerprint


def test_the_whole_picture_is_seen(backbone: Backbone) -> None:
    array = np.zeros((100, 30, 3), dtype=np.uint8)
    array[:6] = 255  # a mark at the border, which a centre crop would lose
    assert backbone.prepare(Image.fromarray(array)).shape == (64, 64, 3)
    assert backbone.prepare(Image.fromarray(array))[0].min() > 200


@pytest.mark.parametrize("name", ["no_such_net", "a/b/c"])
def test_unknown_name_is_one_line(name: str) -> None:
    with pytest.raises(ModelError, match="no backbone") as caught:
        load_backbone(name)
    assert "\n" not in str(caught.value)


def test_folder_that_is_no_backbone_is_refused(tmp_path: Path, backbone_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        load_backbone(str(tmp_path))
    broken = shutil.copytree(backbone_folder, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError, match="broken"):
        load_backbone(str(broken))


def test_weights_out_of_reach_are_an_error_or_said_aloud(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="cannot be had"):
        load_backbone("test_resnet")
    with caplog.at_level(logging.WARNING):
        made = load_backbone("test_resnet", scratch_ok=True)
    assert not made.pretrained
    assert "starts from random ones" in caplog.text


@pytest.mark.nano
def test_embedded_backbone_sees(shared_data: Path) -> None:
    """The embedded weights are ImageNet's: cells, breasts and skin lie in different places."""
    made = load_backbone("embedded")
    assert (made.channels, made.size, made.pretrained) == (1280, 224, True)
    kinds = ["busi", "ham10000", "lc25000_lung"]
    features = []
    for kind in kinds:
        files = sorted((shared_data / kind / "images").iterdir())[:3]
        features.append(made.pooled([Image.open(file).convert("RGB") for file in files]))
    centred = np.concatenate(features) - np.concatenate(features).mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    similarity = centred @ centred.T
    same = np.kron(np.eye(3), np.ones((3, 3))).astype(bool)
    assert similarity[same].mean() > similarity[~same].mean() + 0.3
