"""`specialist evaluate` and `specialist compare` on phantoms, by command and by Python."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import yaml

from gsco.cases import Dataset, load_dataset
from gsco.cli import main
from gsco.collaboration import Temperature
from gsco.errors import ModelError
from gsco.evaluation import metrics as m
from gsco.evaluation.comparison import compare_specialists, evaluate_specialist
from gsco.evaluation.comparison.answers import ask, load_contestants
from gsco.evaluation.comparison.compare import Comparison
from gsco.evaluation.report.comparison import render_comparison
from gsco.specialists import load_specialist, train_specialist
from gsco.specialists.conformal import ConformalSets


@pytest.fixture(scope="module")
def specialists(finished_run: Path) -> Path:
    return finished_run / "specialists"


@pytest.fixture(scope="module")
def phantoms(phantom_folder: Path) -> Dataset:
    return load_dataset(phantom_folder)


@pytest.fixture(scope="module")
def compared(phantom_folder: Path, finished_run: Path, feature_cache: Path) -> Comparison:
    return compare_specialists(phantom_folder, run=finished_run, cache=feature_cache, n_resamples=200)


def relabelled(source: Path, out: Path, change: Callable[[dict[str, str]], dict[str, str] | None]) -> Path:
    """A copy of a dataset folder with other rows in its table."""
    shutil.copytree(source, out)
    with (source / "labels.csv").open(newline="") as file:
        rows = [row for row in map(change, csv.DictReader(file)) if row]
    with (out / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    (out / "dataset.yaml").unlink()
    return out


def test_evaluate_gives_the_figures_of_the_run(
    specialists: Path, phantom_folder: Path, finished_run: Path, feature_cache: Path
) -> None:
    found = evaluate_specialist(
        specialists / "linear_probe", phantom_folder, cache=feature_cache, n_resamples=200, seed=5
    )
    arm = json.loads((finished_run / "metrics.json").read_text())["arms"]["specialist:linear_probe"]
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auc", "ece", "brier", "nll"):
        assert found.figures[name]["value"] == pytest.approx(arm[name]["value"], abs=1e-5), name
        assert set(found.figures[name]) == {"value", "low", "high"}
    for key, figures in arm["per_class"].items():
        mine = found.figures[f"recall:{key}"]
        assert mine["value"] == pytest.approx(figures["recall"])
        assert mine["low"] <= mine["value"] <= mine["high"]
    assert found.about["n"] == arm["n"]
    assert found.notes == ()


def test_on_validation_it_says_that_it_flatters(
    specialists: Path, phantom_folder: Path, feature_cache: Path
) -> None:
    found = evaluate_specialist(
        specialists / "knn", phantom_folder, split="val", cache=feature_cache, n_resamples=100
    )
    assert any("flatter" in note for note in found.notes)


def test_an_external_set_is_mapped_by_name(
    specialists: Path, phantom_folder: Path, phantoms: Dataset, feature_cache: Path, tmp_path: Path
) -> None:
    first, second, *rest = phantoms.task.keys

    def change(row: dict[str, str]) -> dict[str, str]:
        return {
            **row,
            "label": {first: first.upper(), second: "something else"}.get(row["label"], "unheard of"),
        }

    other = relabelled(phantom_folder, tmp_path / "other", change)
    found = evaluate_specialist(
        specialists / "linear_probe",
        other,
        external=True,
        mapping=[f"something else={second}"],
        cache=feature_cache,
        n_resamples=100,
    )
    cases = [case for case in phantoms.split("test") if case.label in (first, second)]
    whole = load_specialist(specialists / "linear_probe", cache=feature_cache)
    p = whole.predict([case.image for case in cases])[:, :2]
    p = p / p.sum(axis=1, keepdims=True)
    truth = [int(case.label == second) for case in cases]
    assert found.figures["macro_f1"]["value"] == pytest.approx(
        m.macro_f1(truth, p.argmax(axis=1), 2), abs=1e-5
    )
    assert found.figures["brier"]["value"] == pytest.approx(m.brier(truth, p), abs=1e-5)
    mapping = found.about["mapping"]
    assert mapping["mapped"] == {first.upper(): first, "something else": second}
    assert mapping["dropped_labels"] == (["unheard of"] if rest else [])
    assert mapping["dropped_options"] == rest
    assert mapping["n_kept"] == found.about["n"] == len(cases)
    assert mapping["n_kept"] + mapping["n_dropped"] == len(phantoms.split("test"))


def test_a_specialist_keeps_what_its_coded_labels_are_called(
    phantom_folder: Path, phantoms: Dataset, feature_cache: Path, tmp_path: Path
) -> None:
    code = {option.key: f"{number}" for number, option in enumerate(phantoms.task.options)}
    coded = relabelled(phantom_folder, tmp_path / "coded", lambda row: {**row, "label": code[row["label"]]})
    names = {code[option.key]: f"The {option.key}" for option in phantoms.task.options}
    (coded / "dataset.yaml").write_text(yaml.safe_dump({"options": names}))
    trained = train_specialist("linear_probe", load_dataset(coded), cache=feature_cache)
    trained.save_pretrained(tmp_path / "own")
    again = load_specialist(tmp_path / "own", cache=feature_cache)
    assert again.names == trained.names == names
    first = phantoms.task.keys[0]
    assert f"`{code[first]}` (The {first})" in (tmp_path / "own" / "README.md").read_text()

    other = relabelled(
        phantom_folder, tmp_path / "other", lambda row: {**row, "label": f"the-{row['label'].upper()}"}
    )
    found = evaluate_specialist(tmp_path / "own", other, external=True, cache=feature_cache, n_resamples=100)
    assert found.about["mapping"]["mapped"] == {f"the-{key.upper()}": code[key] for key in phantoms.task.keys}
    moved = dict(zip(names, [*list(names.values())[1:], names["0"]], strict=True))
    (coded / "dataset.yaml").write_text(yaml.safe_dump({"options": moved}))
    with pytest.raises(ModelError, match=f"'0' is The {first} to the specialist"):
        evaluate_specialist(tmp_path / "own", coded, cache=feature_cache, n_resamples=100)


def test_the_result_is_as_the_issue_has_it(compared: Comparison, phantoms: Dataset) -> None:
    result = json.loads(json.dumps(compared.to_json(), allow_nan=False))
    assert list(result["specialists"]) == ["knn", "linear_probe"]
    wanted = {"macro_f1", "accuracy", "auc", "ece", "brier", *(f"recall:{k}" for k in phantoms.task.keys)}
    for figures in result["specialists"].values():
        assert wanted <= set(figures)
        assert all(set(figure) == {"value", "low", "high"} for figure in figures.values())
    team = dict(result["team"])
    assert set(team.pop("members")) <= set(result["specialists"])
    assert all(set(figure) == {"value", "low", "high"} for figure in team.values())
    assert result["choice"]["reason"]
    assert set(result["timing"]) == set(result["specialists"])
    assert "ms_single" not in json.dumps(compared.result)
    assert result["about"]["linear_probe"]["backbone_parameters"] > 3_000_000
    assert result["about"]["linear_probe"]["parameters"] > 1280


def test_the_team_is_the_calibrated_mean_of_its_members(
    compared: Comparison, specialists: Path, phantoms: Dataset, feature_cache: Path
) -> None:
    members = compared.result["team"]["members"]
    cases = [case for case in phantoms.split("test") if case.label is not None]
    said = [
        load_specialist(specialists / name, cache=feature_cache).predict([case.image for case in cases])
        for name in members
    ]
    mean = np.mean(said, axis=0)
    assert np.array_equal(compared.answers["team"].prediction, mean.argmax(axis=1))
    truth = phantoms.targets(cases)
    assert compared.result["team"]["macro_f1"]["value"] == pytest.approx(
        m.macro_f1(truth, mean.argmax(axis=1), mean.shape[1]), abs=1e-5
    )


def test_the_teams_label_sets_are_fitted_on_validation_and_judged_on_test(
    compared: Comparison, specialists: Path, phantoms: Dataset, feature_cache: Path
) -> None:
    names = compared.result["team"]["members"]
    members = [load_specialist(specialists / name, cache=feature_cache) for name in names]
    temperature = compared.result["choice"]["temperature"]

    def answered(split: Literal["val", "test"]) -> tuple[Any, Any]:
        cases = [case for case in phantoms.split(split) if case.label is not None]
        mean = np.mean([each.predict([case.image for case in cases]) for each in members], axis=0)
        return Temperature(temperature, 0).apply(mean), np.asarray(phantoms.targets(cases))

    made, (p, truth) = ConformalSets.fit(*answered("val")), answered("test")
    inside = made.sets(p)
    found = compared.result["sets"]["team"]
    assert found["stated"] == pytest.approx(made.coverage, abs=1e-5)
    assert found["coverage"] == pytest.approx(inside[np.arange(len(p)), truth].mean(), abs=1e-5)
    assert found["mean_size"] == pytest.approx(inside.sum(axis=1).mean(), abs=1e-5)
    assert set(compared.result["sets"]) == {*compared.result["specialists"], "team"}


def test_agreement_and_common_errors(compared: Comparison) -> None:
    found = compared.result["agreement"]
    a, b = (compared.answers[name] for name in found["names"])
    assert found["same_answer"][0][0] == 1
    assert found["same_answer"][0][1] == pytest.approx(np.mean(a.prediction == b.prediction), abs=1e-5)
    assert found["both_wrong"][0][1] == pytest.approx(np.mean(~a.right & ~b.right), abs=1e-5)
    assert found["both_wrong"][0][0] == pytest.approx(np.mean(~a.right), abs=1e-5)


def test_again_it_asks_nobody_and_gives_the_same(
    compared: Comparison,
    phantom_folder: Path,
    finished_run: Path,
    feature_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr("gsco.specialists.trained.TrainedSpecialist.predict", refuse)
    again = compare_specialists(
        phantom_folder, run=finished_run, cache=feature_cache, n_resamples=200, timed=False
    )
    assert again.result == compared.result
    assert again.timing == {}


def test_a_killed_comparison_goes_on_where_it_was(
    specialists: Path, phantoms: Dataset, tmp_path: Path, feature_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gsco.evaluation.comparison.answers.BLOCK", 4)
    images = [case.image for case in phantoms.cases[:10]]
    shutil.copytree(feature_cache, tmp_path / "whole")
    (who,) = load_contestants([specialists / "knn"], cache=tmp_path / "whole")
    whole = ask(who, images, cache=tmp_path / "whole")
    asked: list[int] = []
    answer = type(who.specialist).predict

    def dying(self: Any, some: Any) -> Any:
        asked.append(len(some))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return answer(self, some)

    monkeypatch.setattr(type(who.specialist), "predict", dying)
    with pytest.raises(KeyboardInterrupt):
        ask(who, images, cache=tmp_path / "part")
    resumed = ask(who, images, cache=tmp_path / "part")
    assert asked == [4, 4, 4, 2]
    assert resumed.tobytes() == whole.tobytes()


def test_other_weights_are_asked_anew(
    specialists: Path, phantoms: Dataset, feature_cache: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "linear_probe"
    shutil.copytree(specialists / "linear_probe", changed)
    config = json.loads((changed / "config.json").read_text())
    config["temperature"] *= 3
    (changed / "config.json").write_text(json.dumps(config))
    one, other = load_contestants([specialists / "linear_probe", changed], cache=feature_cache)
    assert one.fingerprint != other.fingerprint
    images = [case.image for case in phantoms.split("test")]
    a, b = (ask(who, images, cache=feature_cache) for who in (one, other))
    assert not np.allclose(a, b)
    assert one.name == f"linear_probe ({Path('specialists/linear_probe')})"
    assert other.name == f"linear_probe ({tmp_path.name}/linear_probe)"


def test_a_folder_named_twice_counts_once(specialists: Path, feature_cache: Path) -> None:
    twice = [specialists / "knn", specialists / ".." / "specialists" / "knn"]
    assert [who.name for who in load_contestants(twice, cache=feature_cache)] == ["knn"]


def test_without_validation_there_is_no_team(
    phantom_folder: Path, specialists: Path, feature_cache: Path, tmp_path: Path
) -> None:
    other = relabelled(
        phantom_folder, tmp_path / "no-val", lambda row: None if row["split"] == "val" else row
    )
    found = compare_specialists(
        other, [specialists / "knn"], cache=feature_cache, n_resamples=100, timed=False
    )
    assert found.result["team"] is None
    assert found.result["best_specialist"] is None
    assert any("no team is chosen" in note for note in found.result["notes"])
    assert "No team is recommended" in render_comparison(found)


def test_the_page_says_it_all(compared: Comparison) -> None:
    page = render_comparison(compared)
    for expected in (
        "Which of them together?",
        "Research use only. Not a medical device.",
        "Synthetic images.",
        "linear_probe",
        "Both wrong",
        "Precision at 10",
        compared.result["choice"]["reason"].split(":")[0],
        "200 resamples",
    ):
        assert expected in page, expected
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert page == render_comparison(compared)


def test_names_from_files_are_escaped(compared: Comparison) -> None:
    result = json.loads(json.dumps(compared.result).replace("linear_probe", "<b>x</b>"))
    answers = {name.replace("linear_probe", "<b>x</b>"): a for name, a in compared.answers.items()}
    page = render_comparison(Comparison(result, {}, answers, {}))
    assert "<b>x</b>" not in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return int(left.value.code or 0), shown.out, shown.err


@pytest.fixture
def cached(feature_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("compare", "evaluate"):
        monkeypatch.setattr(f"gsco.evaluation.comparison.{module}.cache_home", lambda _: feature_cache)


@pytest.mark.usefixtures("cached")
def test_the_commands(
    phantom_folder: Path,
    finished_run: Path,
    compared: Comparison,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = tmp_path / "new" / "page.html"
    settings = ("--resamples", "200", "--no-timing")
    code, out, _ = call(
        capsys,
        *("specialist", "compare", "--data", phantom_folder, "--run", finished_run),
        *(*settings, "--out", page, "--json"),
    )
    assert code == 0
    assert json.loads(out) == {**compared.result, "timing": {}}
    assert page.is_file()
    code, out, _ = call(
        capsys,
        *("specialist", "compare", "--data", phantom_folder, finished_run / "specialists" / "knn", *settings),
    )
    assert code == 0
    assert "team (● members)" in out
    assert "not a medical device" in out
    code, out, _ = call(
        capsys,
        *("specialist", "evaluate", finished_run / "specialists" / "knn"),
        *("--data", phantom_folder, "--resamples", "200"),
    )
    assert code == 0
    assert "balanced accuracy" in out


@pytest.mark.usefixtures("cached")
def test_bad_input_is_one_line(
    phantom_folder: Path,
    finished_run: Path,
    specialists: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = relabelled(phantom_folder, tmp_path / "other", lambda row: {**row, "label": f"x{row['label']}"})
    knn = specialists / "knn"
    for arguments, told in (
        (("compare", "--data", phantom_folder), "no specialists are named"),
        (("compare", "--data", phantom_folder, tmp_path), "holds no config.json"),
        (("compare", "--data", phantom_folder, finished_run / "index"), "is not a specialist"),
        (("compare", "--data", phantom_folder, "--run", tmp_path), "holds no specialists"),
        (("compare", "--data", other, knn), "chooses among"),
        (("evaluate", knn, "--data", other), "--external"),
        (("evaluate", knn, "--data", other, "--external"), "two are needed"),
        (("evaluate", knn, "--data", phantom_folder, "--map", "a=b"), "--map is given without --external"),
        (("evaluate", tmp_path / "none", "--data", phantom_folder), "there is no such folder"),
    ):
        code, out, err = call(capsys, "specialist", *arguments)
        assert (code, out) == (2, ""), arguments
        assert "Traceback" not in err
        last = err.splitlines()[-1]
        assert last.startswith("gsco: "), err
        assert told in last, last


def test_a_specialist_of_other_options_is_named(
    specialists: Path, phantom_folder: Path, feature_cache: Path, tmp_path: Path
) -> None:
    other = relabelled(phantom_folder, tmp_path / "o", lambda row: {**row, "label": f"x{row['label']}"})
    with pytest.raises(ModelError, match=r"specialist 'knn' chooses among .* but o has "):
        compare_specialists(other, [specialists / "knn"], cache=feature_cache)
