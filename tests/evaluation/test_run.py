from __future__ import annotations

import json
import shutil
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import lines_of, small_dataset

import gsco
from gsco.cases import load_dataset
from gsco.collaboration import GENERALIST_ARMS, STANDARD_ARMS, get_template
from gsco.errors import ModelError
from gsco.evaluation.config import RunConfig
from gsco.evaluation.data import json_value
from gsco.evaluation.logline import evidence_dict, read_evidence
from gsco.evaluation.run import rerender
from gsco.generalist import OptionScores, Request

ARMS = {
    *STANDARD_ARMS,
    "specialist:linear_probe",
    "specialist:knn",
    "best_specialist",
    "majority_vote",
    "mean_probability",
    "neighbour_vote",
    "gsco_calibrated",
}


def test_a_run_leaves_what_the_docs_say(finished_run: Path) -> None:
    held = {path.name for path in finished_run.iterdir()}
    assert held >= {
        "calibration.json",
        "calibration.jsonl",
        "cases.jsonl",
        "config.yaml",
        "dataset.json",
        "environment.json",
        "generalist.json",
        "index",
        "leakage.json",
        "metrics.json",
        "pool.json",
        "predictions",
        "report.html",
        "specialists",
        "specialists.json",
        "timing.json",
    }
    assert not [name for name in held if name.endswith(".tmp")]


def test_every_case_is_answered_once_in_every_arm(finished_run: Path) -> None:
    lines = lines_of(finished_run)
    record = json.loads((finished_run / "dataset.json").read_text())
    assert record["answered"] == record["cases"]["test"]
    counts = Counter((line["case_id"], line["arm"]) for line in lines)
    assert set(counts.values()) == {1}
    assert len(counts) == record["answered"] * len(ARMS)
    assert {arm for _, arm in counts} == ARMS
    # all arms of a case together, then the arm that is computed from them
    asked = [line["case_id"] for line in lines if line["arm"] != "gsco_calibrated"]
    assert asked == sorted(asked, key=asked.index)
    assert {line["arm"] for line in lines[len(asked) :]} == {"gsco_calibrated"}
    assert [line["case_id"] for line in lines[len(asked) :]] == list(dict.fromkeys(asked))


def test_a_line_holds_prompt_evidence_and_no_patient(finished_run: Path, phantom_folder: Path) -> None:
    task = gsco.load_dataset(phantom_folder).task
    for line in lines_of(finished_run):
        assert set(line) == {
            *("schema", "case_id", "cluster", "arm", "kind", "split", "reference", "prediction"),
            *("probabilities", "uncalibrated", "prompt", "raw", "template", "evidence", "image"),
            *(("label_set", "abstains") if line["kind"] == "pool" else ()),
        }
        assert line["prediction"] in task.keys
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-6)
        assert list(line["probabilities"]) == list(task.keys)
        assert "phantom-0" not in json.dumps({k: v for k, v in line.items() if k not in ("case_id", "image")})
        if line["kind"] == "generalist":
            assert line["template"] == "evidence"
            assert len(line["evidence"]["opinions"]) == 2
            assert len(line["evidence"]["neighbours"]) == 3
            heard = "Specialists" in line["prompt"], "similar" in line["prompt"]
            assert heard == (line["arm"] in ("moed", "gsco"), line["arm"] in ("rad", "gsco"))
        else:
            assert line["prompt"] is None
            assert line["evidence"] is None


def test_the_prompt_in_the_log_is_the_templates(finished_run: Path, phantom_folder: Path) -> None:
    task = gsco.load_dataset(phantom_folder).task
    line = next(line for line in lines_of(finished_run) if line["arm"] == "gsco")
    evidence = read_evidence(line["evidence"])
    assert evidence_dict(evidence) == line["evidence"]
    assert line["prompt"] == get_template("evidence").render(task, evidence).text


def test_neighbours_are_training_cases(finished_run: Path, phantom_folder: Path) -> None:
    train = {case.id: case for case in gsco.load_dataset(phantom_folder).split("train")}
    for line in lines_of(finished_run):
        for neighbour in (line["evidence"] or {"neighbours": []})["neighbours"]:
            assert tuple(neighbour["labels"]) == train[neighbour["case_id"]].labels


def test_the_neighbours_reliability_is_that_of_their_vote_on_validation(
    finished_run: Path, phantom_folder: Path, feature_cache: Path
) -> None:
    from collections import Counter

    from sklearn.metrics import balanced_accuracy_score

    from gsco.retrieval import CaseIndex
    from gsco.specialists.backbones import load_backbone
    from gsco.specialists.features import extract

    judged = gsco.load_dataset(phantom_folder).split("val")
    features = extract(load_backbone(), [case.image for case in judged], cache=feature_cache)
    votes = [
        Counter(label for n in near for label in n.labels).most_common()
        for near in CaseIndex.from_pretrained(finished_run / "index").search(features, 3)
    ]
    # A tie goes to the nearest, which a Counter keeps first.
    expected = balanced_accuracy_score([case.label for case in judged], [vote[0][0] for vote in votes])
    stated = json.loads((finished_run / "specialists.json").read_text())["neighbours"]["reliability"]
    assert stated == pytest.approx(expected, abs=1e-6)


def test_the_best_specialist_is_the_best_on_validation(finished_run: Path) -> None:
    chosen = json.loads((finished_run / "specialists.json").read_text())
    figures = {row["name"]: row["validation"] for row in chosen["specialists"]}
    assert figures[chosen["best"]]["macro_f1"] == max(row["macro_f1"] for row in figures.values())
    lines = lines_of(finished_run)
    by_arm = {
        arm: [(line["case_id"], line["prediction"]) for line in lines if line["arm"] == arm]
        for arm in ("best_specialist", f"specialist:{chosen['best']}")
    }
    assert by_arm["best_specialist"] == by_arm[f"specialist:{chosen['best']}"]


def test_config_and_environment_suffice_to_repeat_it(finished_run: Path) -> None:
    config = RunConfig.from_yaml(finished_run / "config.yaml")
    assert config.specialists == ("linear_probe", "knn")
    assert config.threads == 1
    assert yaml.safe_load((finished_run / "config.yaml").read_text())["schema"] == 1
    environment = json.loads((finished_run / "environment.json").read_text())
    assert environment["packages"]["gsco"] == gsco.__version__
    assert environment["threads"] == 1


def test_clock_times_stand_in_timing_alone(finished_run: Path) -> None:
    timing = json.loads((finished_run / "timing.json").read_text())
    stages = [item["stage"] for item in timing["sessions"][0]["stages"]]
    assert "answering" in stages
    assert stages[-1] == "page"
    year = timing["sessions"][0]["started"][:4]
    assert f"{year}-" not in (finished_run / "metrics.json").read_text()
    assert f"{year}-" not in (finished_run / "cases.jsonl").read_text()


def test_the_same_seed_gives_the_same_bytes(
    finished_run: Path, phantom_folder: Path, feature_cache: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    gsco.run(RunConfig(data=phantom_folder, **quick), tmp_path / "again", cache=feature_cache)
    for name in (
        "metrics.json",
        "cases.jsonl",
        "config.yaml",
        "specialists.json",
        "leakage.json",
        "dataset.json",
    ):
        assert (tmp_path / "again" / name).read_bytes() == (finished_run / name).read_bytes(), name


def test_without_a_cache_the_numbers_are_the_same(
    finished_run: Path, phantom_folder: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    gsco.run(RunConfig(data=phantom_folder, **quick), tmp_path / "cold", cache=tmp_path / "cache")
    assert (tmp_path / "cold" / "metrics.json").read_bytes() == (finished_run / "metrics.json").read_bytes()


def test_resuming_a_finished_run_changes_nothing(
    finished_run: Path, feature_cache: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    result = gsco.resume(copy, cache=feature_cache)
    for name in ("metrics.json", "cases.jsonl"):
        assert (copy / name).read_bytes() == (finished_run / name).read_bytes()
    assert result.metrics == json.loads((finished_run / "metrics.json").read_text())


def test_figures_and_page_come_from_the_log_alone(finished_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    (copy / "report.html").unlink()
    rerender(copy)
    assert (copy / "metrics.json").read_bytes() == (finished_run / "metrics.json").read_bytes()
    assert (copy / "report.html").is_file()


def test_broken_images_are_named_counted_and_left_out(
    tmp_path: Path, feature_cache: Path, quick: dict[str, Any]
) -> None:
    folder = small_dataset(tmp_path / "data")
    broken = gsco.load_dataset(folder).split("test")[0]
    broken.image.path.write_bytes(broken.image.path.read_bytes()[:100])
    config = RunConfig(data=folder, **quick)
    gsco.run(config, tmp_path / "run", cache=feature_cache)
    record = json.loads((tmp_path / "run" / "dataset.json").read_text())
    assert len(record["skipped"]) == 1
    assert broken.id in record["skipped"][0]
    assert broken.id not in {line["case_id"] for line in lines_of(tmp_path / "run")}


class Witness:
    """A generalist that answers the first choice and remembers how it was asked."""

    name = "witness"
    fingerprint = "1"

    def __init__(self) -> None:
        self.batches: list[list[Request]] = []

    def score_options(self, requests: list[Request]) -> list[OptionScores]:
        self.batches.append(list(requests))
        return [OptionScores(tuple([0.0] + [-50.0] * (len(request.choices) - 1))) for request in requests]

    def generate(self, requests: list[Request], *, max_new_tokens: int = 64) -> list[str]:
        self.batches.append(list(requests))
        return ["I cannot say." for _ in requests]


def test_all_arms_of_an_image_are_neighbouring_requests(
    tmp_path: Path, feature_cache: Path, quick: dict[str, Any]
) -> None:
    folder = small_dataset(tmp_path / "data")
    witness = Witness()
    config = RunConfig(data=folder, **{**quick, "batch_cases": 3})
    gsco.run(config, tmp_path / "run", generalist=witness, cache=feature_cache)
    assert [len(batch) for batch in witness.batches] == [12, 12, 8] * 2  # validation, then test
    for batch in witness.batches:
        images = [str(request.image) for request in batch]
        assert [images[i : i + 4] for i in range(0, len(images), 4)] == [[image] * 4 for image in images[::4]]
    assert RunConfig.from_yaml(tmp_path / "run" / "config.yaml").generalist == "witness"


def test_the_images_of_similar_cases_are_shown_in_an_arm_of_its_own(
    tmp_path: Path, feature_cache: Path, quick: dict[str, Any]
) -> None:
    class Shown(Witness):
        takes_examples = True

    folder, witness = small_dataset(tmp_path / "data"), Shown()
    arms = ("rad", "rad_images")
    config = RunConfig(data=folder, **{**quick, "arms": arms, "examples": 2, "calibration_cases": 0})
    with pytest.raises(ModelError, match="witness: takes one image"):
        gsco.run(config, tmp_path / "refused", generalist=Witness(), cache=feature_cache)
    gsco.run(config, tmp_path / "run", generalist=witness, cache=feature_cache)
    lines = lines_of(tmp_path / "run")
    by_image = {str(r.image): r.examples for batch in witness.batches for r in batch if r.examples}
    train = {case.id: str(case.image) for case in load_dataset(folder).split("train")}
    for line in (line for line in lines if line["arm"] == "rad_images"):
        nearest = [n["case_id"] for n in line["evidence"]["neighbours"][:2]]
        assert [case["case_id"] for case in line["shown"]] == nearest[::-1]
        shown = by_image[line["image"]]
        assert [str(each.image) for each in shown] == [train[case_id] for case_id in nearest[::-1]]
        assert [(each.prompt, each.answer) for each in shown] == [
            (case["prompt"], case["answer"]) for case in line["shown"]
        ]
    assert not any("shown" in line for line in lines if line["arm"] != "rad_images")
    said = gsco.diagnose(
        lines[0]["image"], run=tmp_path / "run", generalist=witness, arm="rad_images", cache=feature_cache
    )
    assert said.prompt == lines[0]["prompt"]
    assert witness.batches[-1][0].examples == by_image[lines[0]["image"]]
    assert "Shown before, each with its image" in (tmp_path / "run" / "report.html").read_text()


def test_unparsed_answers_are_counted_as_wrong_and_kept(
    tmp_path: Path, feature_cache: Path, quick: dict[str, Any]
) -> None:
    folder = small_dataset(tmp_path / "data")
    config = RunConfig(data=folder, **{**quick, "mode": "generate", "arms": ("gsco",)})
    result = gsco.run(config, tmp_path / "run", generalist=Witness(), cache=feature_cache)
    figures = result.metrics["arms"]["gsco"]
    assert figures["unparsed"] == result.metrics["n"]
    assert figures["accuracy"]["value"] == 0
    line = next(line for line in lines_of(tmp_path / "run") if line["arm"] == "gsco")
    assert (line["raw"], line["prediction"]) == ("I cannot say.", None)


def test_controls_alone_need_no_generalist(
    tmp_path: Path, feature_cache: Path, quick: dict[str, Any]
) -> None:
    folder = small_dataset(tmp_path / "data")
    config = RunConfig(data=folder, **{**quick, "arms": (), "generalist": "no/such/model", "limit": 5})
    result = gsco.run(config, tmp_path / "run", cache=feature_cache)
    plain = {arm for arm in ARMS if not arm.endswith("calibrated")}
    assert set(result.metrics["arms"]) == plain - set(GENERALIST_ARMS)
    assert result.metrics["n"] == 5
    assert result.verdict == ""
    assert "Only 5 of 8 cases were answered (--limit)." in result.notes


def test_paths_are_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    config = RunConfig(data=Path("../a/."), generalist="../model")
    assert config.data == tmp_path / "a"
    assert config.generalist == str(tmp_path / "model")
    assert RunConfig(data=Path(), generalist="nano", backbone="resnet18").backbone == "resnet18"


def test_a_card_holds_what_json_can() -> None:
    card = {"when": [date(2024, 1, 1)], "score": float("nan"), "deep": {1: (2.5, None)}, "licence": "MIT"}
    plain = json_value(card)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain == {"when": ["2024-01-01"], "score": "nan", "deep": {"1": [2.5, None]}, "licence": "MIT"}
