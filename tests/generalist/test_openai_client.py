"""A model behind a server: what it offers, what it answers, and every way in which it can fail."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gsco.cases import ImageRef
from gsco.errors import ModelError, RequestsFailedError
from gsco.generalist import Example, Request, Sampling, can_score, load_generalist
from gsco.generalist.openai_client import OpenAIGeneralist
from gsco.generalist.openai_http import Patience
from gsco.generalist.openai_messages import LONGEST_SIDE, data_uri

from .scripted_server import FAULTS, MODEL, Offers, Script, piece, prompt_of, serving

QUICK = Patience(attempts=4, seconds=2.0, first_wait=0.01, longest_wait=0.02, max_bytes=100_000)
NAMES = ("benign", "benefit", "malignant", "ben")


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "GSCO_OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def client(url: str, patience: Patience = QUICK) -> OpenAIGeneralist:
    return OpenAIGeneralist.from_spec(f"openai:{url}#{MODEL}", patience=patience)


@pytest.fixture
def image(tmp_path: Path) -> ImageRef:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return ImageRef(tmp_path / "a.png")


def test_what_is_sent(image: ImageRef) -> None:
    script = Script(answer=lambda body: f" {prompt_of(body)}! ")
    with serving(script) as url:
        model = client(url)
        script.seen.clear()
        history = (("What is it?", "A scan."),)
        said = model.generate([Request("Sure?", image, history=history), Request("Hello")], max_new_tokens=7)
        seen = list(script.seen)
        script.seen.clear()
        shown = (Example("Which?", image, "benign"),)
        model.generate([Request("And this?", image, examples=shown, history=history)])
        turns = script.seen[-1]["messages"]
        model.generate([Request("Draw!", sampling=Sampling(0.7, 5, 0.9))])
        drawn = {key: script.seen[-1][key] for key in ("temperature", "seed", "top_p")}
    assert drawn == {"temperature": 0.7, "seed": 5, "top_p": 0.9}
    assert said == ["Sure?!", "Hello!"]
    first = next(body for body in seen if len(body["messages"]) == 3)
    assert {k: first[k] for k in ("model", "temperature", "stream", "max_tokens")} == {
        "model": MODEL,
        "temperature": 0,
        "stream": False,
        "max_tokens": 7,
    }
    picture, text = first["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    assert first["messages"][1] == {"role": "assistant", "content": "A scan."}
    head, _, encoded = picture["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    assert (sent == np.asarray(Image.open(image.path))).all()  # lossless
    assert turns[0]["content"] == [picture, {"type": "text", "text": "Which?"}]
    assert turns[1] == {"role": "assistant", "content": "benign"}
    assert turns[2:4] == first["messages"][:2]
    assert turns[4] == {"role": "user", "content": "And this?"}
    assert not {"authorization", "cookie"} & set(script.headers[-1])


def test_a_large_image_is_made_smaller() -> None:
    encoded = data_uri(Image.new("RGB", (4 * LONGEST_SIDE, 8))).partition(",")[2]
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (LONGEST_SIDE, 2)


@pytest.mark.parametrize("guide", ["structured_outputs", "guided_choice", "grammar", "regex"])
def test_options_are_scored_by_forced_decoding(guide: str) -> None:
    script = Script(Offers(top=20, guide=guide))
    with serving(script) as url:
        model = client(url)
        scores = model.score_options([Request("Which?", choices=NAMES), Request("Or?", choices=NAMES)])
        (alone,) = model.score_options([Request("Or?", choices=NAMES)])
    assert can_score(model) and guide in model.fingerprint
    assert scores[1] == alone
    for prompt, score in zip(("Which?", "Or?"), scores, strict=True):
        assert score.probabilities == pytest.approx(constrained(prompt))


def constrained(prompt: str) -> list[float]:
    """Of NAMES in tokens of three letters: ben|ign, ben|efi|t, mal|ign|ant, ben."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}]}

    def p(begun: str, token: str) -> float:
        return math.exp(piece(body, begun, token))

    first = p("", "ben") + p("", "mal")
    ben = p("", "ben") / first
    ign, efi = p("ben", "ign"), p("ben", "efi")
    end = max(1 - ign - efi, 1e-12)
    total = ign + efi + end
    return [ben * ign / total, ben * efi / total, p("", "mal") / first, ben * end / total]


@pytest.mark.parametrize("top", [5, 20])
def test_letters_are_scored_by_the_first_token(top: int) -> None:
    logs = {"A": -1.0, " B": -2.0, "C": -3.0, "The": -0.5}
    script = Script(Offers(top=top), likely=lambda _, token: logs[token])
    with serving(script) as url:
        model = client(url)
        before = len(script.seen)
        (score,) = model.score_options([Request("Which?", choices=("A", "B", "C", "D"))])
        assert len(script.seen) == before + 1
        weights = np.exp([-1.0, -2.0, -3.0, -3.0])  # D is not told: at most what is told last
        assert score.probabilities == pytest.approx(weights / weights.sum())
        with pytest.raises(RequestsFailedError, match="no option is among the 4 likeliest first tokens"):
            model.score_options([Request("Which?", choices=("x", "y"))])
        with pytest.raises(RequestsFailedError, match="does not tell the options apart"):
            model.score_options([Request("Which?", choices=("The one", "The other"))])


def test_a_server_whose_probabilities_are_of_what_it_was_held_to() -> None:
    with serving(Script(Offers(top=20, guide="regex", masked=True))) as url:
        model = client(url)
        assert model.abilities.guide == "regex" and not model.abilities.raw
        assert model.abilities.rule == "first:20"


@pytest.mark.parametrize("guide", ["guided_choice", "response_format"])
def test_a_server_without_probabilities_writes_one_of_the_options(guide: str) -> None:
    with serving(Script(Offers(guide=guide), answer=lambda _: "chatter")) as url:
        model = client(url)
        assert not can_score(model) and guide in model.remark
        assert model.generate([Request("Which?", choices=NAMES), Request("Free?")]) == ["benign", "chatter"]
        with pytest.raises(ModelError, match="--mode generate"):
            model.score_options([Request("Which?", choices=NAMES)])


@pytest.mark.parametrize("strict", [True, False])
def test_a_server_that_only_writes(strict: bool) -> None:
    with serving(Script(Offers(strict=strict), models=None, answer=lambda _: "chatter")) as url:
        model = client(url)
        assert not can_score(model) and "read by the parser" in model.remark
        assert model.generate([Request("Which?", choices=NAMES)]) == ["chatter"]


def test_a_server_that_only_streams() -> None:
    with serving(Script(Offers(streams=True), answer=lambda _: "benign, surely")) as url:
        assert client(url).generate([Request("Which?")]) == ["benign, surely"]


def test_a_model_that_takes_no_images(image: ImageRef) -> None:
    with serving(Script(Offers(images=False))) as url:
        model = client(url)
        assert model.generate([Request("Text?")]) == ["A"]
        with pytest.raises(ModelError, match="takes no images"):
            model.generate([Request("See?", image)])


def later(fault: Callable[[dict[str, Any]], str | None]) -> Callable[[int, dict[str, Any]], str | None]:
    """A fault for requests with a number in the prompt; what is asked first, at loading, goes well."""
    return lambda _number, body: fault(body) if prompt_of(body).startswith("case") else None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_is_asked_through(fault: str) -> None:
    asked: Counter[str] = Counter()

    def first_time(body: dict[str, Any]) -> str | None:
        asked[prompt_of(body)] += 1
        return fault if asked[prompt_of(body)] == 1 else None

    script = Script(answer=lambda body: prompt_of(body).upper(), fault=later(first_time))
    with serving(script) as url:
        requests = [Request(f"case {i}") for i in range(4)]
        assert client(url).generate(requests) == [f"CASE {i}" for i in range(4)]
    assert set(asked.values()) == {2}


@pytest.mark.parametrize("fault", [*FAULTS, "bad_request", "filtered"])
def test_a_fault_that_stays_is_named_and_takes_nobody_along(fault: str) -> None:
    asked: Counter[str] = Counter()

    def third(body: dict[str, Any]) -> str | None:
        asked[prompt_of(body)] += 1
        return fault if prompt_of(body) == "case 2" else None

    script = Script(answer=lambda body: prompt_of(body).upper(), fault=later(third))
    with serving(script) as url, pytest.raises(RequestsFailedError, match="1 of 4 requests") as caught:
        client(url).generate([Request(f"case {i}") for i in range(4)])
    assert caught.value.results == ["CASE 0", "CASE 1", None, "CASE 3"]
    assert [bool(reason) for reason in caught.value.reasons] == [False, False, True, False]
    assert asked == {"case 0": 1, "case 1": 1, "case 3": 1, "case 2": 1 if fault == "bad_request" else 4}


def test_every_fault_at_random_and_none_is_lost_or_doubled() -> None:
    """Some requests come through at once, some later, some never: each has its own answer or a reason."""
    asked: Counter[str] = Counter()

    def at_random(body: dict[str, Any]) -> str | None:
        prompt = prompt_of(body)
        asked[prompt] += 1
        rng = np.random.default_rng([int(prompt.split()[1]), asked[prompt]])
        return str(rng.choice(FAULTS)) if rng.random() < 0.6 else None

    script = Script(answer=lambda body: prompt_of(body).upper(), fault=later(at_random))
    n = 60
    with serving(script) as url:
        with pytest.raises(RequestsFailedError) as caught:
            client(url).generate([Request(f"case {i}") for i in range(n)])
        assert 1 < script.most_under_way <= QUICK.concurrency
    results, reasons = caught.value.results, caught.value.reasons
    assert len(results) == len(reasons) == n
    for i in range(n):
        assert (results[i] == f"CASE {i}") != bool(reasons[i])
    assert any(results) and any(reasons)
    assert max(asked.values()) == QUICK.attempts


def test_retry_after_holds_all_requests_back() -> None:
    first = iter(["busy"])
    script = Script(fault=later(lambda _: next(first, None)))
    with serving(script) as url:
        model = client(url, Patience(concurrency=1, attempts=2, first_wait=0.0, seconds=5))
        assert model.generate([Request("case 0"), Request("case 1")]) == ["A", "A"]
    assert len([body for body in script.seen if prompt_of(body).startswith("case")]) == 3


def test_a_server_that_goes_away_stops_the_work() -> None:
    with serving(Script()) as url:
        model = client(url, Patience(attempts=2, first_wait=0.01))
    with pytest.raises(ModelError, match=r"gives no answer \(cannot be reached.*Start the server") as caught:
        model.generate([Request("case 0"), Request("case 1")])
    assert not isinstance(caught.value, RequestsFailedError)


class TestKeys:
    KEY = "sk-secret-key"

    def test_a_key_is_sent_and_stands_nowhere_else(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG")
        monkeypatch.setenv("GSCO_OPENAI_API_KEY", self.KEY)
        script = Script(key=self.KEY, fault=later(lambda _: "bad_request"))
        with serving(script) as url:
            model = client(url)
            with pytest.raises(RequestsFailedError, match=r"too strange for \*\*\*") as caught:
                model.generate([Request("case 0")])
        told = f"{caught.value} {caught.value.reasons} {model.fingerprint} {model.name} {model._wire!r}"
        assert self.KEY not in told + caplog.text

    @pytest.mark.parametrize("key", [None, "sk-wrong-key"])
    def test_no_key_or_a_wrong_one(self, key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        if key:
            monkeypatch.setenv("OPENAI_API_KEY", key)
        with (
            serving(Script(key=self.KEY)) as url,
            pytest.raises(ModelError, match=r"the key|a key.*Set GSCO_OPENAI_API_KEY") as caught,
        ):
            client(url)
        assert "sk-" not in str(caught.value)

    def test_a_redirect_takes_neither_key_nor_image_elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GSCO_OPENAI_API_KEY", self.KEY)
        elsewhere = Script()
        with (
            serving(elsewhere) as other,
            serving(Script(redirect_to=other)) as url,
            pytest.raises(ModelError, match="redirects to another address, which is not followed"),
        ):
            client(url)
        assert not elsewhere.seen and not elsewhere.headers

    @pytest.mark.parametrize("bad", ["two words", "line\nbreak", "schlüssel"])
    def test_what_is_no_key(self, bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GSCO_OPENAI_API_KEY", bad)
        with pytest.raises(ModelError, match="GSCO_OPENAI_API_KEY: is no key") as caught:
            load_generalist("openai:http://127.0.0.1:9/v1#m")
        assert bad not in str(caught.value)


class TestAtTheDoor:
    """What is wrong from the start is one line with a remedy."""

    def test_nobody_is_there(self) -> None:
        with serving(Script()) as url:
            pass
        with pytest.raises(
            ModelError, match=r"gives no answer \(cannot be reached.*Start the server, or mend"
        ):
            client(url)

    def test_it_lists_no_such_model(self) -> None:
        with serving(Script(models=["other", "more"])) as url:
            with pytest.raises(ModelError, match=f"lists no model '{MODEL}'. It lists: other, more"):
                client(url)
            with pytest.raises(ModelError, match=r"no model named.*#MODEL\. It lists: other, more"):
                OpenAIGeneralist.from_spec(f"openai:{url}", patience=QUICK)

    def test_the_only_model_need_not_be_named(self) -> None:
        with serving(Script()) as url:
            assert OpenAIGeneralist.from_spec(f"openai:{url}", patience=QUICK).name == f"openai:{MODEL}"

    def test_it_speaks_something_else(self) -> None:
        with (
            serving(Script(fault=lambda *_: "list", models=None)) as url,
            pytest.raises(ModelError) as caught,
        ):
            client(url)
        assert "no chat completion" in str(caught.value)

    def test_a_proxy_does_not_stand_between_a_machine_and_itself(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        with serving(Script()) as url:
            assert client(url).generate([Request("case")]) == ["A"]


def test_probing_is_the_same_twice() -> None:
    with serving(Script(Offers(top=20, guide="grammar"))) as url:
        assert client(url).fingerprint == client(url).fingerprint


def test_within_a_running_loop() -> None:
    import asyncio

    async def notebook(url: str) -> list[str]:
        return client(url).generate([Request("case")])

    with serving(Script()) as url:
        assert asyncio.run(notebook(url)) == ["A"]
