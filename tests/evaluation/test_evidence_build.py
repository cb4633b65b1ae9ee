"""Evidence on disk: out of fold on training cases, one pass of a backbone, the same bytes after a kill."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gsco import build_evidence, read_evidence
from gsco.cases import Dataset, load_dataset
from gsco.errors import DatasetError, LeakageError, ModelError, RunError, UserError
from gsco.evaluation.evidence_folder import read_evidence_record
from gsco.evaluation.evidence_voices import resolve
from gsco.retrieval import CaseIndex
from gsco.specialists import load_specialist, out_of_fold, train_specialist
from gsco.specialists.backbones import Backbone

TEAM = ("knn", "linear_probe", "texture_probe")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    import timm
    from timm.models import save_for_hf

    folder = tmp_path_factory.mktemp("backbone")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        save_for_hf(timm.create_model("test_efficientnet"), folder, safe_serialization=True)
    return str(folder)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """46 noisy pictures of two shapes, two of a patient; one training image copied, one from test."""
    folder = tmp_path_factory.mktemp("shapes")
    (folder / "images").mkdir()
    rng, rows = np.random.default_rng(0), []
    y, x = np.mgrid[:24, :24]
    shapes = {"disc": (np.hypot(y - 12, x - 12) < 7) * 140.0, "stripes": (x // 3 % 2) * 120.0}
    for split, n in {"train": 24, "val": 10, "test": 12}.items():
        for i in range(n):
            label = sorted(shapes)[i % 2]
            grey = np.clip(shapes[label] + 60 + rng.normal(0, 40, (24, 24)), 0, 255).astype(np.uint8)
            rows.append([f"images/{split}{i}.png", label, split, f"{split}-{i // 2}"])
            Image.fromarray(grey).save(folder / rows[-1][0])
    for target, source in (("train20", "train0"), ("train23", "test1")):
        (folder / f"images/{target}.png").write_bytes((folder / f"images/{source}.png").read_bytes())
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "label", "split", "patient_id"], *rows])
    return load_dataset(folder, name="shapes")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evidence-cache")


@pytest.fixture(scope="module")
def built(
    shapes: Dataset, backbone: str, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], Counter[str]]:
    """One build from an empty cache, with the pictures that went through a backbone counted."""
    out = tmp_path_factory.mktemp("evidence") / "out"
    shown: Counter[str] = Counter()
    plain = Backbone.apply

    def counted(self: Backbone, images: Any, forward: Any) -> Any:
        if hasattr(self, "channels"):  # not the one picture by which it learns its own shape
            shown[self.name] += len(images)
        return plain(self, images, forward)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backbone, "apply", counted)
        record = build(shapes, backbone, out, cache)
    return out, record, shown


def build(shapes: Dataset, backbone: str, out: Path, cache: Path, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "specialists": [f"{name}:{backbone}" for name in TEAM],
        "backbone": backbone,
        "neighbours": 3,
        "folds": 2,
        "quick": True,
        **changes,
    }
    return build_evidence(shapes, settings.pop("specialists"), out, cache=cache, **settings)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "evidence.jsonl").read_text().splitlines()]


def test_each_different_picture_goes_through_a_backbone_once(
    built: tuple[Path, dict[str, Any], Counter[str]], backbone: str
) -> None:
    _, record, shown = built
    assert record["cases"] == {"train": 24, "val": 10, "test": 12}
    assert shown == {backbone: 44}  # 46 cases, two of which are copies


def test_every_case_has_a_line_and_training_cases_are_out_of_fold(
    built: tuple[Path, dict[str, Any], Counter[str]], shapes: Dataset, backbone: str, cache: Path
) -> None:
    out, record, _ = built
    told = lines(out)
    order = [case.id for split in ("train", "val", "test") for case in shapes.split(split)]
    assert [line["case_id"] for line in told] == order
    assert {(line["split"], line["out_of_fold"]) for line in told} == {
        ("train", True),
        ("val", False),
        ("test", False),
    }
    evidence = read_evidence(out)
    assert list(evidence) == order
    assert list(read_evidence(out, split="val")) == [case.id for case in shapes.split("val")]
    specialist = load_specialist(out / "specialists" / record["specialists"][0]["name"], cache=cache)
    for split in ("train", "test"):
        cases = shapes.split(split)
        said = np.asarray([evidence[case.id].opinions[0].probabilities for case in cases])
        own = specialist.predict([case.image for case in cases])
        assert np.allclose(said, own, atol=1e-7) is (split == "test")
    assert evidence[order[-1]].opinions[0].reliability == pytest.approx(specialist.reliability)
    assert evidence[order[0]].opinions[0].reliability == record["specialists"][0]["reliability_out_of_fold"]
    # by hand: the copy and its original, with their patients, are one group and so one fold
    alike = {f"images/train{i}.png" for i in (0, 1, 20, 21)}
    grouped = tuple(replace(case, group="alike") if case.id in alike else case for case in shapes)
    expected = out_of_fold(
        f"knn:{backbone}", replace(shapes, cases=grouped), folds=2, cache=cache, quick=True
    )
    said = [evidence[case.id].opinions[0].probabilities for case in shapes.split("train")]
    np.testing.assert_allclose(said, expected, atol=1e-7)


def test_what_a_word_is_worth_is_read_from_the_same_kind_of_words(
    built: tuple[Path, dict[str, Any], Counter[str]], shapes: Dataset
) -> None:
    """Of a training case, from the out-of-fold answers; of a new one, what the specialist's folder says."""
    from gsco.specialists.calibration import class_reliability

    out, record, _ = built
    evidence, train = read_evidence(out), shapes.split("train")
    said = np.asarray([evidence[case.id].opinions[0].probabilities for case in train])
    shares = class_reliability(said, shapes.targets(train))
    for case in train:
        opinion = evidence[case.id].opinions[0]
        np.testing.assert_allclose(opinion.class_reliability or (), shares, atol=1e-6)
        assert evidence[case.id].foreignness is None
    assert sum(evidence[case.id].opinions[0].abstains for case in train) == 4  # of 24, the surest 80 % are 20
    specialist = load_specialist(out / "specialists" / record["specialists"][0]["name"])
    for case in shapes.split("test"):
        opinion = evidence[case.id].opinions[0]
        np.testing.assert_allclose(opinion.class_reliability or (), specialist.class_reliability or ())
        assert evidence[case.id].foreignness is not None


def test_no_training_case_is_told_about_itself_its_patient_or_a_copy(
    built: tuple[Path, dict[str, Any], Counter[str]], shapes: Dataset
) -> None:
    out, record, _ = built
    patient = {case.id: case.patient_id for case in shapes}
    evidence = read_evidence(out)
    for case in shapes.split("train"):
        found = {neighbour.case_id for neighbour in evidence[case.id].neighbours}
        assert len(found) == 3
        assert patient[case.id] not in {patient[name] for name in found}
    copies = {f"images/train{i}.png" for i in (0, 1, 20, 21)}  # the copies and their patients
    for name in copies:
        assert not copies & {neighbour.case_id for neighbour in evidence[name].neighbours}
    assert record["leakage"]["purged"] == ["images/train23.png"]
    assert all(
        neighbour.case_id != "images/train23.png"
        for each in evidence.values()
        for neighbour in each.neighbours
    )
    versions = {neighbour.index_version for each in evidence.values() for neighbour in each.neighbours}
    assert versions == {record["index"]["version"]}


SCRIPT = """
import json, os, signal, sys
from pathlib import Path
from gsco import build_evidence
from gsco.cases import load_dataset
from gsco.evaluation import evidence_build
from gsco.evaluation.runfolder import RunFolder
import torch
torch.set_num_threads(1)
job = json.loads(sys.argv[1])
calls, plain = 0, RunFolder.append
evidence_build._LINES = 7

def mortal(self, lines, log=None):
    global calls
    calls += 1
    if calls == job["die_at"]:
        with log.open("ab") as file:
            file.write(b'{"schema":1,"case_id":"torn')
        os.kill(os.getpid(), signal.SIGKILL)
    plain(self, lines, log)

RunFolder.append = mortal
data, keys = load_dataset(job["data"], name="shapes"), ("specialists", "out", "backbone")
build_evidence(data, **{key: job[key] for key in keys}, neighbours=3, folds=2, quick=True,
               cache=Path(job["cache"]))
"""


def test_killed_between_lines_it_goes_on_to_the_same_bytes(
    built: tuple[Path, dict[str, Any], Counter[str]],
    shapes: Dataset,
    backbone: str,
    cache: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "killed"
    job = {
        "data": str(shapes.root),
        "specialists": [f"{name}:{backbone}" for name in TEAM],
        "backbone": backbone,
        "out": str(out),
        "cache": str(cache),
        "die_at": 4,
    }
    done = subprocess.run([sys.executable, "-c", SCRIPT, json.dumps(job)], check=False)
    assert done.returncode == -9
    with pytest.raises(RunError, match="is not finished"):
        read_evidence(out)
    assert (out / "evidence.jsonl").read_bytes().count(b"\n") == 21
    # another one dies while its specialists stand and a prediction is half-written
    (out / "predictions" / ".half.npz.1.tmp").write_bytes(b"x")
    build(shapes, backbone, out, cache)
    for name in ("evidence.jsonl", "evidence.json"):
        assert (out / name).read_bytes() == (built[0] / name).read_bytes(), name
    before = (out / "evidence.jsonl").stat().st_mtime_ns
    assert build(shapes, backbone, out, cache) == built[1]  # once more: nothing to do
    assert (out / "evidence.jsonl").stat().st_mtime_ns == before


def test_specialists_and_an_index_may_be_folders(
    built: tuple[Path, dict[str, Any], Counter[str]],
    shapes: Dataset,
    backbone: str,
    cache: Path,
    tmp_path: Path,
) -> None:
    out, _, _ = built
    folder = tmp_path / "mine"
    made = train_specialist(f"knn:{backbone}", shapes, cache=cache, out=folder)
    made.name = "mine"
    made.save_pretrained(folder)
    team = [folder, f"linear_probe:{backbone}"]
    index = CaseIndex.from_pretrained(out / "index")
    again = build(shapes, backbone, tmp_path / "out", cache, specialists=team, index=out / "index")
    assert [row["name"] for row in again["specialists"]][:1] == ["mine"]
    assert again["index"]["version"] == index.version
    told, before = read_evidence(tmp_path / "out"), read_evidence(out)
    for case in shapes.split("train"):
        assert told[case.id].neighbours == before[case.id].neighbours
        assert told[case.id].opinions[0].probabilities == before[case.id].opinions[0].probabilities
    # a specialist that never saw the training cases speaks about them itself
    unseen = build(shapes, backbone, tmp_path / "unseen", cache, specialists=[folder], unseen=["mine"])
    assert unseen["settings"]["specialists"][0]["unseen"] is True
    case = shapes.split("train")[0]
    own = made.predict([case.image])[0]
    assert read_evidence(tmp_path / "unseen")[case.id].opinions[0].probabilities == pytest.approx(
        own, abs=1e-7
    )


def test_a_specialist_whose_options_stand_in_another_order(
    shapes: Dataset, backbone: str, cache: Path, tmp_path: Path
) -> None:
    """What it says and what it knows of itself stand in the order of the data."""
    turned = replace(shapes, task=replace(shapes.task, options=shapes.task.options[::-1]))
    made = train_specialist(f"knn:{backbone}", turned, cache=cache)
    assert made.options == ("stripes", "disc")
    made.class_reliability = (0.9, 0.6)
    made.save_pretrained(tmp_path / "turned")
    build(shapes, backbone, tmp_path / "out", cache, specialists=[tmp_path / "turned"])
    case = shapes.split("test")[0]
    opinion = read_evidence(tmp_path / "out")[case.id].opinions[0]
    own = made.predict([case.image])[0]
    assert opinion.probabilities == pytest.approx(own[::-1], abs=1e-7)
    assert opinion.class_reliability == (0.6, 0.9)


def test_folds_are_trained_as_the_folder_was(
    shapes: Dataset, backbone: str, cache: Path, tmp_path: Path
) -> None:
    """Without padding where it was trained without, though its recipe would pad."""
    pictures = {"size": 24, "pad": 0}
    train_specialist(f"kNN:{backbone}", shapes, cache=cache, out=tmp_path / "bare", **pictures)
    (asked,) = resolve([tmp_path / "bare"], shapes.task.keys)
    assert (asked.size, asked.pad) == (24, 0)
    (recipe,) = resolve([f"kNN:{backbone}"], shapes.task.keys)
    assert (recipe.size, recipe.pad) == (None, None)
    config = tmp_path / "bare" / "config.json"
    plain = json.loads(config.read_text())
    config.write_text(json.dumps(plain | {"details": plain["details"] | {"imported": "a_best.pth"}}))
    with pytest.raises(ModelError, match=r"it was imported from a_best\.pth.*--unseen"):
        resolve([tmp_path / "bare"], shapes.task.keys)
    (asked,) = resolve([tmp_path / "bare"], shapes.task.keys, unseen=[asked.name])
    assert asked.unseen
    config.write_text(json.dumps(plain | {"multi_label": True}))
    with pytest.raises(ModelError, match="says several labels a case, while the data have one"):
        resolve([tmp_path / "bare"], shapes.task.keys)


def test_what_the_remedy_says_can_be_done_in_the_same_folder(
    shapes: Dataset, backbone: str, cache: Path, tmp_path: Path
) -> None:
    """A build that was refused before it made anything may be begun anew with another setting."""
    patient = shapes.split("test")[0].patient_id
    torn = tuple(
        replace(case, patient_id=patient) if case is shapes.split("train")[0] else case for case in shapes
    )
    data, out = replace(shapes, cases=torn), tmp_path / "out"
    with pytest.raises(LeakageError, match="override by name: groups"):
        build(data, backbone, out, cache, specialists=[f"knn:{backbone}"])
    record = build(data, backbone, out, cache, specialists=[f"knn:{backbone}"], allow_leakage=["groups"])
    assert record["settings"]["allow_leakage"] == ["groups"]
    assert record["leakage"]["allowed"] == ["groups"]


def test_what_cannot_be_built_is_told_before_anything_is_trained(
    built: tuple[Path, dict[str, Any], Counter[str]],
    shapes: Dataset,
    backbone: str,
    cache: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"

    def refused(kind: type[UserError], message: str, **changes: Any) -> None:
        with pytest.raises(kind, match=message) as raised:
            build(shapes, backbone, changes.pop("out", out), cache, **changes)
        assert "\n" not in str(raised.value)

    refused(UserError, "no specialist is named", specialists=[])
    refused(ModelError, "no recipe 'nothing'", specialists=["nothing"])
    refused(ModelError, "there is no such specialist", specialists=["runs/none"])
    refused(UserError, "two specialists are named 'small_cnn'", specialists=["small_cnn", "small_cnn"])
    refused(UserError, "no specialist 'x' to be unseen", unseen=["x"])
    refused(UserError, "no kind of leakage 'dreams'", allow_leakage=["dreams"])
    refused(RunError, "was begun otherwise: seed was 0, not 1", out=built[0], seed=1)
    folder = tmp_path / "other"
    made = train_specialist(f"knn:{backbone}", shapes, cache=cache, out=folder)
    config = folder / "config.json"
    plain = config.read_text()
    config.write_text(plain.replace(made.recipe, "imported"))
    refused(
        ModelError, "cannot be trained without some of the training cases.*--unseen", specialists=[folder]
    )
    config.write_text(plain.replace('"stripes"', '"squares"'))
    refused(ModelError, "speaks of disc, squares, while the data have disc, stripes", specialists=[folder])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    refused(RunError, "is not empty", out=tmp_path / "full")
    index = CaseIndex.from_pretrained(built[0] / "index")
    index.dataset = "another"
    other = CaseIndex(
        np.array(index.embeddings), index.entries, dataset="another", encoder=index.encoder, pooled=True
    )
    other.save_pretrained(tmp_path / "index")
    refused(LeakageError, "cases of 'another'", index=tmp_path / "index", out=tmp_path / "third")
    many = replace(shapes, task=replace(shapes.task, multi_label=True))
    with pytest.raises(DatasetError, match="multi-label"):
        build(many, backbone, out, cache)


def test_evidence_that_was_changed_is_not_read(
    built: tuple[Path, dict[str, Any], Counter[str]], tmp_path: Path
) -> None:
    for name in ("evidence.jsonl", "evidence.json"):
        (tmp_path / name).write_bytes((built[0] / name).read_bytes())
    assert read_evidence(tmp_path) == read_evidence(built[0])
    assert read_evidence_record(tmp_path)["complete"] is True
    with (tmp_path / "evidence.jsonl").open("ab") as file:
        file.write(b"\n")
    with pytest.raises(RunError, match="was changed since it was built"):
        read_evidence(tmp_path)
    with pytest.raises(RunError, match=r"holds no evidence\.json"):
        read_evidence(tmp_path / "nowhere")
