"""The page in a real browser: at a desk and on a phone, by day and by night."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import made_up_run

from gsco.evaluation.report import render_report

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
