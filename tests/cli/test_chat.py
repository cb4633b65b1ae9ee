"""``gsco generalist chat``: one question, several, a conversation, and a server's faults in it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from generalist.scripted_server import MODEL, Script, prompt_of, serving
from gsco.cli import main


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    Image.new("RGB", (32, 32), (90, 90, 90)).save(tmp_path / "scan.png")
    return tmp_path / "scan.png"


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["generalist", "chat", *arguments])
    return int(left.value.code or 0)


def test_questions_in_turn_as_json(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = Script(answer=lambda body: f"{prompt_of(body)} {len(body['messages'])}")
    with serving(script) as url:
        spec = f"openai:{url}#{MODEL}"
        assert run(str(scan), "--generalist", spec, "--ask", "One?", "--ask", "Two?", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["answers"] == [
        {"question": "One?", "answer": "One? 1"},
        {"question": "Two?", "answer": "Two? 3"},  # it heard the first turn, too
    ]
    assert told["generalist"] == f"openai:{MODEL}" and "not a medical device" in told["notice"]


def test_a_conversation(
    scan: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter(["/describe", "nonsense please", "/unknown", "/again", "/report", "/quit"])
    monkeypatch.setattr("builtins.input", lambda *_: next(said))
    script = Script(
        answer=lambda body: f"[{len(body['messages'])}] fine",
        fault=lambda _, body: "bad_request" if "nonsense" in prompt_of(body) else None,
    )
    with serving(script) as url:
        assert run(str(scan), "--generalist", f"openai:{url}#{MODEL}") == 0
    out = capsys.readouterr().out
    assert out.count("[1] fine") == 2 and "[3] fine" not in out  # /again forgot the description
    assert "1 of 1 requests have no answer" in out and "/describe" in out


def test_mistakes_are_one_line(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(scan), "--json") == 2
    assert run(str(scan.parent / "none.png"), "--ask", "x") == 2
    assert run(str(scan), "--generalist", "openai:ftp://x/v1#m", "--ask", "x") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line for line in lines if line.startswith("gsco: ")][-1].endswith(
        "is not the address of a server. Write openai:http://HOST:PORT/v1#MODEL."
    )
