"""`load_generalist` says in one line what is wrong with a model folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gsco.errors import ModelError, UserError
from gsco.generalist import Request, load_generalist
from gsco.generalist.scripted import ScriptedGeneralist
from gsco.generalist.transformers_backend import TransformersGeneralist
from gsco.generalist.vlm import LoadOptions

from .tiny import save_tiny_internvl


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_scripted_by_name() -> None:
    assert isinstance(load_generalist("scripted:first"), ScriptedGeneralist)
    with pytest.raises(UserError, match="percent"):
        load_generalist("scripted:nonsense")


def test_a_merged_nano(base: Path, tmp_path: Path) -> None:
    """A whole MedDr-nano in one folder is MedDr-nano, too."""
    generalist = load_generalist(str(base))
    assert generalist.name == "meddr-nano"
    assert generalist.fingerprint.startswith("meddr-nano:merged:")
    request = Request("Options: A, B", None, ("A", "B"))
    assert sum(generalist.score_options([request])[0].probabilities) == pytest.approx(1)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        load_generalist(str(tmp_path / "none"))
    assert "there is no such model folder" in one_line(error)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        load_generalist(str(tmp_path))
    assert "no config.json" in one_line(error)


def test_another_architecture(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError) as error:
        load_generalist(str(tmp_path))
    assert "'llama' model" in one_line(error)


def test_a_damaged_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError) as error:
        load_generalist(str(tmp_path))
    one_line(error)


def test_a_model_without_processor(tmp_path: Path) -> None:
    save_tiny_internvl(tmp_path)
    for path in tmp_path.iterdir():
        if path.name not in ("config.json", "model.safetensors", "generation_config.json"):
            path.unlink()
    with pytest.raises(ModelError) as error:
        load_generalist(str(tmp_path))
    one_line(error)


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    generalist = load_generalist(str(save_tiny_internvl(tmp_path)))
    assert isinstance(generalist, TransformersGeneralist)
    again = load_generalist(str(tmp_path))
    assert again.fingerprint == generalist.fingerprint
    other = load_generalist(str(save_tiny_internvl(tmp_path / "other", seed=1)))
    assert other.fingerprint != generalist.fingerprint


def test_options_behind_a_question_mark(tmp_path: Path) -> None:
    folder = save_tiny_internvl(tmp_path / "model")
    plain = load_generalist(str(folder))
    half = load_generalist(f"{folder}?dtype=bfloat16&device=cpu")
    assert isinstance(half, TransformersGeneralist)
    assert half.model.dtype == torch.bfloat16
    assert half.fingerprint != plain.fingerprint
    mapped = load_generalist(f"{folder}?device_map=auto")
    assert isinstance(mapped, TransformersGeneralist)
    assert {parameter.device.type for parameter in mapped.model.parameters()} <= {"cpu", "cuda"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("dtype=float7", "no dtype 'float7'"),
        ("device=nowhere", "cannot be loaded"),
        ("quantization=3bit", "no quantization '3bit'. Choose 4bit or 8bit"),
        ("device_map=nowhere", "cannot be loaded"),
        ("colour=red", "no option 'colour'. There are: dtype, device, device_map, quantization"),
        ("red", "no option 'red'"),
    ],
)
def test_a_bad_option_is_one_line(tmp_path: Path, options: str, said: str) -> None:
    with pytest.raises(ModelError) as error:
        load_generalist(f"{save_tiny_internvl(tmp_path)}?{options}")
    assert said in one_line(error)


def test_quantised_weights_name_what_they_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install bitsandbytes"):
        LoadOptions(quantization="4bit").arguments()
    with pytest.raises(ModelError, match="no such option"):
        load_generalist("nano?dtype=bfloat16")


@pytest.mark.nano
def test_nano_in_int8_is_another_generalist() -> None:
    exact, rough = load_generalist("nano"), load_generalist("nano?dtype=int8")
    request = Request(
        "Options:\n- benign\n- malignant\nAnswer with one option.", None, ("benign", "malignant")
    )
    (first,), (second,) = exact.score_options([request]), rough.score_options([request])
    assert exact.fingerprint != rough.fingerprint
    assert 0 < abs(first.probabilities[0] - second.probabilities[0]) < 0.1
