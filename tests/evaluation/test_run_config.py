from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gsco.cases import Case, Dataset, ImageRef, Option, Task
from gsco.collaboration import GENERALIST_ARMS
from gsco.errors import RunError
from gsco.evaluation.config import RunConfig
from gsco.evaluation.data import draw, fingerprint

configs = st.builds(
    RunConfig,
    data=st.sampled_from(["/data/a", "relative/b", "/data/ü b"]),
    seed=st.integers(0, 2**31),
    specialists=st.lists(st.sampled_from(["knn", "linear_probe", "small_cnn"]), unique=True).map(tuple),
    generalist=st.text(min_size=1, max_size=20).filter(str.isprintable),
    arms=st.lists(st.sampled_from(GENERALIST_ARMS), unique=True).map(tuple),
    limit=st.none() | st.integers(1, 100),
    max_broken=st.floats(0, 1),
)


@given(configs)
@example(RunConfig(data="~nobody-of-that-name/x", generalist="~nobody-of-that-name"))
def test_a_config_survives_its_file(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> None:
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert RunConfig.from_yaml(path) == config
    assert config.contradictions(RunConfig.from_yaml(path)) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"data": "x", "sead": 1}, "sead: Extra inputs are not permitted"),
        ({"data": "x", "seed": -1}, "seed: .*greater than or equal to 0.*got -1"),
        ({"data": "x", "mode": "guess"}, "mode: Input should be 'score' or 'generate'"),
        ({"data": "x", "arms": ["gsco", "gsco"]}, "arms: .*names an entry twice"),
        ({"data": "x", "schema": 2}, "schema: Input should be 1"),
        ({}, "data: Field required"),
    ],
)
def test_a_wrong_setting_is_one_line(values: dict[str, Any], said: str) -> None:
    with pytest.raises(RunError, match=said) as caught:
        RunConfig.parse(values, where="config.yaml")
    assert "\n" not in str(caught.value)


def test_contradictions_name_both_values() -> None:
    config = RunConfig(data=Path("/d"), seed=1)
    assert config.contradictions(config.with_changes({"seed": 2})) == ["seed is 1, not 2"]


@pytest.mark.parametrize("content", ["[1]", "a: [", "\0"])
def test_a_damaged_config_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=r"config\.yaml") as caught:
        RunConfig.from_yaml(tmp_path / "config.yaml")
    assert "\n" not in str(caught.value)


def cases(labels: list[str]) -> list[Case]:
    return [
        Case(id=f"{i}.png", images=(ImageRef(Path(f"/x/{i}.png")),), labels=(label,), split="test")
        for i, label in enumerate(labels)
    ]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.integers(1, 60), st.integers(0, 5))
def test_drawing_keeps_order_size_and_shares(labels: list[str], limit: int, seed: int) -> None:
    whole = cases(labels)
    drawn = draw(whole, limit, seed)
    assert drawn == draw(whole, limit, seed)
    assert len(drawn) == min(limit, len(whole))
    assert [case.id for case in drawn] == [case.id for case in whole if case in drawn]
    for label in set(labels):
        expected = labels.count(label) * len(drawn) / len(labels)
        assert abs(sum(case.label == label for case in drawn) - expected) <= 1.5


def test_the_fingerprint_sees_labels_splits_patients_and_file_sizes(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"12345")
    task = Task("diagnosis", "x-ray", (Option("a", "A"), Option("b", "B")))

    def made(root: Path = tmp_path, **changes: Any) -> str:
        values: dict[str, Any] = {"id": "a.png", "images": (ImageRef(root / "a.png"),), "labels": ("a",)}
        return fingerprint(Dataset("d", task, (Case(**(values | changes)),), root))

    base = made()
    assert made() == base
    assert len({base, made(labels=("b",)), made(split="train"), made(patient_id="p")}) == 4
    image.write_bytes(b"123456")
    assert made() != base
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "a.png").write_bytes(b"12345")
    assert made(root=moved) == base  # where the folder lies plays no part
