"""The comparison page in a real browser: at a desk and on a phone, by day and by night."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gsco.evaluation.comparison.compare import Comparison
from gsco.evaluation.comparison.figures import judge
from gsco.evaluation.report.comparison import render_comparison
from gsco.evaluation.summary import ArmAnswers, rounded

CHROMIUM = os.environ.get("GSCO_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
KEYS = tuple(f"k{i}" for i in range(9))
NAMES = [f"specialist_with_a_rather_long_name_{i} (runs/first/specialists/knn)" for i in range(9)]


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """Nine specialists with long names on nine options, from a seeded simulation."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 9, 90)
    ids = tuple(f"c{i:02}" for i in range(90))

    def arm(name: str, skill: float) -> ArmAnswers:
        p = rng.dirichlet(np.ones(9), size=90) + skill * np.eye(9)[truth]
        p /= p.sum(axis=1, keepdims=True)
        return ArmAnswers(name, "specialist", ids, ids, truth, p.argmax(axis=1), p, 9)

    answers = {name: arm(name, 0.1 * i) for i, name in enumerate(NAMES)}
    figures = {name: judge(each, KEYS, n_resamples=50) for name, each in answers.items()}
    team = arm("team", 0.9)
    together = judge(team, KEYS, n_resamples=50)
    alike = {"precision_at_10": figures[NAMES[0]]["accuracy"], "map": figures[NAMES[0]]["accuracy"]}
    row = {"difference": 0.1, "low": -0.02, "high": 0.2, "p_value": 0.04, "metric": "macro_f1", "a": "team"}
    result: dict[str, Any] = {
        "dataset": "made-up-" * 8,
        "modality": "breast ultrasound",
        "n": 90,
        "n_clusters": 80,
        "n_validation": 40,
        "options": [{"key": key, "name": f"histiocytofibromatous lesion {key}"} for key in KEYS],
        "multi_label": False,
        "n_per_class": dict.fromkeys(KEYS, 10),
        "notes": ["3 broken images skipped"],
        "method": {"seed": 0, "n_resamples": 50},
        "specialists": figures,
        "team": {"members": NAMES[3:], **together},
        "best_specialist": NAMES[8],
        "mean_of_all": together,
        "choice": {"reason": "Left out, with what each would add.", "left_out": {n: {} for n in NAMES[:3]}},
        "comparisons": [{**row, "b": "best_specialist"}, {**row, "b": "mean_of_all"}],
        "sets": {
            name: {"stated": 0.9, "threshold": 0.2, "coverage": 0.911, "mean_size": 2.34, "single": 0.4}
            for name in [*NAMES, "team"]
        },
        "agreement": {
            "names": NAMES,
            "same_answer": rng.random((9, 9)).tolist(),
            "both_wrong": rng.random((9, 9)).tolist(),
            "all_wrong": 0.01,
        },
        "embeddings": {
            "n_searched": 100,
            "n_asked": 90,
            "best": {"specialist": NAMES[1], "kind": "unpooled"},
            "specialists": {
                name: {
                    kind: {**alike, "chance": 0.11, "validation_map": 0.3} for kind in ("pooled", "unpooled")
                }
                for name in NAMES
            },
        },
        "about": {
            name: {
                "recipe": "linear_probe:tf_efficientnet_lite0",
                "size_mb": 13.7,
                "parameters": 6403,
                "backbone_parameters": 3_371_008,
            }
            for name in NAMES
        },
    }
    timing = {name: {"ms_single": 12.3, "ms_batch": 4.5, "images": 16, "threads": 1} for name in NAMES}
    return Comparison(rounded(result), timing, {**answers, "team": team}, {})


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_many_long_names_fit_every_screen(comparison: Comparison, tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    path = tmp_path / "comparison.html"
    path.write_text(render_comparison(comparison), encoding="utf-8")
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for width, scheme in ((390, "light"), (1280, "dark")):
            asked: list[str] = []
            said: list[str] = []
            tab = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
            tab.on("request", lambda request, asked=asked: asked.append(request.url))
            tab.on("console", lambda message, said=said: said.append(message.text))
            tab.goto(path.as_uri())
            wide = tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide[0] <= wide[1], "the page scrolls sideways"
            assert said == []
            assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
            assert tab.locator(".team-members li:not(.out)").count() == 6
        browser.close()
