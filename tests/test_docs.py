"""What README and docs show is run: the Python as it stands, the commands up to their options, the links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from gsco.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def blocks(page: Path, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def commands(page: Path) -> Iterator[list[str]]:
    """Every ``gsco …`` of shell blocks and of code in running text."""
    text = page.read_text(encoding="utf-8")
    inline = re.findall(
        r"`(gsco [^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    )
    for line in [*"\n".join(blocks(page, "sh", "")).splitlines(), *inline]:
        words = shlex.split(line, comments=True)
        if words[:1] == ["gsco"]:
            yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_commands_shown_are_understood(page: Path) -> None:
    root: Any = typer.main.get_command(app)
    for words in commands(page):
        command, rest, path = root, list(words), "gsco"
        while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
            assert rest[0] in command.commands, f"{path} has no command {rest[0]}"
            command, path = command.commands[rest[0]], f"{path} {rest[0]}"
            rest = rest[1:]
        if rest and "--help" not in rest and not any(word.isupper() for word in rest):
            try:
                command.make_context(path, rest).close()
            except typer.BadParameter as error:  # running text may name a command without all that it needs
                assert "Missing" in error.format_message(), f"{path}: {error.format_message()}"


def test_some_commands_are_shown() -> None:
    shown = {words[0] for words in commands(ROOT / "README.md")}
    assert {"run", "diagnose", "phantoms"} <= shown


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_make_targets_shown_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(r"^make (\w+)", "\n".join(blocks(page, "sh")), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands, but with a generalist that needs no weights, so that it takes seconds."""
    (block,) = blocks(ROOT / "README.md", "python")
    assert block.count('generalist="nano"') == 1
    monkeypatch.chdir(tmp_path)
    exec(compile(block.replace('"nano"', '"scripted:percent"'), "README.md", "exec"), {})  # our own text
    shown = capsys.readouterr().out
    assert re.search(r"^gsco +0\.\d{3} \(0\.\d{3}–\d\.\d{3}\)$", shown, re.MULTILINE)
    assert "By macro-F1, GSCo" in shown
    assert (tmp_path / "runs" / "phantoms" / "report.html").is_file()
    assert re.search(r"^linear_probe( \(best\))? \w+$", shown, re.MULTILINE)
