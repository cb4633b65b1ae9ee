"""What a run refuses, and that it says so in one line before anything is lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from small_runs import lines_of, small_dataset

import gsco
from gsco.errors import DatasetError, ModelError, NoLabelsError, RunError, UserError
from gsco.evaluation.config import RunConfig
from gsco.evaluation.run import rerender
from gsco.evaluation.runfolder import RunFolder
from gsco.generalist.scripted import ScriptedGeneralist


class TestRefusals:
    def test_a_folder_that_holds_a_run(self, finished_run: Path, phantom_folder: Path) -> None:
        with pytest.raises(RunError, match=r"holds a run already.*--resume"):
            gsco.run(RunConfig(data=phantom_folder), finished_run)

    def test_resuming_what_is_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="not a run folder"):
            gsco.resume(tmp_path)

    def test_resuming_under_another_config(self, finished_run: Path) -> None:
        with pytest.raises(RunError, match=r"other settings \(seed is 5, not 6\)"):
            gsco.resume(finished_run, changes={"seed": 6})

    def test_resuming_on_changed_data(
        self, finished_run: Path, phantom_folder: Path, feature_cache: Path, tmp_path: Path
    ) -> None:
        data, copy = tmp_path / "data", tmp_path / "copy"
        shutil.copytree(phantom_folder, data)
        shutil.copytree(finished_run, copy)
        config = RunConfig.from_yaml(copy / "config.yaml").with_changes({"data": data})
        (copy / "config.yaml").write_text(config.to_yaml())
        gsco.resume(copy, cache=feature_cache)  # the same data elsewhere are the same data
        table = (data / "labels.csv").read_text().splitlines()
        (data / "labels.csv").write_text("\n".join(table[:-1]) + "\n")
        with pytest.raises(RunError, match="the data changed since this run was started"):
            gsco.resume(copy, cache=feature_cache)

    def test_resuming_with_another_generalist(
        self, finished_run: Path, feature_cache: Path, tmp_path: Path
    ) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(finished_run, copy)
        other = ScriptedGeneralist("first")
        with pytest.raises(RunError, match="was started with another scripted:percent"):
            gsco.resume(copy, generalist=other, cache=feature_cache)

    def test_names_nobody_knows_before_anything_is_made(
        self, phantom_folder: Path, tmp_path: Path, quick: dict[str, Any]
    ) -> None:
        for changes in (
            {"template": "poem"},
            {"generalist": "scripted:oracle"},
            {"specialists": ("astrology",)},
        ):
            with pytest.raises(UserError, match="Choose one of"):
                gsco.run(RunConfig(data=phantom_folder, **{**quick, **changes}), tmp_path / "run")
            assert not (tmp_path / "run" / "specialists").exists()

    def test_a_folder_of_something_else(self, phantom_folder: Path, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("mine")
        with pytest.raises(RunError, match="is not empty"):
            gsco.run(RunConfig(data=phantom_folder), tmp_path)

    def test_a_rerender_of_an_unfinished_run(self, finished_run: Path, tmp_path: Path) -> None:
        shutil.copy(finished_run / "config.yaml", tmp_path)
        with pytest.raises(RunError, match="is not finished"):
            rerender(tmp_path)

    def test_a_task_it_does_not_answer(self, tmp_path: Path, quick: dict[str, Any]) -> None:
        folder = small_dataset(tmp_path / "data", labels=("a|b", "b"))
        with pytest.raises(DatasetError, match="multi-label"):
            gsco.run(RunConfig(data=folder, **quick), tmp_path / "run")

    def test_a_missing_split(self, tmp_path: Path, quick: dict[str, Any]) -> None:
        folder = small_dataset(tmp_path / "data", splits=("train", "test"))
        with pytest.raises(NoLabelsError, match="no labelled case in split 'val'"):
            gsco.run(RunConfig(data=folder, **quick), tmp_path / "run")

    @pytest.mark.parametrize(
        ("labels", "n", "words"),
        [
            (("a",), 24, "fewer than two options"),
            (("a", "b"), 8, "3 training cases are too few"),
        ],
    )
    def test_nothing_to_learn_is_told_before_anything_is_made(
        self, labels: tuple[str, ...], n: int, words: str, tmp_path: Path, quick: dict[str, Any]
    ) -> None:
        folder, out = small_dataset(tmp_path / "data", labels=labels, n=n), tmp_path / "run"
        table = folder / "labels.csv"
        if n == 8:  # one training case of b
            table.write_text(table.read_text().replace("07.png,b,train", "07.png,b,test"))
        with pytest.raises(DatasetError, match=words):
            gsco.run(RunConfig(data=folder, **quick), out)
        assert not {"index", "specialists", "dataset.json"} & {path.name for path in out.iterdir()}

    def test_a_model_folder_of_nothing(
        self, phantom_folder: Path, tmp_path: Path, quick: dict[str, Any]
    ) -> None:
        config = RunConfig(data=phantom_folder, **{**quick, "generalist": str(tmp_path / "nothing")})
        with pytest.raises(ModelError, match="nothing"):
            gsco.run(config, tmp_path / "run")


def test_an_answer_to_a_strange_case_is_refused(
    finished_run: Path, feature_cache: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    line = {**lines_of(copy)[0], "case_id": "images/strange.png"}
    RunFolder(copy).append([line])
    with pytest.raises(RunError, match=r"not to be answered: images/strange\.png"):
        gsco.resume(copy, cache=feature_cache)


def test_a_page_is_not_made_anew_from_half_a_log(finished_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    before = (copy / "metrics.json").read_bytes()
    lines = (copy / "cases.jsonl").read_text().splitlines(keepends=True)
    (copy / "cases.jsonl").write_text("".join(lines[:5]))
    with pytest.raises(RunError, match=r"has answered \d+ of \d+ cases.*--resume"):
        rerender(copy)
    assert (copy / "metrics.json").read_bytes() == before
    shutil.copy(finished_run / "cases.jsonl", copy / "cases.jsonl")
    (copy / "dataset.json").write_text("{}")
    with pytest.raises(RunError, match=r"dataset\.json: is missing, or not whole"):
        rerender(copy)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"specialists": ("small_cnn:resnet18",)}, "recipe small_cnn takes no backbone"),
        ({"specialists": ("linear_probe:nonexistent",)}, "no backbone 'nonexistent'"),
        ({"specialists": ("linear_probe:",)}, "no backbone ''"),
        ({"backbone": "nonexistent"}, "no backbone 'nonexistent'"),
    ],
)
def test_a_wrong_recipe_is_told_before_a_folder_is_made(
    changes: dict[str, Any], said: str, phantom_folder: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match=said):
        gsco.run(RunConfig.parse({"data": phantom_folder, **quick, **changes}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_options_than_letters_are_told_before_training(
    tmp_path: Path, feature_cache: Path, quick: dict[str, Any]
) -> None:
    folder = small_dataset(tmp_path / "data", labels=tuple(f"kind {i}" for i in range(27)), n=27 * 4)
    config = RunConfig.parse({"data": folder, **quick, "template": "letters"})
    with pytest.raises(UserError, match="27 options are more than there are letters"):
        gsco.run(config, tmp_path / "run", cache=feature_cache)
    assert not (tmp_path / "run" / "specialists").exists()


def test_a_class_that_a_split_lacks_is_said_of_the_figures(
    feature_cache: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    folder = small_dataset(tmp_path / "data")
    table = folder / "labels.csv"
    rows = [row for row in table.read_text().splitlines() if not row.endswith(",b,val")]
    table.write_text("\n".join(rows) + "\n")
    config = RunConfig(data=folder, **{**quick, "specialists": ("knn",)})
    result = gsco.run(config, tmp_path / "run", cache=feature_cache)
    assert "No validation case of b: not calibrated." in result.notes
    assert rerender(tmp_path / "run").notes == result.notes
