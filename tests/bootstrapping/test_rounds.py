"""Rounds on disk: traceable, resumable, of training format."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from gsco.bootstrapping.rounds import bootstrap
from gsco.bootstrapping.subjects import Settings
from gsco.cases import Dataset, load_dataset
from gsco.errors import DatasetError, ModelError, RequestsFailedError, RunError, UserError
from gsco.generalist import Generalist, Request
from gsco.generalist.records import read_records

sys.path.insert(0, str(Path(__file__).parent))
import scripted_reports
from scripted_reports import Writer, make_set


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return load_dataset(make_set(tmp_path / "data"))


def load(spec: str) -> Generalist:
    return Writer(spec)


def files(out: Path) -> dict[str, bytes]:
    folder = out.with_suffix(".rounds") / "round-01"
    names = (
        "config.json",
        "drafts.jsonl",
        "accepted.jsonl",
        "rejected.jsonl",
        "statistics.json",
        "page.html",
    )
    return {name: (folder / name).read_bytes() for name in names} | {"out": out.read_bytes()}


def test_accepted_reports_are_records_that_can_be_traced(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "boot.jsonl"
    statistics = bootstrap(dataset, Settings(("writer",), seed=3), out, load=load)
    assert statistics["drafts"] == statistics["images"] == 20
    assert statistics["reasons"]["parts_missing"] == 6
    assert statistics["accepted"] + statistics["rejected"] == 20
    assert statistics["accepted"] >= 10
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    for line, record in zip(lines, read_records(out), strict=True):
        trace = line["bootstrap"]
        assert (trace["round"], trace["generator"], trace["fingerprint"]) == (1, "writer", "scripted:writer")
        assert (trace["template"], trace["seed"], trace["variant"]) == ("guided", 3, 0)
        assert line["labels"][0] in trace["prompt"]
        assert "pneumonia" not in record.prompt
        assert record.answer.startswith("Findings: ")
        assert record.image is not None
        assert record.image.path.is_file()
    assert {case.split for case in load_dataset(out)} == {"train"}


def test_drafts_are_drawn_each_by_a_seed_of_its_own(dataset: Dataset, tmp_path: Path) -> None:
    asked: list[Request] = []

    class Listening(Writer):
        def generate(self, requests: Sequence[Request], *, max_new_tokens: int = 64) -> list[str]:
            asked.extend(requests)
            return super().generate(requests, max_new_tokens=max_new_tokens)

    def seeds(seed: int, name: str) -> list[int]:
        asked.clear()
        settings = Settings(("writer",), drafts=2, seed=seed, temperature=0.7)
        bootstrap(dataset, settings, tmp_path / f"{name}.jsonl", load=Listening)
        assert {r.sampling.temperature for r in asked if r.sampling} == {0.7}
        return [r.sampling.seed for r in asked if r.sampling]

    first = seeds(0, "first")
    assert len(set(first)) == len(first) == 40
    assert first == seeds(0, "again")
    assert not set(first) & set(seeds(1, "other"))
    line = json.loads((tmp_path / "first.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert line["bootstrap"]["temperature"] == 0.7
    with pytest.raises(UserError, match="temperature"):
        Settings(("writer",), temperature=-1.0)


def test_killed_and_continued_it_ends_with_the_same_bytes(dataset: Dataset, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    bootstrap(dataset, Settings(("writer",), drafts=2), whole, load=load)
    script = [sys.executable, scripted_reports.__file__, str(dataset.root), str(killed), "1"]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
    log = killed.with_suffix(".rounds") / "round-01" / "drafts.jsonl"
    assert len(log.read_text(encoding="utf-8").splitlines()) == 16
    with log.open("a", encoding="utf-8") as stream:
        stream.write('{"case_id": "torn')
    writer = Writer("writer")
    bootstrap(dataset, Settings(("writer",), drafts=2), killed, load=lambda spec: writer)
    assert writer.batches == 2  # 40 drafts in batches of 16, the first of which stood in the log
    assert files(killed) == files(whole)


class Faulty(Writer):
    """Has no answer for some images, as a server may; a restart mends it."""

    def generate(self, requests: Sequence[Request], *, max_new_tokens: int = 64) -> list[str]:
        texts: list[str | None] = list(super().generate(requests))
        reasons: list[str | None] = [None] * len(texts)
        for place, request in enumerate(requests):
            assert request.image is not None
            if request.image.path.stem in ("3", "17"):
                texts[place], reasons[place] = None, "status 500"
        if any(reasons):
            raise RequestsFailedError("2 requests failed", results=texts, reasons=reasons)
        return super().generate(requests)


def test_drafts_without_an_answer_are_asked_for_again(dataset: Dataset, tmp_path: Path) -> None:
    whole, partly = tmp_path / "whole.jsonl", tmp_path / "partly.jsonl"
    bootstrap(dataset, Settings(("writer",)), whole, load=load)
    with pytest.raises(ModelError, match=r"2 drafts have no answer \(status 500\)"):
        bootstrap(dataset, Settings(("writer",)), partly, load=Faulty)
    log = partly.with_suffix(".rounds") / "round-01" / "drafts.jsonl"
    assert len(log.read_text(encoding="utf-8").splitlines()) == 18
    bootstrap(dataset, Settings(("writer",)), partly, load=load)
    assert sorted(partly.read_text().splitlines()) == sorted(whole.read_text().splitlines())


def test_other_words_are_another_round(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "boot.jsonl"
    bootstrap(dataset, Settings(("writer",)), out, load=load)
    monkeypatch.setattr("gsco.bootstrapping.drafting.make_prompt", lambda *_, **__: "Please.")
    with pytest.raises(RunError, match="was begun with other prompts"):
        bootstrap(dataset, Settings(("writer",)), out, load=load)


def test_a_second_round_replaces_what_it_does_better(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "boot.jsonl"
    bootstrap(dataset, Settings(("writer",)), out, load=load)
    first = out.read_text(encoding="utf-8").splitlines()
    with pytest.raises(RunError, match="no finished round 2"):
        bootstrap(dataset, Settings(("trained",)), out, load=load, number=3)
    bootstrap(dataset, Settings(("trained",), template="brief"), out, load=load, number=2)
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(lines) >= len(first)
    assert {line["bootstrap"]["round"] for line in lines} >= {2}
    assert len({line["case_id"] for line in lines}) == len(lines)


def test_several_generators_agree(dataset: Dataset, tmp_path: Path) -> None:
    settings = Settings(("one", "two"), agreement=2)
    statistics = bootstrap(dataset, settings, tmp_path / "boot.jsonl", load=load)
    assert statistics["accepted"] == statistics["spare"] > 0
    assert set(statistics["generators"]) == {"one", "two"}


def test_limit_takes_labels_in_turn(dataset: Dataset, tmp_path: Path) -> None:
    statistics = bootstrap(dataset, Settings(("writer",), limit=6), tmp_path / "boot.jsonl", load=load)
    assert {counts["images"] for counts in statistics["labels"].values()} == {3}


def test_what_copies_a_test_image_is_not_reported(dataset: Dataset, tmp_path: Path) -> None:
    images = dataset.root / "images"
    shutil.copyfile(images / "23.png", images / "1.png")
    found = bootstrap(dataset, Settings(("writer",)), tmp_path / "boot.jsonl", load=load)
    assert (found["images"], found["copies_left_out"]) == (19, 1)
    folder = tmp_path / "boot.rounds" / "round-01"
    assert json.loads((folder / "leakage.json").read_text())["purged"] == ["images/1.png"]
    drafts = [json.loads(line)["case_id"] for line in (folder / "drafts.jsonl").read_text().splitlines()]
    assert "images/1.png" not in drafts
    kept = Settings(("writer",), keep_copies=True)
    found = bootstrap(dataset, kept, tmp_path / "all.jsonl", load=load)
    assert (found["images"], found["copies_left_out"]) == (20, 0)


def test_nothing_but_copies_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    for i in range(20):
        shutil.copyfile(dataset.root / "images" / "23.png", dataset.root / "images" / f"{i}.png")
    with pytest.raises(DatasetError, match="no labelled train case but copies of cases of later splits"):
        bootstrap(dataset, Settings(("writer",)), tmp_path / "boot.jsonl", load=load)


def test_bad_input_is_one_line(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "boot.jsonl"
    with pytest.raises(UserError, match="no prompt template"):
        Settings(("writer",), template="none")
    with pytest.raises(UserError, match="cannot be reached"):
        Settings(("writer",), agreement=2)
    with pytest.raises(UserError, match="twice"):
        Settings(("writer", "writer"))
    with pytest.raises(UserError, match=r"no \.jsonl"):
        bootstrap(dataset, Settings(("writer",)), tmp_path / "boot.txt", load=load)
    with pytest.raises(DatasetError, match="no labelled val case"):
        bootstrap(dataset, Settings(("writer",), split="val"), out, load=load)
    bootstrap(dataset, Settings(("writer",), limit=4), out, load=load)
    with pytest.raises(RunError, match="other cases, limit"):
        bootstrap(dataset, Settings(("writer",), limit=3), out, load=load)


def test_the_page_escapes_and_needs_no_network(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "boot.jsonl"
    bootstrap(dataset, Settings(("<b>writer</b>",)), out, load=load)
    page = files(out)["page.html"].decode()
    assert "&lt;b&gt;writer" in page
    assert "<b>writer" not in page
    assert "://" not in page
    assert 'data-show="parts_missing"' in page
