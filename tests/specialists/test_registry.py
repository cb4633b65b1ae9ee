from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gsco.cases import Dataset
from gsco.errors import DatasetError, ModelError
from gsco.specialists import (
    DEFAULT_TEAM,
    RECIPES,
    Specialist,
    TrainedSpecialist,
    load_specialist,
    opinion_of,
    train_specialist,
)
from gsco.specialists.knn import NearestNeighbours
from gsco.specialists.linear import LinearProbe
from gsco.specialists.registry import missing_cases


def _recipe(name: str, backbone_folder: Path) -> str:
    return f"{name}:{backbone_folder}" if RECIPES[name].backbone else name


@pytest.fixture(scope="module")
def trained(
    dataset: Dataset, backbone_folder: Path, feature_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[TrainedSpecialist, Path]]:
    out = tmp_path_factory.mktemp("specialists")
    shorter = replace(dataset, cases=tuple(c for c in dataset.cases if c.split != "test"))
    return {
        name: (
            train_specialist(
                _recipe(name, backbone_folder),
                shorter,
                cache=feature_cache,
                out=out / name,
                quick=True,
                size=32,
            ),
            out / name,
        )
        for name in RECIPES
    }


def test_team_is_made_of_recipes() -> None:
    assert set(DEFAULT_TEAM) <= set(RECIPES)
    assert len(DEFAULT_TEAM) >= 4


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_keeps_the_contract(
    name: str, trained: dict[str, tuple[TrainedSpecialist, Path]], dataset: Dataset
) -> None:
    made, _ = trained[name]
    assert isinstance(made, Specialist)
    assert made.options == dataset.task.keys
    assert made.name.startswith(name)
    assert "/" not in made.name
    images = [case.image for case in dataset.split("test")]
    probabilities = made.predict(images)
    assert probabilities.shape == (12, 3)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-12)
    assert made.reliability is not None
    assert 0 <= made.reliability <= 1
    assert made.predict([]).shape == (0, 3)


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_comes_back_from_its_folder_the_same(
    name: str, trained: dict[str, tuple[TrainedSpecialist, Path]], dataset: Dataset, tmp_path: Path
) -> None:
    made, folder = trained[name]
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    loaded = load_specialist(shutil.copytree(folder, tmp_path / "elsewhere"))
    images = [case.image for case in dataset.split("test")]
    np.testing.assert_array_equal(loaded.predict(images), made.predict(images))
    told = ("class_reliability", "abstains_below", "conformal")
    for field in ("name", "recipe", "options", "temperature", "reliability", "val_metrics", "details", *told):
        assert getattr(loaded, field) == getattr(made, field), field


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_card_says_what_a_reader_must_know(
    name: str, trained: dict[str, tuple[TrainedSpecialist, Path]]
) -> None:
    text = (trained[name][1] / "README.md").read_text()
    for words in ("Not a medical device", "macro_f1", "Licence of the data", "36 training and 12 validation"):
        assert words in text, words


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_seed_gives_the_same_numbers_twice(
    name: str,
    trained: dict[str, tuple[TrainedSpecialist, Path]],
    dataset: Dataset,
    backbone_folder: Path,
    tmp_path: Path,
) -> None:
    again = train_specialist(_recipe(name, backbone_folder), dataset, cache=tmp_path, quick=True, size=32)
    images = [case.image for case in dataset.split("test")]
    np.testing.assert_array_equal(again.predict(images), trained[name][0].predict(images))


def test_training_never_looks_at_the_test_split(
    trained: dict[str, tuple[TrainedSpecialist, Path]],
    dataset: Dataset,
    backbone_folder: Path,
    tmp_path: Path,
) -> None:
    """The fixture trained on a dataset without its test cases; above, with them, gave the same numbers."""
    broken = tuple(
        replace(c, images=(replace(c.image, path=tmp_path / "gone.png"),)) if c.split == "test" else c
        for c in dataset.cases
    )
    made = train_specialist(
        _recipe("linear_probe", backbone_folder), replace(dataset, cases=broken), cache=tmp_path, size=32
    )
    assert made.val_metrics == trained["linear_probe"][0].val_metrics


def test_from_pretrained_of_a_class_takes_only_its_own(
    trained: dict[str, tuple[TrainedSpecialist, Path]],
) -> None:
    assert isinstance(NearestNeighbours.from_pretrained(trained["knn"][1]), NearestNeighbours)
    assert isinstance(TrainedSpecialist.from_pretrained(trained["knn"][1]), NearestNeighbours)
    with pytest.raises(ModelError, match="holds a knn specialist"):
        LinearProbe.from_pretrained(trained["knn"][1])


def test_without_validation_there_is_no_reliability(
    dataset: Dataset, backbone_folder: Path, feature_cache: Path, tmp_path: Path
) -> None:
    train_only = replace(dataset, cases=dataset.split("train"))
    made = train_specialist(f"knn:{backbone_folder}", train_only, cache=feature_cache, out=tmp_path)
    assert (made.reliability, made.temperature, made.val_metrics) == (None, 1.0, {})
    loaded = load_specialist(tmp_path)
    assert loaded.reliability is None
    opinion = opinion_of(loaded, [1 / len(made.options)] * len(made.options), made.options)
    assert (opinion.class_reliability, opinion.trust, opinion.abstains) == (None, None, False)


def test_a_folder_made_before_opinions_were_judged_still_loads(
    trained: dict[str, tuple[TrainedSpecialist, Path]], tmp_path: Path
) -> None:
    made, folder = trained["knn"]
    assert made.class_reliability is not None
    shutil.copytree(folder, tmp_path / "old")
    path = tmp_path / "old" / "config.json"
    config = json.loads(path.read_text())
    for name in ("class_reliability", "abstains_below", "conformal"):
        del config[name]
    path.write_text(json.dumps(config))
    old = load_specialist(tmp_path / "old")
    assert (old.class_reliability, old.abstains_below, old.conformal) == (None, None, None)
    assert old.temperature == made.temperature
    config["class_reliability"] = [0.5] * (len(made.options) + 1)
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="do not fit"):
        load_specialist(tmp_path / "old")


def test_an_opinion_says_how_often_it_is_right_and_when_it_would_rather_not(
    trained: dict[str, tuple[TrainedSpecialist, Path]], dataset: Dataset
) -> None:
    made = trained["linear_probe"][0]
    val = dataset.split("val")
    opinions = [opinion_of(made, row, made.options) for row in made.predict([case.image for case in val])]
    truth = dataset.targets(val)
    assert sum(not o.abstains for o in opinions) == math.ceil(0.8 * len(opinions))
    right = sum(o.choice == t for o, t in zip(opinions, truth, strict=True))
    overall = (right + 1) / (len(truth) + 2)
    for k in range(len(made.options)):
        said = [t for o, t in zip(opinions, truth, strict=True) if o.choice == k]
        expected = (sum(t == k for t in said) + 2 * overall) / (len(said) + 2)
        assert made.class_reliability is not None
        assert made.class_reliability[k] == pytest.approx(expected)
    assert opinions[0].trust == made.class_reliability[opinions[0].choice]
    assert "abstains below" in (trained["linear_probe"][1] / "README.md").read_text()


def test_an_opinion_stands_in_the_tasks_order(trained: dict[str, tuple[TrainedSpecialist, Path]]) -> None:
    made = trained["linear_probe"][0]
    assert made.class_reliability is not None
    turned = opinion_of(made, (0.7, 0.2, 0.1), made.options[::-1])
    assert turned.class_reliability == made.class_reliability[::-1]
    assert turned.trust == made.class_reliability[-1]


@pytest.mark.parametrize(
    ("recipe", "words"), [("svm", "linear_probe"), ("small_cnn:resnet18", "takes no backbone")]
)
def test_unknown_recipe_is_one_line(dataset: Dataset, tmp_path: Path, recipe: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        train_specialist(recipe, dataset, cache=tmp_path)
    assert "\n" not in str(caught.value)


def test_data_with_nothing_to_learn_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    questions = replace(dataset, task=replace(dataset.task, kind="vqa"))
    with pytest.raises(DatasetError, match="asks for vqa, not for diagnosis"):
        train_specialist("knn", questions, cache=tmp_path)
    lone = replace(dataset, task=replace(dataset.task, options=dataset.task.options[:1]))
    with pytest.raises(DatasetError, match=r"fewer than two options \(across\)\. There is nothing to choose"):
        train_specialist("knn", lone, cache=tmp_path)
    one = tuple(case for case in dataset.cases if case.label == "disc")
    with pytest.raises(DatasetError, match="fewer than two labels"):
        train_specialist("knn", replace(dataset, cases=one), cache=tmp_path)
    for recipe in RECIPES:
        with pytest.raises(DatasetError, match="3 training cases are too few") as caught:
            train_specialist(recipe, replace(dataset, cases=dataset.split("train")[:3]), cache=tmp_path)
        assert "\n" not in str(caught.value)


def test_an_option_without_cases_is_named(dataset: Dataset) -> None:
    cases = tuple(c for c in dataset.cases if not (c.split in {"val", "test"} and c.label == "disc"))
    assert missing_cases(dataset) == []
    assert missing_cases(replace(dataset, cases=cases)) == [
        "no validation case of disc: not calibrated",
        "no test case of disc: not judged",
    ]
    assert missing_cases(replace(dataset, cases=dataset.split("train"))) == [
        "no validation cases: not calibrated",
        "no test cases: not judged",
    ]


@pytest.mark.parametrize("recipe", ["linearProbing", "endToEnd"])
def test_a_size_that_a_network_cannot_take_is_one_line(dataset: Dataset, tmp_path: Path, recipe: str) -> None:
    with pytest.raises(ModelError, match="cannot take pictures of 16 x 16 pixels") as caught:
        train_specialist(f"{recipe}:alexnet", dataset, cache=tmp_path, size=16, pad=0, quick=True)
    assert "\n" not in str(caught.value)


def _damage_missing_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _damage_cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _damage_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _damage_other_model(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 8}))


def _damage_other_kind(folder: Path) -> None:
    _edit(folder, kind="forest")


def _damage_missing_field(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["temperature"]
    (folder / "config.json").write_text(json.dumps(config))


def _damage_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _damage_everything(folder: Path) -> None:
    shutil.rmtree(folder)


def _edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_damage_everything, "no such folder"),
        (_damage_no_config, "holds no config.json"),
        (_damage_config, "cannot be read"),
        (_damage_other_model, "llama"),
        (_damage_other_kind, "forest"),
        (_damage_missing_field, "temperature"),
        (_damage_missing_weights, "no model.safetensors"),
        (_damage_cut_weights, "damaged"),
    ],
)
def test_a_folder_that_is_not_whole_is_one_line_with_its_name(
    trained: dict[str, tuple[TrainedSpecialist, Path]], tmp_path: Path, damage: object, words: str
) -> None:
    folder = shutil.copytree(trained["linear_probe"][1], tmp_path / "specialist")
    damage(folder)  # type: ignore[operator]
    with pytest.raises(ModelError, match=words) as caught:
        load_specialist(folder)
    assert "specialist" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_with_other_tensors_is_refused(
    trained: dict[str, tuple[TrainedSpecialist, Path]], tmp_path: Path
) -> None:
    folder = shutil.copytree(trained["small_cnn"][1], tmp_path / "net")
    shutil.copy(trained["knn"][1] / "model.safetensors", folder)
    with pytest.raises(ModelError, match="do not fit"):
        load_specialist(folder)
