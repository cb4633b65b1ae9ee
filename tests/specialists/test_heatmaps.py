from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image

from gsco.cases import Dataset, ImageRef, load_dataset, load_image
from gsco.cases.phantoms import draw_phantom, sample_spec
from gsco.errors import LabelError, ModelError
from gsco.specialists import TrainedSpecialist, train_specialist
from gsco.specialists.cnn import SmallCNN
from gsco.specialists.gradcam import GradCAM
from gsco.specialists.heatmaps import explainer, heatmap, spread
from gsco.specialists.randomisation import randomisation_test, rank_correlation

SAM = {"img_size": 64, "depth": 2, "embed_dim": 64, "num_heads": 2, "global_attn_indexes": (1,)}
TINY = {"embed_dim": 64, "depth": 3, "num_heads": 2}
FAMILIES: list[tuple[str, int, dict[str, Any], str, int]] = [
    # architecture, size, arguments, the module whose maps are shown, their side
    ("resnet18", 224, {}, "layer4", 7),
    ("resnet18", 128, {}, "layer3", 8),  # the last maps are 4 x 4 here
    ("resnet18", 64, {}, "layer2", 8),
    ("densenet121", 224, {}, "features", 7),
    ("densenet121", 128, {}, "features.transition3.conv", 8),
    ("test_efficientnet", 128, {}, "blocks.4.0.bn1", 8),
    ("tf_efficientnet_lite0", 112, {}, "blocks.5.0.bn1", 7),
    ("vgg11", 128, {"mlp_ratio": 0.02}, "features.19", 8),
    ("vit_tiny_patch16_224", 96, {"img_size": 96, **TINY}, "blocks.2.norm1", 6),
    ("vit_base_patch16_clip_224", 64, {"img_size": 64, **TINY}, "blocks.2.norm1", 4),
    ("eva02_base_patch16_clip_224", 64, {"img_size": 64, **TINY}, "blocks.2.norm1", 4),
    ("vit_small_patch14_reg4_dinov2", 70, {"img_size": 70, **TINY}, "blocks.2.norm1", 5),
    ("eva02_tiny_patch14_224", 70, {"img_size": 70, **TINY}, "norm", 5),  # reads the mean of its patches
    ("samvit_base_patch16_224", 64, SAM, "neck", 4),
    ("swin_tiny_patch4_window7_224", 56, {"img_size": 56, "depths": (1, 1), "num_heads": (2, 4)}, "norm", 7),
]


@pytest.mark.parametrize(("name", "size", "arguments", "layer", "side"), FAMILIES)
def test_the_last_maps_that_count_are_found(
    name: str, size: int, arguments: dict[str, Any], layer: str, side: int
) -> None:
    torch.manual_seed(0)
    gradcam = GradCAM(timm.create_model(name, num_classes=3, **arguments))
    pixels = torch.randn(1, 3, size, size)
    grids = [gradcam.grid(pixels, option) for option in range(3)]
    assert gradcam.layer == layer
    for grid in grids:
        assert grid.shape == (side, side)
        assert grid.isfinite().all()
        assert (grid >= 0).all()
    assert any(grid.std() > 0 for grid in grids)
    assert len({grid.numpy().tobytes() for grid in grids}) > 1


def test_torchvisions_alexnet_has_maps() -> None:
    torch.manual_seed(0)
    gradcam = GradCAM(torchvision.models.alexnet(num_classes=3))
    assert gradcam.grid(torch.randn(1, 3, 224, 224), 0).shape == (6, 6)
    assert gradcam.layer == "features"


def test_a_network_without_maps_is_refused() -> None:
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 2))
    with pytest.raises(ModelError, match="no feature maps"):
        GradCAM(flat).grid(torch.zeros(1, 3, 8, 8), 0)


def test_with_one_linear_layer_on_pooled_maps_grad_cam_is_cam() -> None:
    """Selvaraju et al. (2017), section 3.1: the two differ by the number of positions only."""
    torch.manual_seed(0)
    model = SmallCNN(4).eval()
    pixels = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        maps = model.forward_features(pixels)[0]
        cam = torch.einsum("c,chw->hw", model.classifier.weight[2], maps).clamp(min=0)
    torch.testing.assert_close(GradCAM(model).grid(pixels, 2), cam / 36)


def test_tokens_lie_where_their_patches_are() -> None:
    """Grad-CAM by hand, from the tokens that go into the last attention."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=64, **TINY).eval()
    pixels = torch.randn(1, 3, 64, 64)
    kept: list[torch.Tensor] = []
    hook = model.blocks[2].norm1.register_forward_hook(lambda m, i, out: kept.append(out))
    (gradient,) = torch.autograd.grad(model(pixels)[0, 1], kept)
    hook.remove()
    tokens, weights = kept[0][0, 1:], gradient[0, 1:].mean(dim=0)
    expected = (tokens @ weights).clamp(min=0).reshape(4, 4)
    torch.testing.assert_close(GradCAM(model).grid(pixels, 1), expected.detach())


def test_the_network_is_given_back_as_it_was() -> None:
    model = SmallCNN(2).eval()
    pixels = torch.randn(1, 3, 64, 64)
    before = model(pixels)
    GradCAM(model).grid(pixels, 0)
    assert not any(module._forward_hooks for module in model.modules())
    torch.testing.assert_close(model(pixels), before, rtol=0, atol=0)


# specialists ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def team(
    dataset: Dataset, backbone_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TrainedSpecialist]:
    cache = tmp_path_factory.mktemp("cache")
    heads = ("linear_probe", "knn", "texture_probe")
    recipes = {name: f"{name}:{backbone_folder}" for name in heads} | {"small_cnn": "small_cnn"}
    return {
        name: train_specialist(recipe, dataset, cache=cache, quick=True, size=96 if name in heads else 32)
        for name, recipe in recipes.items()
    }


@pytest.mark.parametrize("name", ["linear_probe", "knn", "small_cnn"])
def test_a_map_has_the_shape_of_its_picture(
    team: dict[str, TrainedSpecialist], name: str, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 70), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    found = heatmap(team[name], ImageRef(tmp_path / "wide.png"))
    assert found.values.shape == (40, 70)
    assert found.values.dtype == np.float32
    assert found.values.min() >= 0
    assert found.values.max() == (0 if found.empty else 1)
    probabilities = team[name].predict([ImageRef(tmp_path / "wide.png")])[0]
    assert found.option == team[name].options[int(probabilities.argmax())]
    assert found.probability == probabilities.max()


def test_the_map_of_a_linear_head_adds_up_to_its_logit(
    team: dict[str, TrainedSpecialist], dataset: Dataset
) -> None:
    head: Any = team["linear_probe"]
    for case in dataset.split("test")[:3]:
        logits = head.logits([case.image])[0]
        for option in range(3):
            share = explainer(head).evidence(case.image, option)
            assert share.shape == (3, 3)
            assert share.mean() + head.bias[option] == pytest.approx(logits[option], abs=1e-4)


def test_the_map_of_neighbours_adds_up_to_their_similarity(
    team: dict[str, TrainedSpecialist], dataset: Dataset
) -> None:
    head: Any = team["knn"]
    case = dataset.split("test")[0]
    centred = head.embed([case.image])[0] - head.mean
    similarity = head.bank @ (centred / np.linalg.norm(centred))
    votes = np.zeros(3)
    rows, weights = head.voters(centred / np.linalg.norm(centred))
    assert set(rows) == set(np.argsort(-similarity)[: head.k])
    for option in range(3):
        mine = head.labels[rows] == option
        votes[option] = weights[mine].sum()
        share = explainer(head).evidence(case.image, option)
        mean = np.average(similarity[rows[mine]], weights=weights[mine]) if mine.any() else 0.0
        assert share.mean() == pytest.approx(mean, abs=1e-5)
    assert votes.argmax() == head.predict([case.image])[0].argmax()


def test_an_option_can_be_asked_for(team: dict[str, TrainedSpecialist], dataset: Dataset) -> None:
    image = dataset.split("test")[0].image
    probabilities = team["small_cnn"].predict([image])[0]
    maps = [heatmap(team["small_cnn"], image, option) for option in ("across", "disc", "down")]
    assert [found.option for found in maps] == ["across", "disc", "down"]
    assert [found.probability for found in maps] == pytest.approx(list(probabilities))
    assert not np.array_equal(maps[0].values, maps[1].values)


def test_what_has_no_map_says_so(
    team: dict[str, TrainedSpecialist], dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = dataset.split("test")[0].image
    with pytest.raises(ModelError, match=r"'texture_probe.*' has no heat map: .* without places"):
        heatmap(team["texture_probe"], image)
    with pytest.raises(LabelError, match=r"no option 'square'. Choose one of: across, disc, down"):
        heatmap(team["small_cnn"], image, "square")

    class Foreign:
        name, options, reliability = "foreign", ("a", "b"), None

    with pytest.raises(ModelError, match="'foreign' has no heat map"):
        heatmap(Foreign(), image)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(
        ModelError, match=r"need captum, which is not installed. Install it: pip install 'gsco\[explain\]'"
    ):
        heatmap(team["small_cnn"], image)
    heatmap(team["linear_probe"], image)  # needs nothing more


def test_places_stay_where_they_are() -> None:
    grid = np.zeros((4, 4))
    grid[0, 3] = 2.0
    values = spread(grid, (20, 40))
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert row < 3
    assert column > 35
    assert values[10:].max() < 0.01
    assert not spread(-np.ones((4, 4)), (8, 8)).any()
    assert not spread(np.full((4, 4), np.nan), (8, 8)).any()


# does it show what was learned? --------------------------------------------------------------------


def test_maps_change_when_what_was_learned_is_taken_away(
    team: dict[str, TrainedSpecialist], dataset: Dataset
) -> None:
    images = [case.image for case in dataset.split("test")[:6]]
    steps = randomisation_test(team["small_cnn"], images)
    assert [step.part for step in steps] == [
        "classifier", "blocks.3", "blocks.2", "blocks.1", "blocks.0", "stem_bn", "stem",
    ]  # fmt: skip
    (whole,) = randomisation_test(team["small_cnn"], images, cascade=False)
    assert whole.correlation == steps[-1].correlation  # the same permutations
    for step in steps:
        assert step.correlation < 0.7
    (head,) = randomisation_test(team["linear_probe"], images)
    assert head.correlation < 0.7


def test_rank_correlation() -> None:
    one = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert rank_correlation(one, one**3) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)
    assert rank_correlation(one, np.zeros_like(one)) == 0


def test_the_map_of_a_trained_network_lies_on_the_finding(tmp_path: Path) -> None:
    """On phantoms with and without a plain consolidation, more of the map than of the image is on it."""
    size, kinds = 48, ("no_finding", "consolidation")
    rows, place = ["image,label,split"], {}
    for i in range(112):
        kind, split = kinds[i % 2], ("train" if i < 72 else "val" if i < 88 else "test")
        spec = sample_spec(kind, patient=i)
        finding = replace(spec.finding, contrast=1.0)
        Image.fromarray(draw_phantom(replace(spec, finding=finding), size=size)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{kind},{split}")
        place[f"{i}.png"] = finding
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    dataset = load_dataset(tmp_path)
    network = train_specialist("small_cnn", dataset, cache=tmp_path / "cache", quick=True, size=size)
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    shares, areas = [], []
    for case in dataset.split("test"):
        finding = place[case.image.path.name]
        if finding.kind == "consolidation":
            inside = np.hypot(x - finding.x, y - finding.y) < 0.6 * finding.size
            values = heatmap(network, case.image, "consolidation").values
            shares.append(values[inside].sum() / max(values.sum(), 1e-9))
            areas.append(inside.mean())
    assert len(shares) == 12
    assert np.mean(shares) > 1.3 * np.mean(areas)


def test_a_padded_picture_is_cut_out_of_the_map() -> None:
    grid = np.zeros((8, 8))
    grid[2, 2] = 1  # upper left of the picture, which is the inner half
    grid[0, 0] = 5  # in the padding
    found = spread(grid, (32, 32), inner=0.5)
    assert found.shape == (32, 32)
    y, x = np.unravel_index(found.argmax(), found.shape)
    assert y < 12
    assert x < 12
    assert found.max() == 1


def test_a_head_on_a_frozen_network_is_explained_as_the_network_it_makes(
    dataset: Dataset, tmp_path: Path
) -> None:
    made = train_specialist("linearProbing:resnet18", dataset, cache=tmp_path, size=28, pad=96, quick=True)
    image = dataset.cases[0].image
    network = made.plain_network()  # type: ignore[attr-defined]
    with torch.inference_mode():
        logits = network(made.backbone.transform(load_image(image))[None])  # type: ignore[attr-defined]
    np.testing.assert_allclose(logits[0].numpy(), made.logits([image])[0], atol=1e-4)
    found = heatmap(made, image)
    assert (found.method, found.values.shape) == ("grad-cam", (24, 24))
