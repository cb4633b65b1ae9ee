"""InternVL conversation files, in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gsco.cases import ImageRef, load_dataset, load_image
from gsco.cases.conversations import image_ref, load_conversations, read_conversations, write_conversations
from gsco.errors import DatasetError, SplitLeakError, StorageError


def record(identity: int | str = 0, image: Any = "a.png", *turns: str, **more: Any) -> dict[str, Any]:
    values = turns or ("<image>\nIs there an effusion?", "yes")
    conversations = [{"from": ("human", "gpt")[k % 2], "value": value} for k, value in enumerate(values)]
    return {"id": identity, "image": image, "conversations": conversations, **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        Image.new("L", (4, 4), 50).save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize("shape", ["list", "lines", "indented list", "one object"])
def test_a_list_or_one_a_line(folder: Path, shape: str) -> None:
    records = [record(1, width=4, height=4), record(2, "b.png", "Size?", "small", "Sure?", "<image> no")]
    if shape == "one object":
        records = records[:1]
    text = {
        "list": json.dumps(records),
        "indented list": json.dumps(records, indent=1),
        "lines": "\n".join(json.dumps(r) for r in records) + "\n\n",
        "one object": json.dumps(records[0], indent=2),
    }[shape]
    path = folder / "train.json"
    path.write_text(text)
    assert read_conversations(path) == records
    dataset = load_conversations(path, split="train", modality="chest X-ray")
    assert dataset.task.kind == "vqa" and dataset.task.modality == "chest X-ray"
    first = dataset.cases[0]
    assert (first.id, first.question, first.answer, first.split) == (
        "1",
        "Is there an effusion?",
        "yes",
        "train",
    )
    assert first.image == ImageRef(folder / "a.png")
    if len(records) > 1:
        assert [case.id for case in dataset] == ["1", "2#0", "2#1"]
        assert dataset.cases[2].answer == "<image> no"  # only a human's tag stands for an image


def test_as_a_dataset_the_split_is_drawn_by_image(folder: Path) -> None:
    records = [record(k, f"{k // 4}.png") for k in range(80)]
    for k in range(20):
        Image.new("L", (2, 2)).save(folder / f"{k}.png")
    write_conversations(folder / "all.jsonl", records)
    dataset = load_dataset(folder / "all.jsonl", check_images=True)
    assert [len(dataset.split(s)) for s in ("train", "val", "test")] == [56, 8, 16]
    assert "drawn" in dataset.card["split"]


def test_given_splits_are_kept_and_checked(folder: Path) -> None:
    path = folder / "all.json"
    path.write_text(json.dumps([record(1, split="train"), record(2, "b.png", split="test", patient_id=5)]))
    dataset = load_dataset(path)
    assert [case.split for case in dataset] == ["train", "test"]
    assert [case.cluster for case in dataset] == ["a.png", "5"]
    path.write_text(json.dumps([record(1, split="train"), record(2, split="test")]))
    with pytest.raises(SplitLeakError):
        load_dataset(path)


def test_several_images_and_none(folder: Path) -> None:
    several = record(1, ["a.png", "b.png"], "<image>\n<image>\nWhich is larger?", "neither")
    alone = {"id": 2, "conversations": record()["conversations"]}
    alone["conversations"] = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]
    write_conversations(folder / "x.jsonl", [several, alone])
    first, second = load_conversations(folder / "x.jsonl", split="train").cases
    assert [ref.path.name for ref in first.images] == [
        "a.png",
        "b.png",
    ] and first.question == "Which is larger?"
    assert second.images == ()


def test_rows_of_an_npz_can_be_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", train_images=np.full((3, 2, 2), 7, np.uint8))
    ref = image_ref("set.npz:train_images:2", tmp_path)
    assert ref == ImageRef(tmp_path / "set.npz", "train_images", 2)
    assert image_ref(str(ref), Path("/elsewhere")) == ref
    assert load_image(ref).getpixel((0, 0)) == (7, 7, 7)


def test_images_may_lie_elsewhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("records") / "x.jsonl"
    write_conversations(path, [record(1), record(2, str(folder / "b.png"))])
    first, second = load_conversations(path, image_root=folder, split="val").cases
    assert first.image.path == folder / "a.png" and second.image.path == folder / "b.png"


MISTAKES = [
    ("[1, 2]", "record 1: is not an object in braces"),
    ("{}", "record 1: has no conversations"),
    ("[{}", "is not JSON"),
    ("{\n{", "line 1 is not JSON"),
    ("[]", "holds no conversation"),
    ("", "holds no conversation"),
    (
        '{"set": {"root": "x", "annotation": "y.jsonl"}}',
        "Give one of the files its 'annotation' entries",
    ),
    (json.dumps(record(1, 5)), "image is not a path"),
    (json.dumps(record(1, "a.png", "q", "a", "q")), "ends without an answer"),
    (json.dumps(record(1, "a.png", "<image> <image> q", "a")), "has 1 image and 2 <image> tags"),
    (json.dumps(record(1, None, "<image> q", "a")), "has 0 images and 1 <image> tag"),
    (json.dumps(record(split="dev")), "record 1: split 'dev' is none of train, val, test"),
    ('{"conversations": [{"from": "gpt", "value": "a"}]}', "turn 1 is from 'gpt', not 'human'"),
    ('{"conversations": [{"from": "human"}]}', "turn 1 has no text"),
    (json.dumps([record(1, split="val"), record(2)]), "some records have a split and some have none"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_mistakes(folder: Path, text: str, message: str) -> None:
    (folder / "x.json").write_text(text)
    with pytest.raises(DatasetError) as caught:
        load_dataset(folder / "x.json")
    assert message in str(caught.value) and "x.json" in str(caught.value) and "\n" not in str(caught.value)


def test_two_records_of_one_id_are_refused(folder: Path) -> None:
    (folder / "x.json").write_text(json.dumps([record(1), record(1)]))
    with pytest.raises(DatasetError, match="1 is listed more than once"):
        load_dataset(folder / "x.json")


def test_writing_is_all_or_nothing(folder: Path) -> None:
    path = folder / "out" / "x.jsonl"
    assert write_conversations(path, [record(k) for k in range(3)]) == 3
    before = path.read_bytes()
    with pytest.raises(ValueError, match="record 1: has no conversations"):
        write_conversations(path, [record(0), {"id": 1}])
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["x.jsonl"]
    with pytest.raises(StorageError, match="cannot be written"):
        write_conversations(folder / "a.png" / "x.jsonl", [record()])


texts = st.text(max_size=30)
answers = texts
questions = texts.map(lambda text: text.replace("<image>", ""))


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    images = draw(st.lists(st.text("abc", min_size=1, max_size=5).map(lambda w: f"{w}.png"), max_size=3))
    turns = draw(st.lists(st.tuples(questions, answers), min_size=1, max_size=3))
    tagged = draw(st.booleans())
    conversations = []
    for place, (question, answer) in enumerate(turns):
        tags = "<image>\n" * len(images) if tagged and place == 0 else ""
        conversations += [{"from": "human", "value": tags + question}, {"from": "gpt", "value": answer}]
    made = {"id": draw(st.integers() | texts), "conversations": conversations}
    if images or draw(st.booleans()):
        made["image"] = images[0] if len(images) == 1 and draw(st.booleans()) else images
    return made


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=st.lists(records(), min_size=1, max_size=5))
def test_round_trip(tmp_path: Path, made: list[dict[str, Any]]) -> None:
    path = tmp_path / "h.jsonl"
    assert write_conversations(path, made) == len(made)
    assert read_conversations(path) == made
    (tmp_path / "h.json").write_text(json.dumps(made))
    assert read_conversations(tmp_path / "h.json") == made
    cases = load_conversations(path, split="train").cases
    turns = [turn for one in made for turn in one["conversations"]]
    assert [case.answer for case in cases] == [turn["value"].strip() for turn in turns[1::2]]
    assert [case.question for case in cases] == [
        turn["value"].replace("<image>", "").strip() for turn in turns[::2]
    ]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["id", "image", "conversations", "from", "value", "split"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_conversations_or_an_error(tmp_path: Path, value: Any) -> None:
    (tmp_path / "h.json").write_text(json.dumps(value))
    try:
        load_dataset(tmp_path / "h.json", max_broken=1.0)
    except DatasetError as error:
        assert "\n" not in str(error)
