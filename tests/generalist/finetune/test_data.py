"""InternVL's format: what one epoch reads, what is refused, in which order."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gsco.errors import DatasetError, UserError
from gsco.generalist.finetune.batches import Collator, random_crop
from gsco.generalist.finetune.conversation import SkippedRecord, read_conversation
from gsco.generalist.finetune.encoding import IGNORED, Encoded
from gsco.generalist.finetune.meta import Annotation, read_meta
from gsco.generalist.finetune.order import FILLER, training_order
from gsco.generalist.finetune.preparation import prepare
from gsco.generalist.finetune.recipe import is_finetune_recipe, read_finetune_recipe
from gsco.teaching.recipe import recipe_content, recipe_file

from .conftest import turns


def annotation(repeat: float, lines: int) -> Annotation:
    return Annotation("a", Path(), Path("a.jsonl"), repeat, False, tuple(range(lines)))


@pytest.mark.parametrize(
    ("repeat", "taken"),
    [(1, [0, 1, 2, 3]), (2, [0, 1, 2, 3] * 2), (0.5, [0, 1]), (0.3, [0]), (1.5, [0, 1, 2, 3, 0, 1])],
)
def test_repeat_time(repeat: float, taken: list[int]) -> None:
    """Below 1 the first lines, as InternVL's ``raw_data[:int(n * repeat_time)]``; above, all again."""
    assert list(annotation(repeat, 4).taken()) == taken


def meta(folder: Path, **changes: Any) -> Path:
    (folder / "a.jsonl").write_text('{"id": 1}\n\n{"id": 2}\r\n{"id": "ü"}')
    entry = {"root": "images", "annotation": "a.jsonl", **changes}
    path = folder / "meta.json"
    path.write_text(json.dumps({"a": {k: v for k, v in entry.items() if v is not None}}))
    return path


def test_lines_are_read_by_place(tmp_path: Path) -> None:
    (found,) = read_meta(meta(tmp_path, length=99, repeat_time=2, data_augment=True), base=tmp_path)
    assert [found.line(i)["id"] for i in range(3)] == [1, 2, "ü"]
    assert (found.root, found.repeat_time, found.data_augment) == (tmp_path / "images", 2.0, True)
    (once,) = read_meta(meta(tmp_path, repeat_time=1), base=tmp_path)
    assert once.digest() != found.digest()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"root": None}, "has no 'root'"),
        ({"annotation": None}, "has no 'annotation'"),
        ({"annotation": "b.jsonl"}, "cannot be read"),
        ({"repeat_time": 0}, "repeat_time 0 is not a number above 0"),
        ({"repeat_time": "2"}, "repeat_time '2' is not"),
        ({"data_augment": "yes"}, "data_augment 'yes' is neither"),
        ({"repeat": 3}, "unknown key 'repeat'"),
    ],
)
def test_a_bad_meta_file_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        read_meta(meta(tmp_path, **changes), base=tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [("[1]", "no meta file"), ("{", "is not JSON"), ("{}", "no meta file"), (None, "No such")],
)
def test_what_is_no_meta_file_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "meta.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DatasetError, match=said):
        read_meta(path, base=tmp_path)


@pytest.mark.parametrize(("text", "said"), [("[{}]", "JSON list"), ("\n \n", "holds no records")])
def test_an_annotation_is_json_lines(tmp_path: Path, text: str, said: str) -> None:
    path = meta(tmp_path)
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(DatasetError, match=said):
        read_meta(path, base=tmp_path)


def places(record: dict[str, Any], root: Path) -> list[tuple[str, list[str]]]:
    found = read_conversation(record, root=root)
    return [(m["role"], [item.get("text", "IMAGE") for item in m["content"]]) for m in found.messages]


def test_images_stand_where_their_tags_are(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    two = {"image": ["a.png", "b.png"]}
    assert places({"image": "a.png", "conversations": turns("<image>\nWhat?", "x")}, tmp_path) == [
        ("user", ["IMAGE", "What?"]), ("assistant", ["x"]),
    ]  # fmt: skip
    assert places({"image": "a.png", "conversations": turns("What?", "x")}, tmp_path)[0][1] == [
        "IMAGE",
        "What?",
    ]
    assert places({**two, "conversations": turns("1: <image>\n2: <image>", "x")}, tmp_path)[0][1] == [
        "1: ", "IMAGE", "2: ", "IMAGE",
    ]  # fmt: skip
    assert places({**two, "conversations": turns("<image>a", "x", "<image>\nb", "y")}, tmp_path) == [
        ("user", ["IMAGE", "a"]), ("assistant", ["x"]), ("user", ["IMAGE", "b"]), ("assistant", ["y"]),
    ]  # fmt: skip
    system = [{"from": "system", "value": "Be short."}, *turns("Hi", "x")]
    assert places({"conversations": system}, tmp_path)[0] == ("system", ["Be short."])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["conversations", "image", "from", "value", "id"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=50)
@given(JSON)
def test_any_json_is_a_conversation_or_has_a_reason(record: Any) -> None:
    try:
        found = read_conversation(record, root=Path("/nowhere"))
    except SkippedRecord as reason:
        assert str(reason)
    else:
        assert not found.images
        assert found.messages[-1]["role"] == "assistant"


LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 8), st.integers(0, 2**32 - 1), st.booleans())
def test_every_record_is_read_once_in_each_epoch(
    lengths: list[int], size: int, seed: int, group: bool
) -> None:
    order = training_order(lengths, batch_size=size, epochs=2, seed=seed, by_length=group)
    assert len(order) % size == 0
    n = len(lengths)
    for epoch in (order[:n], order[n : 2 * n]):
        assert sorted(epoch) == list(range(n))
    assert order[2 * n :] == [FILLER] * (-2 * n % size)
    assert order == training_order(lengths, batch_size=size, epochs=2, seed=seed, by_length=group)


def test_batches_hold_like_lengths() -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(10, 2000, 512)]
    spread = {
        group: np.mean([np.ptp([lengths[i] for i in order[s : s + 8]]) for s in range(0, len(order), 8)])
        for group in (True, False)
        for order in [training_order(lengths, batch_size=8, epochs=1, seed=1, by_length=group)]
    }
    assert spread[True] < 0.2 * spread[False]
    assert training_order(lengths, batch_size=8, epochs=1, seed=2) != training_order(
        lengths, batch_size=8, epochs=1, seed=1
    )
    assert len(training_order(lengths, batch_size=8, epochs=0.5, seed=1)) == 256


def test_a_crop_keeps_the_size_and_follows_the_seed() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 64, 3), dtype=np.uint8))
    crops = [random_crop(image, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert all(crop.size == image.size for crop in crops)
    assert crops[0].tobytes() == crops[1].tobytes() != crops[2].tobytes()
    assert image.tobytes() not in {crop.tobytes() for crop in crops}
    wide = Image.fromarray(
        np.tile(np.arange(200, dtype=np.uint8), (50, 1))
    )  # no ratio allowed fits: the middle
    assert np.asarray(random_crop(wide, np.random.default_rng(0)))[0, [0, -1]].tolist() == [66, 132]


def test_a_batch_is_padded_by_shape_not_by_name() -> None:
    def row(tokens: int, **more: torch.Tensor) -> Encoded:
        inputs = {"input_ids": torch.ones(1, tokens, dtype=torch.long), **more}
        return Encoded(inputs, torch.arange(tokens))

    rows = [
        row(3, tiles=torch.ones(1, 2, 4)),
        row(5, kinds=torch.ones(1, 5)),
        row(2, tiles=torch.ones(1, 3, 4)),
    ]
    tiles = Collator(7)(list(zip("abc", rows, strict=True)))
    assert tiles["input_ids"].tolist() == [[1, 1, 1, 7, 7], [1] * 5, [1, 1, 7, 7, 7]]
    assert tiles["labels"][2].tolist() == [0, 1, IGNORED, IGNORED, IGNORED]
    assert tiles["tiles"].shape == (2, 3, 4) and tiles["tiles"][0, 2].sum() == 0
    assert tiles["kinds"].sum(1).tolist() == [0, 5, 0]
    assert tiles["records"] == ["a", "b", "c"]


def test_a_killed_pass_goes_on_where_it_was(tmp_path: Path) -> None:
    looked: list[int] = []

    class Once:
        markup = ()

        def __call__(self, messages: Any, images: Any) -> Encoded:
            looked.append(1)
            if len(looked) == 3:
                raise KeyboardInterrupt
            return Encoded({"input_ids": torch.ones(1, 3)}, torch.tensor([IGNORED, 1, 2]))

    meta(tmp_path)
    lines = [json.dumps({"id": str(i), "conversations": turns("a", "b")}) for i in range(5)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = read_meta(tmp_path / "meta.json", base=tmp_path)
    log = tmp_path / "log.jsonl"
    with pytest.raises(KeyboardInterrupt):
        prepare(found, Once(), log, max_tokens=9)  # type: ignore[arg-type]
    with log.open("a") as file:
        file.write('{"source": 0, "li')  # killed while it wrote
    records = prepare(found, Once(), log, max_tokens=9)  # type: ignore[arg-type]
    assert len(looked) == 3 + 3
    assert Counter(r.skipped for r in records) == {None: 5}
    assert [(r.id, r.tokens, r.answer_tokens, r.turns) for r in records] == [
        (str(i), 3, 2, 1) for i in range(5)
    ]


def test_recipes_are_told_apart_by_content(tmp_path: Path) -> None:
    assert not is_finetune_recipe(recipe_content(recipe_file("nano")))
    content = recipe_content(recipe_file("meddr"))
    assert is_finetune_recipe(content)
    with pytest.raises(UserError, match=r"names no model\. Add `model:` to the recipe, or give --model"):
        read_finetune_recipe(content, "meddr")
    plan = read_finetune_recipe(content, "meddr", model="m", data="d")
    assert (plan.lora.rank, plan.lora.alpha, plan.lora.dropout) == (16, 32, 0.05)
    assert (plan.learning_rate, plan.warmup, plan.weight_decay) == (1e-5, 0.03, 0.05)
    assert (plan.epochs, plan.max_tokens, plan.parallel) == (2, 2048, "zero3")
    assert plan.image["size"] == {"height": 448, "width": 448}
    assert plan.accumulation(16) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lora": {"rank": 0}}, r"r\.yaml: lora\.rank: Input should be greater than 0"),
        ({"learning": 1}, r"r\.yaml: learning: Extra inputs"),
        ({"batch_size": 6}, r"r\.yaml: batch_size 6 is no multiple of records_at_once 4"),
    ],
)
def test_a_bad_recipe_is_one_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_finetune_recipe(change, "r.yaml", model="m", data="d")
