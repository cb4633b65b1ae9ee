"""The page of a run: what it says, and that it is safe and self-contained."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

from made_up_runs import made_up_run
from PIL import Image

from gsco.evaluation.report import render_report, wording
from gsco.evaluation.report.cards import make_cards
from gsco.evaluation.summary import summarise


class Outline(HTMLParser):
    """Tags with attributes, and the text outside style and script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._mute = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._mute = tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._mute = False

    def handle_data(self, data: str) -> None:
        if not self._mute:
            self.text += data


def test_it_says_what_it_must(page: str, given: dict[str, Any]) -> None:
    cooled = given["metrics"]["arms"]["gsco"]
    text = " ".join(Outline(page).text.split())
    for expected in (
        "made-up",
        "breast ultrasound",
        "Research use only. Not a medical device.",
        "Synthetic images.",
        "Did the collaboration help?",
        "fine-tuned",
        "2 near-duplicates of test cases",
        "images/broken_7.png: is truncated",
        "CC BY 4.0",
        "made-up processor",
        "300 resamples",
        "999 shuffles",
        "hm, hard to say",
        "asked about 48 labelled validation cases",
        f"1.43{wording.number(cooled['ece_uncalibrated'])}{wording.number(cooled['ece']['value'])}",
        wording.headline(given["metrics"]["comparisons"], "gsco"),
    ):
        assert expected in text, expected
    gsco = given["metrics"]["arms"]["gsco"]["macro_f1"]
    assert f"{wording.number(gsco['value'])}{wording.interval(gsco)}" in text.replace("] ", "]")


def test_no_banner_without_phantoms(given: dict[str, Any]) -> None:
    html = render_report(**{**given, "extras": {}})
    assert "Synthetic images." not in html
    assert "Research use only" in html


def test_nothing_is_fetched(page: str) -> None:
    for tag, attrs in Outline(page).tags:
        for name in ("src", "href", "srcset", "action", "poster", "data", "xlink:href"):
            value = attrs.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    assert not re.search(r"url\(|@import|https?://", page)


def test_pictures_are_small_and_described(page: str) -> None:
    pictures = [attrs for tag, attrs in Outline(page).tags if tag == "img"]
    assert len(pictures) > 20
    for attrs in pictures:
        assert attrs["alt"]
        content = base64.b64decode((attrs["src"] or "").split(",", 1)[1])
        assert max(Image.open(io.BytesIO(content)).size) <= 224


def test_it_is_accessible_in_form(page: str) -> None:
    tags = Outline(page).tags
    assert [tag for tag, _ in tags].count("h1") == 1
    assert ("html", {"lang": "en"}) in tags
    assert page.count("<table") == page.count("<caption")
    assert all(attrs.get("aria-label") for tag, attrs in tags if tag == "svg")
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch("h[1-6]", tag)]
    assert all(b - a <= 1 for a, b in pairwise(levels))
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for tag, attrs in tags if tag == "a" and attrs["href"]} <= set(ids)


def test_everything_is_escaped() -> None:
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    given = made_up_run(12, {"a": f"one {evil}", "b": f"two {evil}", "c": "three"})
    for line in given["lines"]:
        line["case_id"] += evil
        line["image"] = evil
        if line["prompt"]:
            line["prompt"] += evil
            line["raw"] += f"</pre></code>{evil}"
            for opinion in line["evidence"]["opinions"]:
                opinion["specialist"] = evil
            for neighbour in line["evidence"]["neighbours"]:
                neighbour["case_id"] = evil
                neighbour["index_version"] = evil
    given["metrics"]["dataset"] = evil
    given["metrics"]["arms"][f"specialist:{evil}"] = given["metrics"]["arms"].pop("specialist:knn")
    hostile = {evil: evil, "list": [evil], "map": {evil: evil}}
    given["config"] = given["environment"] = hostile
    given["extras"] = {
        "modality": evil,
        "specialists": [{"name": evil, "description": evil, evil: evil}],
        "best_specialist": evil,
        "generalist": hostile,
        "index": evil,
        "leakage": [evil],
        "card": hostile,
        "skipped": [evil],
        "notes": [evil],
        "images": {evil: evil},
    }
    given["thumbnail"] = lambda ref: b"<svg onload=alert(1)>"
    html = render_report(**given)
    tags = Outline(html).tags
    assert [tag for tag, _ in tags].count("script") == 1
    assert not [tag for tag, _ in tags if tag == "img"]
    assert not [name for _, attrs in tags for name in attrs if name.startswith("on")]
    assert "<svg onload" not in html


def test_same_input_same_bytes(given: dict[str, Any], page: str) -> None:
    assert render_report(**given) == page
    assert render_report(**{**given, "lines": list(reversed(given["lines"]))}) == page


def test_metrics_that_went_through_json_are_the_same(given: dict[str, Any], page: str) -> None:
    assert render_report(**{**given, "metrics": json.loads(json.dumps(given["metrics"]))}) == page


def test_cards_are_the_disagreements_repaired_and_broken_first(given: dict[str, Any]) -> None:
    metrics, lines = given["metrics"], given["lines"]
    settings = {"split": "test", "options": metrics["options"], "images": {}, "thumbnail": None}
    cards = make_cards(lines, limit=1000, **settings)
    assert cards.focus == "gsco"
    assert {card.neighbour_reliability for card in cards.shown} == {".57"}
    said: dict[str, set[str | None]] = {}
    for line in lines:
        if line["kind"] != "specialist":
            said.setdefault(line["case_id"], set()).add(line["prediction"])
    assert {card.case_id for card in cards.shown} == {
        case for case, answers in said.items() if len(answers) > 1
    }
    assert cards.counts["repaired"] == metrics["repairs"]["gsco"]["repaired"] > 0
    assert cards.counts["broken"] == metrics["repairs"]["gsco"]["broken"] > 0
    few = make_cards(lines, limit=2, **settings)
    assert (len(few.shown), few.total) == (2, cards.total)
    assert all({"repaired", "broken"} & set(card.tags) for card in few.shown)


def test_a_cap_is_said(given: dict[str, Any]) -> None:
    total = make_cards(
        given["lines"],
        split="test",
        options=given["metrics"]["options"],
        images={},
        thumbnail=None,
        limit=1,
    ).total
    html = render_report(**given, max_cases=5)
    assert html.count('<article class="case"') == 5
    assert f"Shown are 5 of {total} such cases" in html


def test_a_run_of_controls_alone_has_a_page() -> None:
    given = made_up_run(20)
    lines = [line for line in given["lines"] if line["kind"] != "generalist"]
    options = given["metrics"]["options"]
    metrics = summarise(lines, dataset="d", task="diagnosis", options=options, n_resamples=100, n_shuffles=99)
    html = render_report(metrics=metrics, lines=lines, config={}, environment={})
    assert "no comparison of the collaboration" in html


def test_many_options_have_a_page() -> None:
    names = {f"k{i}": f"finding number {i}" for i in range(9)}
    html = render_report(**made_up_run(30, names))
    assert "finding number 8" in html
