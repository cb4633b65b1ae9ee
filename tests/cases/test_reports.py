"""Reading a report's two parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsco.cases.reports import Report, parse_report

LINE = st.text(st.characters(whitelist_categories=("Ll", "Lu", "Nd"), whitelist_characters=" ,-"), min_size=1)
PLAIN = LINE.map(str.strip).filter(
    lambda text: text.strip("-, ") == text != "" and text.lower() not in ("findings", "finding", "impression")
)


@given(PLAIN, PLAIN)
def test_what_is_written_is_read_back(findings: str, impression: str) -> None:
    report = Report(f"Seen: {findings}.", f"So: {impression}.")
    assert parse_report(report.text) == report


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    report = parse_report(text)
    assert report.findings in text.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize(
    "text",
    [
        "Findings: Clear lungs.\nImpression: Normal chest.",
        "**Findings:** Clear lungs.\n\n**Impression:** Normal chest.",
        "## FINDINGS\nClear lungs.\n\n## IMPRESSIONS\nNormal chest.",
        "Here is it.\n1. Findings: Clear lungs.\n2. Impression: Normal chest.",
        "Findings: Clear lungs. Impression: Normal chest.",
    ],
)
def test_headings_as_models_write_them(text: str) -> None:
    assert parse_report(text) == Report("Clear lungs.", "Normal chest.")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Clear lungs.",
        "Findings: Clear.",
        "Findings: a.\nImpression: b.\nFindings: c.",
        "Impression:\nFindings:",
    ],
)
def test_half_a_report_is_not_whole(text: str) -> None:
    assert not parse_report(text).whole
