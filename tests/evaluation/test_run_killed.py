"""Kill -9 at any moment, then resume: the same bytes as a run nobody touched."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gsco.evaluation.config import RunConfig

CLI = (sys.executable, "-m", "gsco")
SAME = (
    "metrics.json",
    "cases.jsonl",
    "calibration.json",
    "calibration.jsonl",
    "pool.json",
    "specialists.json",
    "leakage.json",
    "dataset.json",
    "config.yaml",
)

SCRIPT = """
import json, os, resource, signal, sys
from pathlib import Path
import gsco
from gsco.errors import UserError
from gsco.generalist.scripted import ScriptedGeneralist

job = json.loads(sys.argv[1])

class Mortal(ScriptedGeneralist):
    calls = 0
    def score_options(self, requests):
        Mortal.calls += 1
        if Mortal.calls == job.get("die_at_call"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score_options(requests)

if "file_limit" in job:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_limit"], resource.RLIM_INFINITY))
out, cache = Path(job["out"]), Path(job["cache"])
generalist = Mortal("percent")
try:
    if (out / "config.yaml").exists():
        gsco.resume(out, generalist=generalist, cache=cache)
    else:
        gsco.run(gsco.RunConfig(**job["config"]), out, generalist=generalist, cache=cache)
except UserError as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(2)
print("calls", Mortal.calls)
"""


@pytest.fixture
def start(
    phantom_folder: Path, feature_cache: Path, tmp_path: Path, quick: dict[str, Any]
) -> Callable[..., subprocess.Popen[str]]:
    """Start (or resume) the run in another process."""

    def go(**changes: Any) -> subprocess.Popen[str]:
        job = {
            "out": str(tmp_path / "run"),
            "cache": str(feature_cache),
            "config": {"data": str(phantom_folder), **quick},
            **changes,
        }
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SCRIPT), json.dumps(job)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return go


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def assert_same(run: Path, whole: Path) -> None:
    for name in SAME:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert not list(run.rglob("*.tmp"))


def test_killed_at_random_moments(
    start: Callable[..., subprocess.Popen[str]], finished_run: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "run" / "run.lock"
    stages = json.loads((finished_run / "timing.json").read_text())["sessions"][0]["stages"]
    whole = sum(stage["seconds"] for stage in stages)
    for seed in range(3):
        process = start(cache=str(tmp_path / "cache"))  # its features are not there yet
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:  # until this process has the run
            if lock.exists() and lock.read_text() == str(process.pid):
                break
            time.sleep(0.005)
        time.sleep(random.Random(seed).uniform(0.0, 0.3 * whole))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL  # it was still at work
    finish(start())
    assert_same(tmp_path / "run", finished_run)


@pytest.mark.parametrize("log_name", ["calibration.jsonl", "cases.jsonl"])
def test_killed_while_asking_repeats_no_batch(
    log_name: str, start: Callable[..., subprocess.Popen[str]], finished_run: Path, tmp_path: Path
) -> None:
    fits = json.loads((finished_run / "calibration.json").read_text())["arms"]
    batches = -(-fits["gsco"]["n"] // 2)  # of two cases, before the first that is answered
    before = 0 if log_name == "calibration.jsonl" else batches
    process = start(die_at_call=before + 3)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    log = tmp_path / "run" / log_name
    assert len({json.loads(line)["case_id"] for line in log.read_text().splitlines()}) == 4  # two batches
    with log.open("a") as stream:  # a write that the kill cut short
        stream.write('{"schema":1,"case_id":"images/phantom_000')
    said = finish(start())
    n = json.loads((finished_run / "metrics.json").read_text())["n"]
    assert said.split() == ["calls", str(batches + -(-n // 2) - before - 2)]
    assert_same(tmp_path / "run", finished_run)


def test_a_disk_that_fills_while_answering_loses_nothing(
    start: Callable[..., subprocess.Popen[str]], finished_run: Path, tmp_path: Path
) -> None:
    """The kernel refuses to let the log grow beyond half of its length, as it does when space is out."""
    start(die_at_call=1).communicate()
    whole = (finished_run / "cases.jsonl").read_bytes()
    process = start(file_limit=len(whole) // 2)
    out, err = process.communicate()
    assert process.returncode == 2, err
    assert len(out.splitlines()) == 1
    assert re.search(r"^StorageError: .*cases\.jsonl: no space left to write to. Free some space", out)
    kept = (tmp_path / "run" / "cases.jsonl").read_bytes()
    assert kept.endswith(b"\n")
    assert whole.startswith(kept)
    finish(start())
    assert_same(tmp_path / "run", finished_run)


def test_an_interrupt_says_how_to_go_on(
    phantom_folder: Path, feature_cache: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (tmp_path / "config.yaml").write_text(RunConfig(data=phantom_folder, **quick).to_yaml())
    process = subprocess.Popen(
        [
            *CLI,
            "run",
            "--config",
            str(tmp_path / "config.yaml"),
            "--out",
            str(out),
            "--cache",
            str(feature_cache),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # a shell's background job ignores the signal, and its children would, too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not (out / "config.yaml").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == f"gsco: interrupted; continue with `gsco run --resume {out}`"
    assert "Traceback" not in err
