"""A made-up run and its page, for the tests that read it and those that open it in a browser."""

from __future__ import annotations

from typing import Any

import pytest
from made_up_runs import made_up_run

from gsco.evaluation.report import render_report


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    return made_up_run()


@pytest.fixture(scope="module")
def page(given: dict[str, Any]) -> str:
    return render_report(**given)
