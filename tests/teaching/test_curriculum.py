"""Training records: balanced, true, free of held-out names, and the same for the same seed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsco.cases import Case, Dataset, ImageRef, Option, Task
from gsco.collaboration import Evidence
from gsco.errors import DatasetError, UserError
from gsco.generalist.records import Record, read_records, write_records
from gsco.generalist.scripted import ScriptedGeneralist
from gsco.specialists import Opinion
from gsco.teaching.curriculum import make_records
from gsco.teaching.held_back import held_back
from gsco.teaching.invented_names import (
    STEMS,
    meaningless_names,
    mixed_names,
    one_noun,
    one_quality,
    one_stem,
)
from gsco.teaching.shares import MIXTURE, Shares
from gsco.teaching.shown_images import shown_examples
from gsco.teaching.simulate import (
    simulate_bluff,
    simulate_evidence,
    simulate_neighbours,
    simulate_opinions,
    stated_reliability,
    vote_reliability,
    with_dissenter,
)
from gsco.teaching.trial import CONDITIONS, UNSEEN, make_trial, run_trial
from gsco.teaching.varied import renamed
from gsco.teaching.vocabulary import SYNONYMS, TERMS


def dataset(n: int = 30) -> Dataset:
    task = Task(
        "diagnosis",
        "breast ultrasound",
        (Option("b", "benign"), Option("m", "malignant"), Option("n", "normal")),
    )
    keys = ["b", "b", "b", "m", "n"]
    cases = tuple(
        Case(f"c{i}.png", (ImageRef(Path(f"c{i}.png")),), (keys[i % 5],), split="train" if i % 6 else "test")
        for i in range(n)
    )
    return Dataset("busi", task, cases, Path())


def drawn(n: int, **shares: Any) -> list[Record]:
    """Records of the dataset with everything else as by default."""
    return make_records([dataset()], n=n, seed=2, shares=Shares(**shares))


def test_records_are_reproducible_and_use_training_cases_only() -> None:
    made = make_records([dataset()], n=200, seed=3)
    assert made == make_records([dataset()], n=200, seed=3)
    assert made != make_records([dataset()], n=200, seed=4)
    train = {case.image for case in dataset().split("train")}
    assert {r.image for r in made if r.image is not None} <= train
    kinds = Counter(r.kind for r in made)
    assert set(kinds) == set(MIXTURE) - {"ask"}


def test_the_answer_names_the_true_option() -> None:
    truth = {case.image: case.label for case in dataset()}
    groups = {"b": SYNONYMS["benign"], "m": SYNONYMS["malignant"], "n": SYNONYMS["normal"]}
    checked = 0
    for record in make_records([dataset()], n=400, seed=0):
        if record.kind == "foreign" or record.image is None:
            continue
        lettered = rf"^{re.escape(record.answer)}\. ([^:\n]+)"
        line = re.search(lettered, record.prompt, re.MULTILINE) if len(record.answer) == 1 else None
        name = line.group(1) if line else record.answer
        assert name in groups[truth[record.image] or ""]
        checked += 1
    assert checked > 100


def test_no_two_options_are_ever_called_the_same() -> None:
    task = Task("diagnosis", "chest X-ray", (Option("a", "no finding"), Option("b", "normal")))
    rng = np.random.default_rng(0)
    for _ in range(300):
        assert len(set(renamed(rng, task).names)) == 2


def test_labels_are_drawn_evenly() -> None:
    truth = {case.image: case.label for case in dataset()}
    seen = Counter(
        truth[r.image] for r in make_records([dataset()], n=900, seed=1) if r.kind != "foreign" and r.image
    )
    assert max(seen.values()) - min(seen.values()) < 0.15 * max(seen.values())


def test_records_of_a_file_are_mixed_in_and_show_nothing_that_is_held_back() -> None:
    data = dataset()
    train = [case for case in data.split("train") if case.label is not None]
    _, to_hear = held_back(train)
    reports = [Record(c.id, "report", "x", c.image, "Report this.", f"Impression: {c.label}") for c in train]
    made = make_records(
        [data],
        n=120,
        seed=2,
        shares=Shares(mixture={"see": 0.5, "given": 0.5}),
        given=[(2.0, reports), (1.0, [])],
    )
    given = [record for record in made if record.kind == "given"]
    assert 40 < len(given) < 80
    assert len({record.id for record in made}) == len(made)
    assert {r.image for r in given} == {c.image for c in train} - {c.image for c in to_hear}
    assert {(r.image, r.answer) for r in given} <= {(r.image, r.answer) for r in reports}
    without = make_records([data], n=20, seed=2, shares=Shares(mixture={"see": 0.5, "given": 0.5}))
    assert {record.kind for record in without} == {"see"}


def test_an_image_is_reported_as_its_dataset_reports_it_unless_it_is_held_back() -> None:
    data = dataset()
    train = [case for case in data.split("train") if case.label is not None]
    _, to_hear = held_back(train)
    told = [
        Case(
            case.id,
            case.images,
            (),
            case.split,
            report=f"FINDINGS: Mass {i}. IMPRESSION: It." if i else "It.",
        )
        for i, case in enumerate(data.cases)
    ]
    reported = Dataset("reported", Task("report", "breast ultrasound"), tuple(told), Path())
    shares = Shares(mixture={"see": 0.5, "report": 0.5})
    made = make_records([data, reported], n=120, seed=2, shares=shares)
    reports = [record for record in made if record.kind == "report"]
    assert 40 < len(reports) < 80
    wanted = {c.image for c in train} - {c.image for c in to_hear} - {data.cases[0].image}
    assert {r.image for r in reports} == wanted
    said = {case.image: f"Findings: Mass {i}.\nImpression: It." for i, case in enumerate(told)}
    for record in reports:
        assert record.image and record.answer == said[record.image]
        assert "breast ultrasound" in record.prompt and record.source == "reported"
    assert {r.kind for r in make_records([data], n=20, seed=2, shares=shares)} == {"see"}


def test_a_confirming_record_asks_for_one_option_and_is_true() -> None:
    truth = {case.image: case.label for case in dataset()}
    groups = {"b": SYNONYMS["benign"], "m": SYNONYMS["malignant"], "n": SYNONYMS["normal"]}
    made = drawn(400, mixture={"confirm": 1.0})
    _, to_hear = held_back([case for case in dataset().split("train") if case.label is not None])
    for record in made:
        assert record.image is not None
        question = record.prompt.splitlines()[0]
        named = any(f" {name}?" in question for name in groups[truth[record.image] or ""])
        assert record.answer == ("yes" if named else "no"), question
    assert {record.image for record in made}.isdisjoint(case.image for case in to_hear)
    assert sum(record.answer == "yes" for record in made) / len(made) == pytest.approx(0.5, abs=0.1)


def test_datasets_are_drawn_by_weight_among_their_kind() -> None:
    def questions(name: str) -> Dataset:
        cases = tuple(
            Case(
                f"{name}{i}.png",
                (ImageRef(Path(f"{name}{i}.png")),),
                (),
                "train",
                question="Is it?",
                answer="yes",
            )
            for i in range(9)
        )
        return Dataset(name, Task("vqa", "radiology", ()), cases, Path())

    datasets = [dataset(), questions("many"), questions("few"), questions("none")]
    made = make_records(
        datasets, n=400, seed=1, shares=Shares(mixture={"ask": 0.9, "see": 0.1}), weights=[0.1, 3, 1, 0]
    )
    drawn_from = Counter(record.source for record in made if record.kind == "ask")
    assert set(drawn_from) == {"many", "few"}
    assert drawn_from["many"] / drawn_from.total() == pytest.approx(0.75, abs=0.07)


def test_a_mixture_of_which_nothing_can_be_made_is_refused() -> None:
    with pytest.raises(UserError, match=r"no record of the mixture \(ask, given\)"):
        make_records([dataset()], n=1, shares=Shares(mixture={"ask": 0.5, "given": 0.5}))
    with pytest.raises(UserError, match="none of the sources is a dataset with labels"):
        make_records([], n=1)


def test_a_blank_record_tells_nothing_and_asks_for_any_option() -> None:
    made = drawn(600, mixture={"blank": 1.0})
    assert {r.kind for r in made} == {"blank"}
    assert not any("Specialists" in r.prompt or "known cases" in r.prompt for r in made)
    position: Counter[int] = Counter()
    for record in made:
        listed = [line[2:] for line in record.prompt.splitlines() if line.startswith("- ")]
        if len(listed) == 4:
            position[listed.index(record.answer)] += 1
    assert sum(position.values()) > 40
    assert max(position.values()) < 0.45 * sum(position.values())
    assert 0.4 < sum(r.image is not None for r in made) / len(made) < 0.6


def test_a_bare_record_asks_for_known_names_without_an_image_and_likes_none() -> None:
    made = drawn(900, mixture={"blank": 1.0}, bare=1.0)
    known = {name for synonyms in SYNONYMS.values() for name in synonyms}
    said: Counter[str] = Counter()
    for record in made:
        listed = [line[2:] for line in record.prompt.splitlines() if line.startswith("- ")]
        assert record.image is None
        assert set(listed) <= known
        said.update([record.answer] if len(listed) == 3 and "benign" in listed else [])
    assert said["benign"] / sum(said.values()) == pytest.approx(1 / 3, abs=0.1)
    assert any(r.image for r in drawn(50, mixture={"blank": 1.0}, bare=0.5))


def test_a_blind_record_has_evidence_and_no_image() -> None:
    made = drawn(400, mixture={"hear": 0.8, "see": 0.2}, blind=0.5)
    heard = [r.image is None for r in made if r.kind == "hear"]
    assert sum(heard) / len(heard) == pytest.approx(0.5, abs=0.1)
    assert all(r.image is not None for r in made if r.kind == "see")


def test_wavering_evidence_speaks_for_the_answer_by_a_little() -> None:
    first_two = re.compile(r"Specialists' mean probability: (.+?) (\d+)%, .+? (\d+)%[,.]")

    def told(wavering: float) -> list[tuple[bool, int]]:
        made = drawn(400, mixture={"foreign": 1.0}, wavering=wavering)
        found = [(first_two.search(r.prompt), r.answer) for r in made]
        return [(m[1] == answer, int(m[2]) - int(m[3])) for m, answer in found if m and len(answer) > 1]

    assert len(told(1.0)) > 150
    assert all(said and 0 <= ahead <= 26 for said, ahead in told(1.0))
    assert np.median([ahead for _, ahead in told(0.0)]) > 40


def test_a_familiar_record_wavers_about_known_names_without_an_image() -> None:
    made = drawn(300, mixture={"foreign": 1.0}, familiar=0.5)
    names = "|".join(map(re.escape, SYNONYMS["malignant"]))
    known = [r for r in made if re.search(rf"^(- |[A-Z]\. )({names})$", r.prompt, re.MULTILINE)]
    assert len(known) / len(made) == pytest.approx(0.5, abs=0.1)
    assert all(r.image is None for r in known)
    assert all("known cases" in r.prompt or "pecialist" in r.prompt for r in known)


def test_stored_evidence_is_used() -> None:
    stored = {
        case.id: Evidence((Opinion("knn", (0.111, 0.222, 0.667), 0.5),)) for case in dataset().split("train")
    }
    made = make_records([dataset()], n=300, seed=0, evidence={"busi": stored})
    assert sum("67%" in r.prompt for r in made if r.kind == "hear") > 20
    never = make_records([dataset()], n=300, seed=0, evidence={"busi": stored}, shares=Shares(real=0.0))
    told = "Specialists' mean probability: normal 67%, malignant 22%, benign 11%."
    assert any(told in r.prompt for r in made)
    assert not any(told in r.prompt for r in never)


@pytest.mark.parametrize(("natural", "share"), [(False, 1 / 3), (True, 0.6)])
def test_cases_come_evenly_by_label_or_as_in_their_dataset(natural: bool, share: float) -> None:
    label = {case.image: case.label for case in dataset(600).split("train")}
    made = make_records(
        [dataset(600)], n=600, shares=Shares(mixture={"hear": 0.5, "see": 0.5}, natural=natural)
    )
    for kind, expected in (("hear", share), ("see", 1 / 3)):
        found = [label[r.image] == "b" for r in made if r.kind == kind and r.image is not None]
        assert np.mean(found) == pytest.approx(expected, abs=0.08)


# Options of the held-out sets of docs/results.md (HAM10000; LC25000, lung), as `gsco run` reads them.
HELD_OUT = {
    "melanoma",
    "melanocytic nevus",
    "basal cell carcinoma",
    "benign keratosis",
    "actinic keratosis",
    "dermatofibroma",
    "vascular lesion",
    "lung adenocarcinoma",
    "lung squamous cell carcinoma",
    "benign lung tissue",
}


@pytest.mark.parametrize("make", [one_stem, one_quality, one_noun, mixed_names, meaningless_names])
@given(seed=st.integers(0, 2**31), n=st.integers(2, 8))
@settings(max_examples=20, deadline=None)
def test_invented_names_differ_from_each_other(
    make: Callable[[np.random.Generator, int], list[str]], seed: int, n: int
) -> None:
    names = make(np.random.default_rng(seed), n)
    assert len(names) == len({name.lower() for name in names}) == n
    assert names == make(np.random.default_rng(seed), n)


def test_names_of_one_stem_begin_alike() -> None:
    names = one_stem(np.random.default_rng(1), 8)
    assert any(all(name.startswith(stem) for name in names) for stem in STEMS)


def test_names_of_one_noun_end_alike() -> None:
    names = one_noun(np.random.default_rng(1), 6)
    assert len({name.split()[-1] for name in names}) == 1


def test_trial_names_are_in_no_training_record() -> None:
    taught = {t.lower() for ts in TERMS.values() for t in ts} | {s for ss in SYNONYMS.values() for s in ss}
    unseen = {name.lower() for names in UNSEEN.values() for name in names} | HELD_OUT
    assert not taught & unseen
    text = "\n".join(r.prompt.lower() for r in make_records([dataset()], n=1500, seed=5))
    assert not [name for name in unseen if name in text]


@given(st.integers(0, 2**31), st.integers(2, 8))
@settings(max_examples=30, deadline=None)
def test_simulated_evidence_is_well_formed(seed: int, n: int) -> None:
    keys = tuple(f"k{i}" for i in range(n))
    evidence = simulate_evidence(np.random.default_rng(seed), seed % n, keys)
    for opinion in evidence.opinions:
        assert len(opinion.probabilities) == n
        assert sum(opinion.probabilities) == pytest.approx(1)
        assert opinion.reliability is not None and 0 <= opinion.reliability <= 1
    assert all(set(neighbour.labels) <= set(keys) for neighbour in evidence.neighbours)


def test_stated_reliability_is_what_the_simulation_achieves() -> None:
    rng = np.random.default_rng(0)
    stated, right = [], []
    for _ in range(1500):
        for opinion in simulate_opinions(rng, 1, 4, 3):
            stated.append(opinion.reliability)
            right.append(opinion.choice == 1)
    assert np.mean(right) == pytest.approx(np.mean(stated), abs=0.03)
    assert stated_reliability(4.0, 4) > stated_reliability(1.0, 4) > stated_reliability(0.0, 4)
    assert stated_reliability(0.0, 4) == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize(("quality", "n", "k"), [(0.3, 3, 5), (0.6, 4, 10), (0.9, 2, 3)])
def test_stated_vote_reliability_is_what_the_simulation_achieves(quality: float, n: int, k: int) -> None:
    rng = np.random.default_rng(4)
    keys = tuple("abcd"[:n])
    votes = [
        Evidence(neighbours=simulate_neighbours(rng, 1, keys, k, quality)).neighbour_choice(keys)
        for _ in range(1500)
    ]
    assert np.mean(np.equal(votes, 1)) == pytest.approx(vote_reliability(quality, n, k), abs=0.05)


def test_simulated_probabilities_are_roughly_calibrated() -> None:
    rng = np.random.default_rng(1)
    sure, right = [], []
    for _ in range(2000):
        for opinion in simulate_opinions(rng, 0, 3, 2):
            sure.append(max(opinion.probabilities))
            right.append(opinion.choice == 0)
    assert np.mean(right) == pytest.approx(np.mean(sure), abs=0.06)


def test_trial_counts_a_copy_as_a_copy() -> None:
    items = make_trial(n=40, seed=0, dataset=dataset())
    results = {r.condition: r for r in run_trial(ScriptedGeneralist("percent"), items)}
    assert tuple(results) == CONDITIONS
    assert results["unanimous_right"].accuracy == 1.0
    assert results["unanimous_right"].copy_accuracy == 1.0
    assert results["one_of_four_wrong"].copy_accuracy == 1.0
    assert results["unanimous_wrong"].accuracy == 0.0  # it reads percentages only, and these are wrong
    assert results["unanimous_wrong"].copy_accuracy == 0.0


@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=10)), min_size=1, max_size=5
    )
)
@settings(deadline=None)
def test_records_survive_the_disk(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("records")
    records = [Record(str(i), "see", "x", None, prompt, answer) for i, (prompt, answer) in enumerate(turns)]
    assert read_records(write_records(records, folder)) == records


@pytest.mark.parametrize("turns", [1, 4])
def test_a_record_of_another_form_is_named(tmp_path: Path, turns: int) -> None:
    path = tmp_path / "records.jsonl"
    said = [{"from": ("human", "gpt")[i % 2], "value": "x"} for i in range(turns)]
    path.write_text(json.dumps({"conversations": said}) + "\n")
    with pytest.raises(DatasetError, match=r"records\.jsonl: record 1"):
        read_records(path)


def test_a_dissenter_is_one_and_as_sure_as_before() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        team = simulate_opinions(rng, 2, 4, 4, skill=(5.0, 6.0))
        changed = [(a, b) for a, b in zip(team, with_dissenter(rng, team, 2), strict=True) if a != b]
        assert len(changed) == 1
        for before, after in changed:
            assert sorted(before.probabilities) == sorted(after.probabilities)
            assert after.probabilities[2] != before.probabilities[2]


def test_a_bluff_is_agreed_and_right_by_chance_only() -> None:
    rng = np.random.default_rng(3)
    teams = [simulate_bluff(rng, 4, 3) for _ in range(800)]
    assert all(abs((o.reliability or 0) - 0.25) < 0.2 for team in teams for o in team)
    agreed = [len({o.choice for o in team}) == 1 for team in teams]
    assert np.mean(agreed) > 0.85
    assert np.mean([team[0].choice == 1 for team in teams]) == pytest.approx(0.25, abs=0.05)


def test_no_image_is_both_shown_with_its_answer_and_heard_about() -> None:
    made = make_records([dataset(60)], n=900, seed=2)
    images = {kind: {r.image for r in made if r.kind == kind} for kind in ("see", "hear", "doubt")}
    assert images["see"]
    assert images["hear"]
    assert not images["see"] & (images["hear"] | images["doubt"])
    assert images["see"] & {example.image for example in shown_examples([dataset(60)], most=99)}
    assert not images["hear"] & {example.image for example in shown_examples([dataset(60)], most=99)}


def test_patients_are_held_back_whole_and_no_label_entirely() -> None:
    cases = [
        Case(f"{i}", (ImageRef(Path(f"{i}")),), ("ab"[i % 2],), patient_id=f"p{i // 4}", split="train")
        for i in range(80)
    ]
    cases.append(Case("z.png", (ImageRef(Path("z.png")),), ("rare",), split="train"))
    to_look, to_hear = held_back(cases)
    assert {c.cluster for c in to_look}.isdisjoint(c.cluster for c in to_hear)
    assert sorted(c.id for c in to_look + to_hear) == sorted(c.id for c in cases)
    assert 0.25 < len(to_hear) / len(cases) < 0.45
    assert "rare" in {c.label for c in to_look}
    assert held_back(cases[::-1])[1] == to_hear[::-1]
