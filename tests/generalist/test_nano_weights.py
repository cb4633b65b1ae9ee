"""The shipped adapter: small, openly licensed, and it hears evidence rather than copying it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from gsco.cases import Option, Task, load_dataset
from gsco.collaboration import Evidence, get_template
from gsco.embedded import locate
from gsco.generalist.base import Request
from gsco.generalist.nano.assemble import PARTS, weights_folder
from gsco.generalist.nano.backend import NanoGeneralist
from gsco.generalist.nano.dialogue import encode_answer, encode_prompt
from gsco.teaching.trial import UNSEEN, make_trial, run_trial

WEIGHTS = weights_folder()
OPEN = {"busi", "cxr_nih", "bccd", "breastmnist", "pneumoniamnist", "phantom_cxr", "vqa_rad", "simulated"}


def test_size_and_type() -> None:
    path = WEIGHTS / "adapter_model.safetensors"
    assert path.stat().st_size <= 25 * 2**20
    with safe_open(path, framework="pt") as state:
        assert any("lora_A" in key for key in state.keys())  # noqa: SIM118  not a dict
        assert any("multi_modal_projector" in key for key in state.keys())  # noqa: SIM118


def test_trained_on_open_data_only() -> None:
    facts = json.loads((WEIGHTS / "training.json").read_text())
    used = {key.split(":")[1] for stage in facts["stages"] for key in stage["records_by_kind_and_source"]}
    assert used <= OPEN
    assert (WEIGHTS / "training_log.jsonl").stat().st_size > 0
    card = (WEIGHTS / "README.md").read_text()
    assert "not a medical device" in card.lower()
    assert "gsco generalist train nano" in card


@pytest.fixture(scope="module")
def nano() -> NanoGeneralist:
    torch.set_num_threads(1)
    if any(locate(part) is None for part in PARTS):
        pytest.skip("the base parts are not on this machine: gsco models pull nano")
    return NanoGeneralist.from_pretrained()


@pytest.mark.nano
def test_evidence_is_heard(nano: NanoGeneralist) -> None:
    # Where the aim is near what it reaches, it takes more prompts to tell.
    close = ("unanimous_right", "neighbours_right")
    items = [item for item in make_trial(n=120, seed=123) if item.condition in close]
    items += [item for item in make_trial(n=40, seed=123) if item.condition not in close]
    results = {r.condition: r for r in run_trial(nano, items)}
    assert results["unanimous_right"].accuracy >= 0.95
    assert results["one_of_four_wrong"].accuracy >= 0.90
    assert results["unseen_names"].accuracy >= 0.90
    assert results["neighbours_right"].accuracy >= 0.80


@pytest.mark.nano
@pytest.mark.parametrize("template", ["evidence", "paper"])
def test_an_answer_has_the_tokens_that_it_has_in_the_prompt(nano: NanoGeneralist, template: str) -> None:
    """It copies tokens: a name that is spelt otherwise where it is read cannot be said."""
    for modality, names in UNSEEN.items():
        task = Task("diagnosis", modality, tuple(Option(name, name) for name in names))
        prompt = get_template(template).render(task, Evidence())
        ids = encode_prompt(nano.tokenizer, prompt.text, image=True)
        for choice in prompt.choices:
            answer = encode_answer(nano.tokenizer, choice)[:-1]
            assert any(ids[i : i + len(answer)] == answer for i in range(len(ids)))


@pytest.mark.nano
@pytest.mark.real
def test_it_sees(nano: NanoGeneralist, shared_data: Path) -> None:
    """Blood cells of the test split, told apart without any evidence; chance is a third."""
    dataset = load_dataset(shared_data / "bccd")
    cases = dataset.split("test")[:30]
    prompt = get_template("evidence").render(dataset.task, Evidence())
    scores = nano.score_options([Request(prompt.text, case.image, prompt.choices) for case in cases])
    right = sum(score.choice == truth for score, truth in zip(scores, dataset.targets(cases), strict=True))
    assert right / len(cases) >= 0.7
