"""The command that trains the embedded generalist, end to end on a tiny recipe; bad recipes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from gsco.bootstrapping.checks import Known, judge
from gsco.bootstrapping.vocabulary import vocabulary_of
from gsco.cases.reports import parse_report
from gsco.cli.app import app
from gsco.errors import DatasetError, ModelError, RunError, UserError
from gsco.generalist import load_generalist
from gsco.generalist.nano.assemble import weights_folder
from gsco.generalist.nano.averaging import average_adapters
from gsco.generalist.records import Record, write_records
from gsco.teaching.recipe import Source, TrainRecipe, given_records, read_recipe, recipe_file, train_by_recipe

TINY = """
sources:
  - {phantoms: 60}
  - {phantoms: 60, task: vqa}
  - {phantoms: 60, task: report}
  - {records: boot.jsonl}
specialists: [knn]
eye: {images: 12, settings: {epochs: 1, batch_size: 4}}
stages:
  - name: first
    projector: taught
    records: 8
    evidence: out_of_fold
    settings: {views: 1, batch_size: 4}
  - name: second
    records: 4
    seed: 1
    mixture: {given: 0.5, report: 0.5}
    settings: {views: 1, batch_size: 4}
  - name: beside
    after: first
    records: 4
    seed: 3
    settings: {views: 1, batch_size: 4}
average: [second, beside]
"""


@pytest.mark.parametrize(
    ("name", "labels"),
    [("busi", ["normal", "benign", "malignant"]), ("cxr_nih", ["pneumonia", "no finding"])],
)
def test_reports_that_come_with_the_recipe_pass_the_filter_for_one_label(
    tmp_path: Path, name: str, labels: list[str]
) -> None:
    (source,) = (s for s in read_recipe(recipe_file("nano")).sources if s.records and s.path == name)
    records = given_records(source, root=tmp_path)
    assert len(records) > 500 and len({record.image for record in records}) == len(records)
    words = vocabulary_of(labels)
    for record in records:
        assert record.image and record.image.path.parent == tmp_path / name / "images"
        report = parse_report(record.answer)
        fitting = [label for label in labels if not judge(report, Known((label,)), words)]
        assert len(fitting) == 1, record.answer


def test_records_below_the_data_root_come_before_those_of_the_package(tmp_path: Path) -> None:
    own = Record("1", "report", "mine", None, "What?", "That.")
    write_records([own], tmp_path).rename(tmp_path / "mine.jsonl")
    assert given_records(Source(records="mine.jsonl"), root=tmp_path) == [own]
    with pytest.raises(DatasetError, match=r"nowhere\.jsonl"):
        given_records(Source(records="nowhere.jsonl"), root=tmp_path)


@pytest.mark.nano
def test_the_command_makes_a_generalist(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(TINY)
    out = tmp_path / "adapter"
    told = Record("1", "report", "made", None, "What follows from fever?", "Impression: normal.")
    write_records([told], tmp_path).rename(tmp_path / "boot.jsonl")
    arguments = ["generalist", "train", str(recipe), "--root", str(tmp_path), "--out", str(out)]
    arguments += ["--threads", "1"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    facts = json.loads((out / "training.json").read_text())
    assert [stage["stage"] for stage in facts["stages"]] == ["first", "second", "beside"]
    assert facts["stages"][0]["projector_sha256"] and facts["stages"][1]["init_sha256"]
    assert facts["stages"][2]["init_sha256"] == facts["stages"][1]["init_sha256"]
    second, beside, mean = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (out / "stages" / "2-second", out / "stages" / "3-beside", out)
    )
    assert mean.keys() == second.keys()
    for name, matrix in mean.items():
        both = (second[name].float() + beside[name].float()) / 2
        torch.testing.assert_close(matrix, both.to(matrix.dtype))
    counted = facts["stages"][1]["records_by_kind_and_source"]
    assert set(counted) == {"given:made", "report:phantom_cxr"} and sum(counted.values()) == 4
    assert len(facts["eye"]["history"]) == 1
    assert len({stage["eye_sha256"] for stage in facts["stages"]}) == 1
    assert any("vision_tower" in name for name in mean)
    before = (out / "adapter_model.safetensors").read_bytes()
    again = CliRunner().invoke(app, arguments, catch_exceptions=False)  # nothing is left to do
    assert again.exit_code == 0
    assert (out / "adapter_model.safetensors").read_bytes() == before
    assert load_generalist(str(out)).fingerprint != load_generalist("nano").fingerprint
    recipe.write_text(TINY.replace("seed: 1", "seed: 2"))
    with pytest.raises(RunError, match="holds stages of another recipe"):
        train_by_recipe(read_recipe(recipe), out, root=tmp_path, cache=tmp_path / "cache")


def test_the_recipe_file_is_the_one_of_the_shipped_weights() -> None:
    facts = json.loads((weights_folder() / "training.json").read_text())
    recipe = read_recipe(recipe_file("nano"))
    assert recipe == TrainRecipe.model_validate(facts["recipe"])
    assert [stage["stage"] for stage in facts["stages"]] == [stage.name for stage in recipe.stages]
    assert [stage["records"] for stage in facts["stages"]] == [stage.records for stage in recipe.stages]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sources: []\nstages: [{name: x, records: 0}]\n", "stages.0.records"),
        ("sources: []\nstages: [{name: x, records: 1}]\nspeed: fast\n", "speed"),
        ("sources: [", "is not YAML"),
        ("sources: []\nstages: []\n", "stages"),
        ("sources: []\nstages: [{name: x, records: 1, after: y}]\n", ": no stage 'y' before 'x'"),
        (
            "sources: []\nstages: [{name: x, records: 1}, {name: x, records: 1}]\n",
            "two stages are called 'x'",
        ),
        ("sources: []\nstages: [{name: x, records: 1}]\naverage: [y]\n", "no stage 'y' to average"),
        ("sources: []\nstages: [{name: x, records: 1, projector: taught}]\n", "and no eye is taught"),
        ("sources: []\nstages: [{name: x, records: 1, mixture: {heer: 1}}]\n", "no kind of record 'heer'"),
        ("sources: []\nstages: [{name: x, records: 1, arms: {generalist: 1}}]\n", "no arm with evidence"),
        ("sources: []\nstages: [{name: x, records: 1, settings: {epoch: 2}}]\n", "no setting 'epoch'"),
    ],
)
def test_a_bad_recipe_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_recipe(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_adapters_of_two_trainings_are_not_averaged(tmp_path: Path) -> None:
    for name, width in (("a", 2), ("b", 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text("{}")
        save_file({"lora": torch.zeros(2, width)}, tmp_path / name / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"b: holds other matrices than .*a"):
        average_adapters([tmp_path / "a", tmp_path / "b"], tmp_path / "mean")


def test_a_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such recipe"):
        read_recipe(tmp_path / "none.yaml")
