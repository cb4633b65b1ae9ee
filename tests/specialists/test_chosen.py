"""The fastest runtime is kept with a specialist, and answers in its place where it was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gsco.cases import Dataset, ImageRef
from gsco.errors import DatasetError
from gsco.specialists import chosen, fastest, load_specialist, train_specialist
from gsco.specialists.chosen import CHOICE, FOLDER, mark_of, runtime_mark, runtime_of
from gsco.specialists.export import PARITY, Gate
from gsco.specialists.fastest import choose_runtime, timings
from gsco.specialists.networks import NetworkSpecialist
from gsco.specialists.trained import TrainedSpecialist

from .untrained import network

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
HERE = {"cpu": "abacus", "torch": "1", "onnxruntime": "2", "openvino": "3"}


@pytest.fixture
def images(dataset: Dataset) -> list[ImageRef]:
    return [case.image for case in dataset.split("test")]


def made_faster(monkeypatch: pytest.MonkeyPatch, winner: str) -> None:
    """Let one candidate take less time than the others, whatever the clock says."""
    names: list[str] = []
    really = fastest._tried

    def tried(*arguments: Any) -> Any:
        rows, runs = really(*arguments)
        names[:] = runs
        return rows, runs

    def clock(runs: Any, size: int) -> list[dict[int, tuple[float, float]]]:
        assert len(runs) == len(names)
        return [dict.fromkeys((1, 16), (1.0 if name == winner else 4.0,) * 2) for name in names]

    monkeypatch.setattr(fastest, "_tried", tried)
    monkeypatch.setattr(fastest, "timings", clock)


@pytest.fixture
def kept(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network's folder in which ONNX Runtime was chosen, on a machine of which all is known."""
    monkeypatch.setattr(chosen, "this_machine", lambda: HERE)
    monkeypatch.setattr(fastest, "this_machine", lambda: HERE)
    made_faster(monkeypatch, "onnx fp32")
    small = network("test_resnet", 32, dataset.task.keys)
    small.save_pretrained(tmp_path / "small")
    choose_runtime(small, tmp_path / "small", dataset, quick=True)
    return tmp_path / "small"


def test_the_fastest_that_passes_is_kept_and_says_why(dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    small = network("test_resnet", 32, dataset.task.keys)
    small.save_pretrained(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    choice = choose_runtime(small, tmp_path, dataset, gate=Gate(agreement=1.01))
    rows = {row["candidate"]: row for row in choice["candidates"]}
    assert {"pytorch", "onnx fp32", "onnx int8", "openvino fp32", "openvino int8"} <= set(rows)
    timed = {
        name: row["batch_1"] * row["batch_16"] for name, row in rows.items() if row["batch_1"] is not None
    }
    assert set(timed) == {"pytorch", "onnx fp32", "openvino fp32"}  # the gate lets nothing lower through
    assert choice["kept"] == min(timed, key=lambda name: timed[name])
    assert "of 3 that pass" in choice["why"]
    assert rows["pytorch"]["accuracy"] == rows["onnx fp32"]["accuracy"]
    assert 0 < rows["onnx fp32"]["difference"] <= PARITY
    assert choice == json.loads((tmp_path / FOLDER / CHOICE).read_text())
    assert {path.name for path in tmp_path.iterdir()} == {*before, FOLDER}
    assert runtime_of(load_specialist(tmp_path)) == choice["kept"]


def test_it_answers_in_the_specialists_place(kept: Path, images: list[ImageRef]) -> None:
    read, plain = load_specialist(kept), load_specialist(kept, runtime="pytorch")
    assert isinstance(read, NetworkSpecialist)  # heat maps and embeddings find what they need
    assert isinstance(read.fast, TrainedSpecialist)
    assert (runtime_of(read), runtime_of(plain)) == ("onnx fp32", "pytorch")
    assert read.runtime_note.startswith("net answers by onnx fp32: the fastest here, 4.0 times as fast")
    assert plain.runtime_note == runtime_mark(plain) == ""
    np.testing.assert_array_equal(read.predict(images), read.calibrated(read.fast.logits(images)))
    np.testing.assert_allclose(read.predict(images), plain.predict(images), rtol=0, atol=PARITY)
    assert (read.predict(images) != plain.predict(images)).any()
    np.testing.assert_array_equal(read.logits(images), plain.logits(images))  # its own, whoever answers


def test_pytorch_answers_elsewhere_and_says_why(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "this_machine", lambda: {**HERE, "cpu": "slide rule"})
    read = load_specialist(kept)
    assert read.fast is None
    assert "net answers by pytorch" in read.runtime_note
    assert "cpu abacus, here slide rule" in read.runtime_note
    monkeypatch.setattr(chosen, "this_machine", lambda: {**HERE, "onnxruntime": "not installed"})
    assert "onnxruntime 2, here not installed" in load_specialist(kept).runtime_note


def test_pytorch_answers_for_other_weights_and_for_a_damaged_graph(
    kept: Path, dataset: Dataset, images: list[ImageRef]
) -> None:
    graph = kept / FOLDER / "model.onnx"
    content = graph.read_bytes()
    graph.write_bytes(content[:-100])
    read = load_specialist(kept)
    assert read.fast is None
    assert "cannot be read" in read.runtime_note
    assert "damaged" in read.runtime_note
    graph.write_bytes(content)
    assert load_specialist(kept).fast is not None
    for wrong in ("no JSON", "[]", "{}"):
        (kept / FOLDER / CHOICE).write_text(wrong)
        assert "cannot be read" in load_specialist(kept).runtime_note
    other = network("test_resnet", 32, dataset.task.keys)
    other.adopt({key: value * 1.01 for key, value in other.state_dict().items() if "num" not in key})
    assert mark_of(other) != mark_of(read)
    other.save_pretrained(kept)
    (kept / FOLDER / CHOICE).write_text(
        json.dumps({"kept": "onnx fp32", "why": "", "machine": HERE, "original": mark_of(read)})
    )
    retrained = load_specialist(kept)
    assert "chosen for other weights" in retrained.runtime_note
    np.testing.assert_array_equal(retrained.predict(images), other.predict(images))


def test_other_calibration_counts_at_once(kept: Path, images: list[ImageRef]) -> None:
    read = load_specialist(kept)
    read.temperature = 3.0
    read.save_pretrained(kept)
    again = load_specialist(kept)
    assert runtime_of(again) == "onnx fp32"
    np.testing.assert_allclose(
        again.predict(images), load_specialist(kept, runtime="pytorch").predict(images), rtol=0, atol=PARITY
    )


def test_pytorch_wins_where_it_is_fastest(
    dataset: Dataset, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_faster(monkeypatch, "pytorch")
    choice = choose_runtime(load_specialist(kept), kept, dataset, quick=True)
    assert choice["kept"] == "pytorch"
    assert [path.name for path in (kept / FOLDER).iterdir()] == [CHOICE]  # what was kept before is gone
    read = load_specialist(kept)
    assert (read.fast, read.runtime_note) == (
        None,
        "net answers by pytorch: the fastest here, of 3 that pass",
    )


def test_a_head_reads_features_from_a_cache_where_it_has_one(
    dataset: Dataset,
    images: list[ImageRef],
    backbone_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_faster(monkeypatch, "onnx fp32")
    out, cache = tmp_path / "probe", tmp_path / "cache"
    probe = train_specialist(f"linear_probe:{backbone_folder}", dataset, cache=cache, out=out, size=32)
    choose_runtime(probe, out, dataset, quick=True)
    alone, beside = load_specialist(out), load_specialist(out, cache=cache)
    assert (runtime_of(alone), runtime_of(beside)) == ("onnx fp32", "pytorch")
    assert "features of images are kept" in beside.runtime_note
    np.testing.assert_allclose(alone.predict(images), beside.predict(images), rtol=0, atol=PARITY)


def test_caches_tell_runtimes_apart(kept: Path) -> None:
    from gsco.evaluation.comparison.answers import load_contestants

    (fast,) = load_contestants([kept], cache=kept / "none")
    (kept / FOLDER).rename(kept.parent / "elsewhere")
    (plain,) = load_contestants([kept], cache=kept / "none")
    assert fast.fingerprint != plain.fingerprint
    assert len({fast.fingerprint, plain.fingerprint}) == 2


def test_it_is_chosen_on_validation_cases(dataset: Dataset, kept: Path) -> None:
    small = load_specialist(kept)
    with pytest.raises(DatasetError, match="chosen on validation cases"):
        choose_runtime(small, kept, None)
    with pytest.raises(DatasetError, match="the specialist cat, dog"):
        choose_runtime(network("test_resnet", 32, ("cat", "dog")), kept, dataset)
    assert load_specialist(kept).fast is not None  # what failed has left what was there
    assert sorted(path.name for path in kept.iterdir() if path.name.startswith(".")) == []


def test_candidates_are_timed_in_turns() -> None:
    seen: list[tuple[str, int]] = []
    runs = [lambda pixels, name=name: seen.append((name, len(pixels))) for name in "ab"]
    spent = timings(runs, 8, repeats=2)
    assert [set(one) for one in spent] == [{1, 16}, {1, 16}]
    ones = [name for name, n in seen if n == 1]
    assert ones[4:] == ["a"] * 16 + ["b"] * 16 + ["a"] * 16 + ["b"] * 16
