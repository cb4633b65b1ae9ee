"""The page of a run: what it says, that it is safe and self-contained, and that it works in a browser."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from functools import lru_cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gsco.cases import ImageRef
from gsco.evaluation.report import file_thumbnail, render_report, wording
from gsco.evaluation.report.cards import make_cards
from gsco.evaluation.report.thumbnails import data_uri, parse_ref, shrink
from gsco.evaluation.summary import summarise

NAMES = {"benign": "benign tumour", "malignant": "malignant tumour", "normal": "normal tissue"}
SPECIALISTS = {"linear-probe": 2.2, "knn": 1.8, "fine-tuned": 2.6, "small-cnn": 1.4}
GENERALISTS = {"generalist": 1.0, "moed": 2.6, "rad": 2.0, "gsco": 3.2}
PROMPT = (
    "You are a helpful radiologist. The image is a breast ultrasound.\n"
    "Options: A. benign tumour, B. malignant tumour, C. normal tissue.\n"
    "Specialists: linear-probe says {0}; knn says {1}.\nAnswer with exactly one option."
)


@lru_cache
def picture(seed: int, side: int = 100) -> bytes:
    """A grey speckle with a dark oval, encoded as JPEG."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    oval = (x / (0.15 + 0.15 * rng.random())) ** 2 + (y / (0.1 + 0.1 * rng.random())) ** 2 < 1
    grey = np.clip(120 + 40 * rng.standard_normal((side, side)) - 80 * oval - 60 * y, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(grey).save(out, "JPEG", quality=80)
    return out.getvalue()


def made_up_run(n: int = 50, names: dict[str, str] = NAMES, seed: int = 4) -> dict[str, Any]:
    """Input of the page as a run would give it, from a seeded simulation."""
    rng = np.random.default_rng(seed)
    keys = list(names)
    lines: list[dict[str, Any]] = []
    for i in range(n):
        case_id = f"images/{names[keys[0]].split()[0]}_{i:03}.png"
        truth = int(rng.choice(len(keys), p=rng.dirichlet(np.full(len(keys), 60.0))))
        hard = rng.random() < 0.35

        def draw(skill: float, truth: int = truth, hard: bool = hard) -> np.ndarray:
            return rng.dirichlet(0.4 + (0.4 if hard else 1.0) * skill * (np.arange(len(keys)) == truth))

        opinions = {name: draw(skill) for name, skill in SPECIALISTS.items()}
        mean = np.mean(list(opinions.values()), axis=0)
        votes = np.bincount([int(p.argmax()) for p in opinions.values()], minlength=len(keys)) + mean / 10
        neighbours = [
            {
                "case_id": f"images/train_{int(rng.integers(60)):03}.png",
                "similarity": round(0.97 - 0.02 * j, 4),
                "labels": [keys[int(draw(1.5).argmax())]],
                "dataset": "made-up",
                "index_version": "3f9c2a",
            }
            for j in range(10)
        ]
        nearest = np.bincount([keys.index(x["labels"][0]) for x in neighbours], minlength=len(keys))
        evidence = {
            "opinions": [
                {"specialist": name, "probabilities": [round(float(x), 4) for x in p], "reliability": 0.81}
                for name, p in opinions.items()
            ],
            "neighbours": neighbours,
            "neighbour_reliability": 0.57,
        }
        said = {name: draw(skill) for name, skill in GENERALISTS.items()}
        arms: dict[str, tuple[str, np.ndarray]] = {
            **{name: ("generalist", p) for name, p in said.items()},
            "best_specialist": ("control", opinions["fine-tuned"]),
            "majority_vote": ("control", votes),
            "mean_probability": ("control", mean),
            "neighbour_vote": ("control", nearest.astype(float)),
            **{f"specialist:{name}": ("specialist", p) for name, p in opinions.items()},
        }
        for arm, (kind, p) in arms.items():
            unread = arm == "generalist" and i % 17 == 3
            scored = arm not in ("majority_vote", "neighbour_vote")
            prediction = keys[int(p.argmax())]
            lines.append(
                {
                    "schema": 1,
                    "case_id": case_id,
                    "cluster": f"cluster-{i // 2}",
                    "arm": arm,
                    "kind": kind,
                    "split": "test",
                    "reference": keys[truth],
                    "prediction": None if unread else prediction,
                    "probabilities": dict(zip(keys, map(float, p), strict=True))
                    if scored and not unread
                    else None,
                    "uncalibrated": dict(zip(keys, map(float, p**3 / (p**3).sum()), strict=True))
                    if arm == "gsco"
                    else None,
                    "prompt": PROMPT.format(prediction, prediction) if kind == "generalist" else None,
                    "raw": ("hm, hard to say" if unread else names[prediction])
                    if kind == "generalist"
                    else None,
                    "template": "evidence" if kind == "generalist" else None,
                    "evidence": evidence if kind == "generalist" else None,
                    "image": case_id,
                }
            )
    metrics = summarise(
        lines,
        dataset="made-up",
        task="diagnosis",
        options=[{"key": key, "name": name} for key, name in names.items()],
        seed=1,
        n_resamples=300,
        n_shuffles=999,
    )
    ids = {x["case_id"] for line in lines if line["evidence"] for x in line["evidence"]["neighbours"]}
    return {
        "metrics": metrics,
        "lines": lines,
        "config": {
            "data": "made-up",
            "seed": 1,
            "arms": ["generalist", "gsco"],
            "neighbours": 10,
            "mode": "score",
        },
        "environment": {
            "python": "3.11",
            "cpu": "made-up processor",
            "packages": {"numpy": "2.4", "torch": None},
        },
        "extras": {
            "modality": "breast ultrasound",
            "synthetic": True,
            "specialists": [
                {
                    "name": name,
                    "reliability": 0.7 + skill / 20,
                    "description": "frozen features",
                    "epochs": 12,
                }
                for name, skill in SPECIALISTS.items()
            ],
            "best_specialist": "fine-tuned",
            "generalist": {"name": "scripted", "fingerprint": "ab12cd34"},
            "index": {"cases": 500, "version": "3f9c2a", "backbone": "efficientnet-lite0"},
            "leakage": ["2 near-duplicates of test cases were left out of the index"],
            "card": {"licence": "CC BY 4.0", "source": "made up for this test"},
            "calibration": {
                "schema": 1,
                "arms": {"gsco": {"n": 48, "temperature": 1.4321}},
            },
            "skipped": ["images/broken_7.png: is truncated"],
            "images": {case_id: case_id for case_id in ids},
        },
        "thumbnail": lambda ref: picture(int(re.sub(r"\D", "", ref) or 0)),
    }


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    return made_up_run()


@pytest.fixture(scope="module")
def page(given: dict[str, Any]) -> str:
    return render_report(**given)


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


ROW = {"a": "gsco", "b": "best_specialist", "metric": "macro_f1"}


@pytest.mark.parametrize(
    ("difference", "low", "high", "p", "expected"),
    [
        (0.03, -0.02, 0.08, 0.21, "not distinguishable"),
        (0.05, 0.01, 0.09, 0.01, "better"),
        (-0.05, -0.09, -0.01, 0.01, "worse"),
        (0.05, 0.001, 0.09, 0.06, "not distinguishable"),  # interval and corrected p-value disagree
        (0.05, -0.001, 0.09, 0.04, "not distinguishable"),
        (0.05, None, None, 0.04, "not distinguishable"),
    ],
)
def test_the_verdict_claims_no_more_than_the_tests_allow(difference, low, high, p, expected) -> None:
    row = {**ROW, "difference": difference, "low": low, "high": high, "p_value": p / 3, "p_holm": p}
    assert wording.outcome_text(row) == expected


def test_the_verdict_in_one_sentence() -> None:
    row = {**ROW, "difference": 0.03, "low": -0.02, "high": 0.08, "p_value": 0.21, "p_holm": 0.42}
    arms = {
        "gsco": {"macro_f1": {"value": 0.81, "low": 0.74, "high": 0.87}},
        "best_specialist": {"macro_f1": {"value": 0.78, "low": 0.7, "high": 0.85}},
    }
    assert wording.comparison_sentence(row, arms) == (
        "GSCo (both): macro-F1 .810 [.740, .870] against .780 [.700, .850] for the best specialist; "
        "difference +.030 [−.020, .080], p = .21 (Holm p = .42): not distinguishable."
    )
    assert wording.headline([row], "gsco") == (
        "By macro-F1, GSCo could not be told apart from the best specialist."
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.8123, ".812"), (1.0, "1.000"), (0.0, ".000"), (-0.02, "−.020"), (-0.0001, ".000"), (None, "–")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert wording.number(value) == text


@pytest.mark.parametrize(
    "ref",
    [
        ImageRef(Path("images/a b.png")),
        ImageRef(Path("x/busi:1.png")),
        ImageRef(Path("data/breastmnist.npz"), "test_images", 17),
        ImageRef(Path("scan.dcm"), None, 3),
    ],
    ids=str,
)
def test_image_references_are_read_back(ref: ImageRef) -> None:
    assert parse_ref(str(ref)) == ref


def test_file_thumbnail_reads_files_and_arrays_and_survives_missing_ones(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture(1, 300))
    large = file_thumbnail("a.jpg", root=tmp_path)
    assert large is not None
    assert Image.open(io.BytesIO(large)).size == (224, 224)
    np.savez(tmp_path / "d.npz", test_images=np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28))
    small = file_thumbnail(str(ImageRef(tmp_path / "d.npz", "test_images", 2)))
    assert small is not None
    assert small.startswith(b"\x89PNG")
    assert Image.open(io.BytesIO(small)).size == (28, 28)
    assert file_thumbnail("missing.png", root=tmp_path) is None
    (tmp_path / "text.png").write_text("no picture")
    assert file_thumbnail("text.png", root=tmp_path) is None


def test_shrink_and_data_uri() -> None:
    assert Image.open(io.BytesIO(shrink(picture(2, 200), 72))).size == (72, 72)
    assert shrink(b := picture(2, 50), 72) == b
    assert (data_uri(picture(3)) or "").startswith("data:image/jpeg;base64,")
    assert data_uri(b"<svg/>") is None


CHROMIUM = os.environ.get("GSCO_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser(browser: Any, page: str, tmp_path: Path, width: int, scheme: str) -> None:
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    asked: list[str] = []
    said: list[str] = []
    tab = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    try:
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(path.as_uri())
        tab.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        wide = tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1], "the page scrolls sideways"
        total = tab.locator(".case:visible").count()
        for kind in ("repaired", "broken", "wrong", "all"):
            button = tab.locator(f".filters button[data-show={kind}]")
            button.click()
            expected = total if kind == "all" else tab.locator(f".case[data-tags~={kind}]").count()
            assert tab.locator(".case:visible").count() == expected > 0
            assert str(expected) in button.inner_text()
            assert button.get_attribute("aria-pressed") == "true"
            assert tab.locator(".filters button[aria-pressed=true]").count() == 1
        tab.evaluate("Promise.all([...document.images].map(i => i.decode()))")  # rejects a broken picture
    finally:
        tab.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_many_long_names_fit_a_phone(browser: Any, tmp_path: Path) -> None:
    names = {f"k{i}": f"histiocytofibromatous{'o' * 20} lesion {i}" for i in range(9)}
    given = made_up_run(30, names)
    given["metrics"]["dataset"] = "a" * 80
    for line in given["lines"]:
        line["case_id"] += "/" + "deep" * 30
    path = tmp_path / "report.html"
    path.write_text(render_report(**given), encoding="utf-8")
    tab = browser.new_page(viewport={"width": 390, "height": 844})
    try:
        tab.goto(path.as_uri())
        tab.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        wide = tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1], "the page scrolls sideways"
    finally:
        tab.close()
