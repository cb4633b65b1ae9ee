"""The command line as a person meets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gsco.cli import main

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Call the command line, insist on one line and exit code 2, and give the line."""

    def call(*arguments: str | Path) -> str:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        assert left.value.code == 2, shown.err
        assert "Traceback" not in shown.err
        assert shown.out == ""
        told = [line for line in shown.err.splitlines() if line.startswith("gsco: ")]
        assert told == [shown.err.splitlines()[-1]]
        return told[0]

    return call
