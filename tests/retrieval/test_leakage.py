"""The leakage check: each kind is found in real files, refuses or purges, and can be overridden by name."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from gsco.cases import Case, ImageRef, load_image, pixel_hash
from gsco.cases.phantoms import draw_phantom, sample_spec
from gsco.errors import LeakageError
from gsco.retrieval import KINDS, CaseIndex, LeakageReport, LeakPair, check_leakage
from gsco.retrieval.leakage import thumbnail


def picture(patient: int) -> NDArray[np.uint8]:
    return draw_phantom(sample_spec("nodule", patient=patient), size=96)


class Folder:
    """Writes pictures and makes cases of them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def case(self, name: str, pixels: NDArray[np.uint8], split: str = "train", **more: object) -> Case:
        Image.fromarray(pixels).save(self.root / name)
        return Case(name, (ImageRef(self.root / name),), ("a",), split, **more)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_different_patients_are_clean(folder: Folder) -> None:
    report = check_leakage(
        [folder.case(f"{i}.png", picture(i), patient_id=f"p{i}") for i in range(8)],
        [folder.case(f"{i}.png", picture(i), "test", patient_id=f"p{i}") for i in range(8, 14)],
    )
    assert report.clean
    assert report.counts == dict.fromkeys(KINDS, 0)
    assert report.purge() == frozenset()
    report.raise_if(strict=True)
    assert report.summary() == "leakage check of 6 cases against 8 indexed: nothing"


def test_same_pixels_in_another_format(folder: Folder) -> None:
    train = [folder.case("a.png", picture(1)), folder.case("b.png", picture(2))]
    test = [folder.case("c.bmp", picture(2), "test"), folder.case("d.png", picture(3), "test")]
    assert pixel_hash(train[1].image) == pixel_hash(test[0].image)
    report = check_leakage(train, test)
    assert report.pixels == (LeakPair("b.png", "c.bmp"),)
    assert report.near_duplicates == (), "not listed twice"
    assert report.purge() == {"b.png"}


def test_near_duplicates_are_found_by_the_stated_rule(folder: Folder) -> None:
    original = picture(5)
    # Another contrast, scale and aspect ratio, a burnt-in mark, JPEG: what copies of an image go through.
    softer = (40 + 0.6 * original).astype(np.uint8)
    larger = np.asarray(Image.fromarray(original).resize((150, 130)))
    marked = original.copy()
    marked[80:84, 10:16] = 255
    test = [
        folder.case("softer.png", softer, "test"),
        folder.case("larger.png", larger, "test"),
        folder.case("marked.jpg", marked, "test"),
        folder.case("mirrored.png", np.ascontiguousarray(original[:, ::-1]), "test"),
        folder.case("inverted.png", 255 - original, "test"),
    ]
    train = [folder.case("other.png", picture(6)), folder.case("original.png", original)]
    report = check_leakage(train, test)
    assert [(p.indexed, p.answered) for p in report.near_duplicates] == [
        ("original.png", name) for name in ("softer.png", "larger.png", "marked.jpg")
    ]
    for pair in report.near_duplicates:
        planes = [
            np.asarray(
                load_image(folder.root / name)
                .convert("L")
                .convert("F")
                .resize((32, 32), Image.Resampling.BOX)
            ).ravel()
            for name in (pair.indexed, pair.answered)
        ]
        assert pair.correlation == pytest.approx(np.corrcoef(planes)[0, 1], abs=1e-5)
        assert pair.correlation >= 0.99
    strict = check_leakage(train, test, near_duplicate_threshold=report.near_duplicates[2].correlation + 1e-4)
    assert len(strict.near_duplicates) < 3


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 500), gain=st.floats(0.2, 1.0), offset=st.integers(0, 40), size=st.integers(32, 90)
)
def test_thumbnails_correlate_as_numpy_says(seed: int, gain: float, offset: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    one = Image.fromarray(rng.integers(0, 256, (size, size + 3), dtype=np.uint8))
    two = Image.fromarray((np.asarray(one) * gain + offset).clip(0, 255).astype(np.uint8))
    assert np.linalg.norm(thumbnail(one)) == pytest.approx(1, abs=1e-5)
    assert thumbnail(one).mean() == pytest.approx(0, abs=1e-6)
    planes = [np.asarray(i.convert("F").resize((32, 32), Image.Resampling.BOX)).ravel() for i in (one, two)]
    assert float(thumbnail(one) @ thumbnail(two)) == pytest.approx(np.corrcoef(planes)[0, 1], abs=1e-4)


def test_even_images_are_no_near_duplicates(folder: Folder) -> None:
    train = [folder.case("black.png", np.zeros((40, 40), np.uint8))]
    test = [folder.case("grey.png", np.full((40, 40), 90, np.uint8), "test")]
    assert check_leakage(train, test).clean
    again = [folder.case("black2.png", np.zeros((40, 40), np.uint8), "test")]
    assert check_leakage(train, again).counts["pixels"] == 1


def test_ids_and_groups_refuse_and_are_overridden_by_name(folder: Folder) -> None:
    train = [
        folder.case("1.png", picture(1), patient_id="p1"),
        folder.case("2.png", picture(2), group="g2"),
        folder.case("3.png", picture(3), patient_id="same", group="g3"),
    ]
    test = [
        folder.case("4.png", picture(4), "test", patient_id="p1"),
        folder.case("5.png", picture(5), "test", group="g2"),
        folder.case("6.png", picture(6), "test", patient_id="p9", group="same"),
        replace(folder.case("7.png", picture(7), "test"), id="3.png"),
    ]
    report = check_leakage(train, test)
    assert report.ids == (LeakPair("3.png", "3.png"),)
    assert report.groups == (LeakPair("1.png", "4.png"), LeakPair("2.png", "5.png"))
    with pytest.raises(LeakageError) as error:
        report.raise_if()
    message = str(error.value)
    assert "1 pairs with the same id (ids)" in message
    assert "2 pairs with the same patient or group (groups)" in message
    assert "the first is 3.png and the indexed 3.png" in message
    assert "override by name: ids, groups" in message
    assert "p1" not in re.sub(r"\d+\.png", "", message), "patients stay out of messages"
    with pytest.raises(LeakageError, match=r"the first is 4\.png and the indexed 1\.png"):
        report.raise_if({"ids"})
    report.raise_if({"ids", "groups"})
    assert report.purge() == frozenset()


def test_pixels_and_near_duplicates_purge_or_are_strictly_refused(folder: Folder) -> None:
    train = [folder.case(f"{i}.png", picture(i)) for i in range(4)]
    test = [
        folder.case("copy.png", picture(1), "test"),
        folder.case("near.png", picture(2) // 2, "test"),
    ]
    report = check_leakage(train, test)
    report.raise_if()
    assert report.purge() == {"1.png", "2.png"}
    assert report.purge({"near_duplicates"}) == {"1.png"}
    assert report.purge({"near_duplicates", "pixels"}) == frozenset()
    for overrides, expected in [((), "pixels"), ({"pixels"}, "near_duplicates")]:
        with pytest.raises(LeakageError, match=rf"\({expected}\)"):
            report.raise_if(overrides, strict=True)
    report.raise_if({"pixels", "near_duplicates"}, strict=True)

    data = np.random.default_rng(0).standard_normal((4, 6), dtype=np.float32)
    index = CaseIndex.build(data, train, dataset="toy", encoder="e").without(report.purge())
    assert index.case_ids == ("0.png", "3.png")
    assert check_leakage([c for c in train if c.id in index.case_ids], test).clean


def test_report_in_json(folder: Folder) -> None:
    train = [folder.case(f"{i}.png", picture(i)) for i in range(2)]
    report = check_leakage(train, [folder.case("copy.png", picture(1), "test", patient_id="secret")])
    record = json.loads(json.dumps(report.to_json()))
    assert record["counts"] == {"ids": 0, "groups": 0, "pixels": 1, "near_duplicates": 0}
    assert record["pairs"]["pixels"] == [["1.png", "copy.png", 1.0]]
    assert record["purged"] == ["1.png"]
    assert "0.99" in record["rule"]
    assert "secret" not in json.dumps(record)
    assert "1 pixels" in report.summary()


def test_unreadable_images_are_named_and_skipped(folder: Folder) -> None:
    train = [folder.case("1.png", picture(1)), folder.case("2.png", picture(2))]
    (folder.root / "1.png").write_text("not an image")
    report = check_leakage(train, [folder.case("3.png", picture(2), "test")])
    assert len(report.unreadable) == 1
    assert "1.png" in report.unreadable[0]
    assert report.counts["pixels"] == 1
    assert report.summary().endswith("1 unreadable")


def test_every_image_of_a_study_counts_and_is_read_once(folder: Folder) -> None:
    study = folder.case("1.png", picture(1))
    side = folder.case("2.png", picture(2))
    train = [replace(study, images=(study.image, side.image))]
    questions = [
        replace(folder.case("3.png", picture(2), "test"), id=f"3.png#{i}", question="?") for i in range(3)
    ]
    read: list[ImageRef] = []
    seen: list[tuple[int, int]] = []

    def load(ref: ImageRef) -> Image.Image:
        read.append(ref)
        return load_image(ref)

    report = check_leakage(train, questions, load=load, progress=lambda *p: seen.append(p), workers=2)
    assert [p.answered for p in report.pixels] == ["3.png#0", "3.png#1", "3.png#2"]
    assert {p.indexed for p in report.pixels} == {"1.png"}
    assert len(read) == 3
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_blocks_give_the_same_pairs(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    train = [folder.case(f"{i}.png", picture(i)) for i in range(7)]
    test = [folder.case(f"t{i}.png", picture(i) // 2, "test") for i in (6, 2, 4)]
    whole = check_leakage(train, test)
    monkeypatch.setattr("gsco.retrieval.leakage._BLOCK", 2)
    assert check_leakage(train, test) == whole
    assert [(p.indexed, p.answered) for p in whole.near_duplicates] == [
        ("6.png", "t6.png"),
        ("2.png", "t2.png"),
        ("4.png", "t4.png"),
    ]


def test_npz_rows(tmp_path: Path) -> None:
    rows = np.stack([picture(i) for i in range(4)])
    np.savez(tmp_path / "set.npz", train_images=rows[:3], test_images=rows[[3, 1]])
    cases = {
        split: [
            Case(f"{split}:{i}", (ImageRef(tmp_path / "set.npz", f"{split}_images", i),), ("0",), split)  # type: ignore[arg-type]
            for i in range(n)
        ]
        for split, n in (("train", 3), ("test", 2))
    }
    assert check_leakage(cases["train"], cases["test"]).pixels == (LeakPair("train:1", "test:1"),)


def test_misuse_is_refused() -> None:
    report = LeakageReport(0, 0, 0.99)
    with pytest.raises(ValueError, match="'pixel' is none of ids, groups, pixels, near_duplicates"):
        report.raise_if({"pixel"})
    with pytest.raises(ValueError, match="collection"):
        report.purge("ids")
    with pytest.raises(ValueError, match="outside"):
        check_leakage([], [], near_duplicate_threshold=1.5)
    assert check_leakage([], []).clean
