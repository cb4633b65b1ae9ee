"""A card says what the folder says, and names what it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gsco.cli import main
from gsco.errors import ModelError
from gsco.generalist.card import MARK, make_card
from gsco.generalist.nano.assemble import weights_folder

from .tiny import save_tiny_internvl


def test_a_model_that_says_little(tmp_path: Path) -> None:
    text = make_card(save_tiny_internvl(tmp_path / "tiny"))
    assert text.startswith("---\nlibrary_name: transformers\n")
    assert "license" not in text
    assert (
        "Its licence, what it was made from, the data and settings of its training and how well it does:"
        in text
    )
    assert "`internvl` of transformers" in text
    assert "28 x 28 px, 1 visual tokens" in text
    assert "not a medical device" in text


def test_what_the_folder_says_is_told(tmp_path: Path) -> None:
    folder = save_tiny_internvl(tmp_path / "tiny")
    record = {
        "source": "some/MedDr",
        "licence": "mit",
        "options": {"drop_unused_layers": True, "dtype": "bfloat16"},
    }
    (folder / "conversion.json").write_text(json.dumps(record))
    (folder / "training.json").write_text(json.dumps({"steps": 7, "config": {"rank": 16, "deep": {"x": 1}}}))
    text = make_card(folder)
    assert text.startswith("---\nlicense: mit\n")
    assert "base_model: some/MedDr\n" in text
    assert "from some/MedDr, without the vision layers that are never read and weights rounded to" in text
    assert "| steps | 7 |" in text
    assert "| config.rank | 16 |" in text
    assert "deep" not in text
    assert "How well it does: the files in this folder do not say." in text


def test_numbers_are_those_of_the_weights(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    folder = save_tiny_internvl(tmp_path / "tiny")
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert f"{model.num_parameters():,} numbers, F32" in make_card(folder)


def test_an_adapter() -> None:
    text = make_card(weights_folder())
    assert "library_name: peft" in text
    assert "LORA, rank 16, alpha 32" in text
    assert "it needs its base, meddr-nano" in text
    assert text.startswith("---\nlicense: apache-2.0\n")


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"neither config\.json nor adapter_config\.json"):
        make_card(tmp_path)


def test_a_card_by_hand_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_tiny_internvl(tmp_path / "tiny")
    card = folder / "README.md"

    def run(*options: str) -> int | str | None:
        with pytest.raises(SystemExit) as stop:
            main(["generalist", "card", str(folder), *options])
        return stop.value.code

    assert run() == 0
    assert MARK in capsys.readouterr().out
    assert not card.exists()
    card.write_text("---\nlicense: cc0-1.0\n---\nBy hand.\n")
    assert run("--write") == 2
    assert "was written by someone else" in capsys.readouterr().err
    assert run("--write", "--force") == 0
    assert card.read_text().startswith("---\nlicense: cc0-1.0\n")
    assert run("--write") == 0  # its own it may renew
