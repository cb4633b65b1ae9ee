"""Dataset folders: what is read, what is inferred, and each mistake in its one line."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from gsco.cases import ImageRef, find_broken, find_dataset, load_dataset
from gsco.cases.folder import load_folder
from gsco.errors import DatasetError, LabelError, NoLabelsError, SplitLeakError, UserError

ROWS = [
    ("images/a.png", "cat_scan", "train"),
    ("images/b.png", "ct_scan", "val"),
    ("images/c.png", "cat_scan", "test"),
]


def make(
    folder: Path, rows: list[tuple[str, ...]] = ROWS, header: str = "image,label,split", about: str = ""
) -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        file.write(header + "\n")
        csv.writer(file).writerows(rows)
    for place, row in enumerate(rows):
        path = folder / row[0]
        if path.parent == folder / "images":
            Image.new("L", (4, 4), place).save(path, format="PNG")
    if about:
        (folder / "dataset.yaml").write_text(about, encoding="utf-8")
    return folder


def jsonl(path: Path, *lines: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for line in lines:
        if isinstance(line.get("image"), str):
            (path.parent / line["image"]).parent.mkdir(exist_ok=True)
            Image.new("L", (4, 4)).save(path.parent / line["image"])
    return path.parent


def one_line(error: pytest.ExceptionInfo[UserError], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text, text


def test_a_plain_folder(tmp_path: Path) -> None:
    dataset = load_dataset(make(tmp_path / "my_set"))
    assert dataset.name == "my_set" and dataset.root == tmp_path / "my_set"
    assert dataset.task.kind == "diagnosis" and not dataset.task.multi_label
    assert dataset.task.modality == "medical image"
    assert dataset.task.keys == ("cat_scan", "ct_scan")
    assert dataset.task.names == ("cat scan", "ct scan")
    assert [case.id for case in dataset] == [row[0] for row in ROWS]
    assert [case.split for case in dataset] == ["train", "val", "test"]
    assert dataset.cases[1].image == ImageRef(tmp_path / "my_set" / "images/b.png")
    assert dataset.targets(dataset.cases) == [0, 1, 0]
    assert dataset.skipped == () and dataset.card["split"] == "given"
    assert load_dataset(str(tmp_path / "my_set" / "labels.csv")) == dataset


def test_further_columns_are_kept(tmp_path: Path) -> None:
    rows = [("a.png", "x", "train", "p1", "", "41"), ("b.png", "y", "test", "", "g1", "")]
    make(tmp_path, rows, "image,label,split,patient_id,group,age")
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()
    first, second = load_dataset(tmp_path).cases
    assert (first.patient_id, first.group, first.cluster) == ("p1", None, "p1")
    assert (second.patient_id, second.group, second.cluster) == (None, "g1", "g1")
    assert first.extra == {"age": "41"} and second.extra == {"age": ""}


def test_dataset_yaml_speaks_first(tmp_path: Path) -> None:
    about = (
        "name: scans\nmodality: chest CT\nlicense: CC0-1.0\nsynthetic: true\n"
        "options:\n  ct_scan: computed tomography\n  cat_scan:\n  'no': nothing seen\n"
    )
    dataset = load_dataset(make(tmp_path, about=about))
    assert (dataset.name, dataset.task.modality) == ("scans", "chest CT")
    assert dataset.task.keys == ("ct_scan", "cat_scan", "no")
    assert dataset.task.names == ("computed tomography", "cat scan", "nothing seen")
    assert dataset.card["licence"] == "CC0-1.0" and dataset.card["synthetic"] is True
    assert load_dataset(tmp_path, modality="MRI", name="other").task.modality == "MRI"


@pytest.mark.parametrize(
    "options",
    ["[cat_scan, ct_scan]", "[{key: cat_scan, name: cat scan}, {key: ct_scan}]", "{cat_scan: , ct_scan: }"],
)
def test_options_as_list_or_mapping(tmp_path: Path, options: str) -> None:
    assert load_dataset(make(tmp_path, about=f"options: {options}")).task.names == ("cat scan", "ct scan")


def test_yaml_does_not_reinterpret_option_keys(tmp_path: Path) -> None:
    rows = [("images/a.png", "no", "train"), ("images/b.png", "yes", "test"), ("images/c.png", "01", "val")]
    about = "options:\n  no: absent\n  yes: present\n  01: unclear\n"
    assert load_dataset(make(tmp_path, rows, about=about)).task.keys == ("no", "yes", "01")


def test_numbers_as_labels_are_in_numeric_order(tmp_path: Path) -> None:
    rows = [(f"images/{n}.png", str(n), "train") for n in (10, 2, 1)]
    assert load_dataset(make(tmp_path, rows)).task.keys == ("1", "2", "10")


def test_a_known_set_brings_its_names(tmp_path: Path) -> None:
    rows = [("images/a.png", "akiec", "train"), ("images/b.png", "zzz_other", "test")]
    task = load_dataset(make(tmp_path / "HAM10000-mini", rows)).task
    assert task.modality == "dermatoscopy"
    assert task.names == ("actinic keratosis", "zzz other")


def test_several_labels(tmp_path: Path) -> None:
    rows = [("images/a.png", "x|y", "train"), ("images/b.png", "y", "val"), ("images/c.png", "", "test")]
    dataset = load_dataset(make(tmp_path, rows))
    assert dataset.task.multi_label
    assert [case.labels for case in dataset] == [("x", "y"), ("y",), ()]


def test_excel_like_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "labels.csv").write_bytes(b"\xef\xbb\xbfImage; Label ;Split\r\na.png;x;train\r\n;;\r\n\r\n")
    assert load_dataset(tmp_path).cases[0].label == "x"


def test_heldout_rows_are_counted_and_left_out(tmp_path: Path) -> None:
    dataset = load_dataset(make(tmp_path, [*ROWS, ("images/d.png", "secret", "heldout")]))
    assert len(dataset) == 3 and dataset.card["heldout"] == 1
    assert "secret" not in dataset.task.keys


def test_without_a_split_column_it_is_drawn_by_patient(tmp_path: Path) -> None:
    rows = [(f"images/{n}.png", "xy"[n % 2], f"p{n // 3}") for n in range(60)]
    dataset = load_dataset(make(tmp_path, rows, "image,label,patient_id"))
    splits = {case.patient_id: set() for case in dataset}
    for case in dataset:
        splits[case.patient_id].add(case.split)
    assert all(len(found) == 1 for found in splits.values())
    assert len(dataset.split("train")) > len(dataset.split("test")) > len(dataset.split("val")) > 0
    assert dataset.card["split"].startswith("drawn: 70/10/20, seed 0")
    assert load_dataset(tmp_path) == dataset
    assert [c.split for c in load_dataset(tmp_path, seed=1)] != [c.split for c in dataset]


# tasks other than diagnosis


def test_questions(tmp_path: Path) -> None:
    jsonl(
        tmp_path / "vqa.jsonl",
        {"qid": "7", "image": "images/a.png", "question": "Effusion? ", "answer": "no", "split": "train"},
        {
            "qid": "8",
            "image": "images/a.png",
            "question": "Side?",
            "answer": None,
            "split": "train",
            "x": ["p", "q"],
        },
        {"image": "images/b.png", "question": "Organ?", "answer": "lung", "split": "test", "patient_id": 12},
    )
    dataset = load_dataset(tmp_path)
    assert dataset.task.kind == "vqa" and dataset.task.options == ()
    assert [case.id for case in dataset] == ["images/a.png#7", "images/a.png#8", "images/b.png#3"]
    first, second, third = dataset
    assert (first.question, first.answer, first.group) == ("Effusion?", "no", "images/a.png")
    assert second.answer is None and second.extra == {"qid": "8", "x": "p|q"}
    assert (third.patient_id, third.group) == ("12", None)


def test_all_questions_on_an_image_stay_in_one_split(tmp_path: Path) -> None:
    jsonl(
        tmp_path / "vqa.jsonl",
        {"image": "images/a.png", "question": "Effusion?", "split": "train"},
        {"image": "images/a.png", "question": "Side?", "split": "test"},
    )
    with pytest.raises(SplitLeakError) as caught:
        load_dataset(tmp_path)
    one_line(caught, "1 group stands", "images/a.png#1 (train)", "images/a.png#2 (test)")


def test_questions_take_groups_from_the_labels(tmp_path: Path) -> None:
    make(
        tmp_path,
        [("images/a.png", "x", "train", "g1"), ("images/b.png", "x", "train", "g1")],
        "image,label,split,group",
    )
    jsonl(tmp_path / "vqa.jsonl", {"image": "images/b.png", "question": "?", "split": "test"})
    assert load_dataset(tmp_path).task.kind == "diagnosis"
    assert load_dataset(tmp_path, task="vqa").cases[0].group == "g1"
    (tmp_path / "dataset.yaml").write_text("task: vqa\n")
    assert load_dataset(tmp_path).task.kind == "vqa"


def test_reports(tmp_path: Path) -> None:
    jsonl(
        tmp_path / "reports.jsonl",
        {"image": "images/a.png", "report": "Clear.", "split": "train"},
        {"image": "images/b.png", "findings": "Opacity.", "impression": "Pneumonia.", "split": "val"},
        {"images": ["images/c.png", "images/d.png"], "report": "Two views.", "split": "val"},
        {"uid": 4, "findings": "No image here.", "split": "test"},
    )
    for name in "cd":
        Image.new("L", (4, 4)).save(tmp_path / f"images/{name}.png")
    dataset = load_dataset(tmp_path)
    assert dataset.task.kind == "report"
    assert [c.report for c in dataset] == [
        "Clear.",
        "FINDINGS: Opacity. IMPRESSION: Pneumonia.",
        "Two views.",
        "FINDINGS: No image here.",
    ]
    assert [len(c.images) for c in dataset] == [1, 1, 2, 0]
    assert dataset.cases[3].id == "text#4"


# mistakes


def test_no_labels(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "images" / "a.png")
    for task in (None, "diagnosis", "vqa"):
        with pytest.raises(NoLabelsError) as caught:
            load_dataset(tmp_path, task=task)
        one_line(caught, str(tmp_path), "Add labels.csv (columns image,label,split)")


def test_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GSCO_DATA", raising=False)
    with pytest.raises(DatasetError) as caught:
        load_dataset(tmp_path / "nowhere")
    one_line(caught, "nowhere: there is no such file or folder", "Give a dataset folder")
    (tmp_path / "a.txt").touch()
    with pytest.raises(DatasetError, match="is not a dataset"):
        load_dataset(tmp_path / "a.txt")


def test_a_label_outside_the_options(tmp_path: Path) -> None:
    make(tmp_path, about="options: [cat_scan, mri]")
    with pytest.raises(LabelError) as caught:
        load_dataset(tmp_path)
    one_line(caught, "labels.csv: row 3: label 'ct_scan' is not among the options cat_scan, mri")


@pytest.mark.parametrize("column", ["patient_id", "group"])
def test_a_split_that_leaks(tmp_path: Path, column: str) -> None:
    rows = [
        ("images/a.png", "x", "train", "DOE-JOHN"),
        ("images/b.png", "y", "test", "DOE-JOHN"),
        ("images/c.png", "y", "test", "other"),
    ]
    make(tmp_path, rows, f"image,label,split,{column}")
    with pytest.raises(SplitLeakError) as caught:
        load_dataset(tmp_path)
    noun = column.removesuffix("_id")
    one_line(
        caught, f"1 {noun} stands in more than one split", "images/a.png (train) and images/b.png (test)"
    )
    assert "DOE" not in str(caught.value)


MISTAKES = [
    ("image,label,split\na.png,x,train\na.png,y,train\n", "a.png is listed more than once"),
    ("image,label,split\na.png,x,trian\n", "row 2: split 'trian' is none of train, val, test"),
    ("image,label,split\na.png,x,train\nb.png,x,\n", "row 3 has no split"),
    ("image,label,split\na.png,,train\n", "row 2: no label, where one of"),
    ("image,label,split\na.png,x|x,train\n", "row 2: a label stands twice"),
    ("image,label,split\na.png,x\n", "row 2 has 2 cells, the header has 3"),
    ("image,label,split\n,x,train\n", "row 2 names no image"),
    ("image,label,split\n.,x,train\n", "row 2: image '.' is outside the folder"),
    ("image,label,split\n../a.png,x,train\n", "is outside the folder"),
    ("image,label,split\n/etc/passwd,x,train\n", "is outside the folder"),
    ('image,label,split\n"a.png,x,train\n', "is not CSV"),
    ("image,label,split,label\na.png,x,train,y\n", "has the column 'label' twice"),
    ("file,class,split\na.png,x,train\n", "has no column image and label (it has file, class, split)"),
    ("image,label,split\n", "lists no case"),
    ("image,label,split\na.png,x,heldout\n", "lists no case"),
    ("", "is empty"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_mistakes_in_labels(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()
    with pytest.raises(DatasetError) as caught:
        load_dataset(tmp_path)
    one_line(caught, message, str(tmp_path))


def test_labels_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("image,label,split\na.png,näevus,train\n".encode("latin-1"))
    with pytest.raises(DatasetError) as caught:
        load_dataset(tmp_path)
    one_line(caught, "is not UTF-8 text (byte 25)", "Save it as UTF-8")


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ("options: {a: 1", "is not YAML"),
        ("- a\n- b", "must hold keys and values"),
        ("options: 5", "options must be a list, or a mapping"),
        ("options: [cat_scan, cat_scan]", "the option 'cat_scan' stands twice"),
        ("options: {cat_scan: scan, ct_scan: scan}", "the option 'scan' stands twice"),
        ("options: [{name: x}]", "has no 'key'"),
        ("task: segmentation", "task 'segmentation' is none of diagnosis, vqa, report"),
        ("task: vqa", "there is no vqa.jsonl"),
        ("multi_label: maybe", "multi_label is 'maybe'"),
        ("modality: [a]", "modality must be text"),
    ],
)
def test_mistakes_in_dataset_yaml(tmp_path: Path, about: str, message: str) -> None:
    make(tmp_path, about=about)
    with pytest.raises(DatasetError) as caught:
        load_dataset(tmp_path)
    one_line(caught, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{'a': 1}\n", "line 1 is not JSON"),
        ('{"question": "x"}\n[1]\n', "line 2 is not an object"),
        ('{"image": "a.png"}\n', "line 1 has no question"),
        ('{"image": 5, "question": "?"}\n', "line 1 names no image"),
        ('{"image": "a.png", "question": "?", "split": "dev"}\n', "line 1: split 'dev'"),
    ],
)
def test_mistakes_in_jsonl(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "vqa.jsonl").write_text(text)
    with pytest.raises(DatasetError) as caught:
        load_dataset(tmp_path)
    one_line(caught, message)


# broken images


def broken_folder(tmp_path: Path, n: int = 40) -> Path:
    folder = make(tmp_path, [(f"images/{k:02}.png", "xy"[k % 2], "train") for k in range(n)])
    (folder / "images/05.png").write_text("this is text")
    (folder / "images/07.png").unlink()
    return folder


def test_missing_images_are_always_noticed(tmp_path: Path) -> None:
    dataset = load_dataset(broken_folder(tmp_path))
    assert len(dataset) == 39
    assert dataset.skipped == ("images/07.png: there is no such file",)


def test_broken_images_are_named_counted_and_skipped(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    dataset = load_dataset(
        broken_folder(tmp_path), check_images=True, progress=lambda done, total: seen.append((done, total))
    )
    assert len(dataset) == 38
    assert [line.split(":")[0] for line in dataset.skipped] == ["images/05.png", "images/07.png"]
    assert "is not an image" in dataset.skipped[0]
    assert not {"images/05.png", "images/07.png"} & {case.id for case in dataset}
    assert seen == [(k, 39) for k in range(1, 40)]


def test_too_many_broken_images_stop(tmp_path: Path) -> None:
    broken_folder(tmp_path)
    with pytest.raises(DatasetError) as caught:
        load_dataset(tmp_path, check_images=True, max_broken=0.04)
    one_line(
        caught,
        "2 of 40 images (5.0%) cannot be read, more than the 4.0% allowed: images/05.png: is not an image",
    )
    assert len(load_dataset(tmp_path, check_images=True, max_broken=0.05)) == 38
    for share in (-0.1, 1.5):
        with pytest.raises(UserError, match="not a share"):
            load_dataset(tmp_path, max_broken=share)


def test_find_broken_opens_each_image_once(tmp_path: Path) -> None:
    folder = broken_folder(tmp_path)
    refs = [ImageRef(folder / f"images/{k:02}.png") for k in (5, 1, 7, 5)]
    assert list(find_broken(refs, workers=2)) == [refs[0], refs[2]]


def test_names_are_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "data" / "busi")
    (tmp_path / "data" / "medmnist").mkdir()
    (tmp_path / "data" / "medmnist" / "breastmnist.npz").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GSCO_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    assert load_dataset("busi").name == "busi"
    assert find_dataset("breastmnist") == tmp_path / "data" / "medmnist" / "breastmnist.npz"
    assert find_dataset("../data/busi") is None and find_dataset("other") is None and find_dataset("") is None
    (tmp_path / ".medmnist").mkdir()
    (tmp_path / ".medmnist" / "octmnist.npz").touch()
    assert find_dataset("octmnist") == tmp_path / ".medmnist" / "octmnist.npz"


# properties

word = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="|/\\"),
    min_size=1,
    max_size=8,
)
image_names = word.filter(lambda w: w not in {".", ".."} and not w.endswith(":")).map(lambda w: f"{w}.png")
tables = st.lists(
    st.tuples(
        image_names,
        st.lists(word, min_size=1, max_size=3, unique=True),
        st.sampled_from(["train", "val", "test"]),
        word | st.just(""),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda row: row[0],
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=tables)
def test_labels_csv_round_trip(tmp_path: Path, rows: list[tuple[str, list[str], str, str]]) -> None:
    """Whatever stands in a well-formed table is what the cases say."""
    used = {label for _, labels, _, _ in rows for label in labels}
    assume(len({unicodedata.normalize("NFKC", label).casefold().strip() for label in used}) == len(used))
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["image", "label", "split", "note"])
    writer.writerows((image, "|".join(labels), split, note) for image, labels, split, note in rows)
    (tmp_path / "labels.csv").write_text(text.getvalue(), encoding="utf-8", newline="")
    dataset = load_folder(tmp_path)
    assert [(case.id, list(case.labels), case.split, case.extra["note"]) for case in dataset] == [
        (image, labels, split, note) for image, labels, split, note in rows
    ]
    assert set(dataset.task.keys) == {label for _, labels, _, _ in rows for label in labels}
    assert len(set(dataset.task.names)) == len(dataset.task.keys)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["labels.csv", "vqa.jsonl", "reports.jsonl", "dataset.yaml"]),
    body=st.binary(max_size=60)
    | st.text(alphabet="image,label;split\n\t\"{}[]:|#-&*!%@'01 ", max_size=60).map(str.encode),
)
def test_any_bytes_are_a_dataset_or_a_dataset_error(tmp_path: Path, name: str, body: bytes) -> None:
    for other in tmp_path.iterdir():
        other.unlink()
    (tmp_path / "labels.csv").write_text("image,label,split\na.png,x,train\n")
    prefix = b"image,label,split\n" if name == "labels.csv" else b""
    (tmp_path / name).write_bytes(prefix + body)
    (tmp_path / "a.png").touch()
    task = {"vqa.jsonl": "vqa", "reports.jsonl": "report"}.get(name)
    try:
        load_dataset(tmp_path, task=task, max_broken=1.0)
    except DatasetError as error:
        assert "\n" not in str(error)
