"""CaseIndex: parity with scikit-learn, determinism, exclusion, storage and refusals."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from gsco.cases import Case, ImageRef
from gsco.errors import LeakageError, ModelError, StorageError
from gsco.retrieval import CaseIndex
from gsco.retrieval.nearest import ENGINES, Engine


def make_cases(n: int, *, patients: int | None = None) -> list[Case]:
    return [
        Case(
            f"images/{i}.png",
            (ImageRef(Path(f"{i}.png")),),
            (("benign", "malignant")[i % 2],),
            "train",
            patient_id=f"p{i % patients}" if patients else None,
        )
        for i in range(n)
    ]


def vectors(n: int, d: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


def build(
    n: int = 40, d: int = 16, *, seed: int = 0, patients: int | None = None, **more: object
) -> CaseIndex:
    arguments: dict[str, object] = {"dataset": "toy", "encoder": "enc-1"} | more
    return CaseIndex.build(vectors(n, d, seed), make_cases(n, patients=patients), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("shape", "pooled"), [((300, 64), True), ((80, 24, 7, 7), False)], ids=["pooled", "unpooled"]
)
def test_parity_with_scikit_learn(shape: tuple[int, ...], pooled: bool, engine: Engine) -> None:
    """Same neighbours in the same order; similarity = 1 - cosine distance."""
    rng = np.random.default_rng(1)
    # Like real features: not negative, with a common part, so that similarities are high and close.
    train = np.maximum(rng.standard_normal(shape, dtype=np.float32) + 0.5, 0)
    query = np.maximum(rng.standard_normal((37, *shape[1:]), dtype=np.float32) + 0.5, 0)
    index = CaseIndex.build(
        train, make_cases(shape[0]), dataset="toy", encoder="e", pooled=pooled, engine=engine
    )
    flat = [a.reshape(len(a), -1).astype(np.float64) for a in (train, query)]
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in flat]
    oracle = NearestNeighbors(n_neighbors=10, metric="cosine", algorithm="brute").fit(unit[0])
    distances, positions = oracle.kneighbors(unit[1])
    ours, found = index.kneighbors(query, 10)
    assert np.array_equal(found, positions)
    assert np.allclose(ours, distances, atol=2e-7)
    neighbours = index.search(query, 10)
    assert [[index.case_ids.index(n.case_id) for n in row] for row in neighbours] == positions.tolist()
    assert np.allclose([[1 - n.similarity for n in row] for row in neighbours], distances, atol=2e-7)


@settings(max_examples=80, deadline=None)
@given(
    rows=hnp.arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=st.integers(-2, 2)),
    k=st.integers(1, 40),
    engine=st.sampled_from(ENGINES),
)
def test_search_is_the_sorted_list_whatever_the_ties(
    rows: NDArray[np.float32], k: int, engine: Engine
) -> None:
    """Small integers make many exact ties: order by similarity, then by position."""
    rows = rows[np.abs(rows).sum(axis=1) > 0]
    if len(rows) == 0:
        return
    index = CaseIndex.build(rows, make_cases(len(rows)), dataset="toy", encoder="e", engine=engine)
    units = np.asarray(index.embeddings, dtype=np.float64)
    for query, neighbours in zip(rows, index.search(rows, k), strict=True):
        unit = (query / np.linalg.norm(query.astype(np.float64))).astype(np.float32).astype(np.float64)
        similarity = (units * unit).sum(axis=1)
        expected = sorted(range(len(rows)), key=lambda i: (-similarity[i], i))[:k]
        assert [index.case_ids.index(n.case_id) for n in neighbours] == expected
        assert all(-1 <= n.similarity <= 1 for n in neighbours)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 40),
    k=st.integers(1, 50),
    seed=st.integers(0, 1000),
    patients=st.integers(1, 6),
    engine=st.sampled_from(ENGINES),
)
def test_excluding_is_deleting(n: int, k: int, seed: int, patients: int, engine: Engine) -> None:
    """What is found with a patient excluded is what is found in an index without the patient's cases."""
    cases = make_cases(n, patients=patients)
    data = vectors(n, 5, seed)
    index = CaseIndex.build(data, cases, dataset="toy", encoder="e", engine=engine)
    found = index.search(data, k, exclude=[c.id for c in cases], exclude_clusters=[c.cluster for c in cases])
    for query, case, neighbours in zip(data, cases, found, strict=True):
        mine = {c.id for c in cases if c.patient_id == case.patient_id}
        assert not mine & {neighbour.case_id for neighbour in neighbours}
        if len(mine) == n:
            assert neighbours == ()
            continue
        expected = index.without(mine).search(query[None], k)[0]
        assert [(x.case_id, x.similarity) for x in neighbours] == [
            (x.case_id, x.similarity) for x in expected
        ]


def test_batching_and_engine_do_not_change_the_answer() -> None:
    index = build(200, 32)
    queries = vectors(50, 32, seed=9)
    whole = index.search(queries, 7)
    assert [index.search(query[None], 7)[0] for query in queries] == whole
    other = CaseIndex(
        index.embeddings, index.entries, dataset="toy", encoder="enc-1", pooled=True, engine="numpy"
    )
    assert other.search(queries, 7) == whole


def test_a_case_finds_itself_first_unless_excluded() -> None:
    index = build()
    data = vectors(40, 16)
    assert [row[0].case_id for row in index.search(data * 3.5, 1)] == list(index.case_ids)
    assert index.search(data[:1], 1)[0][0].similarity == pytest.approx(1, abs=1e-6)
    first = index.search(data, 1, exclude=index.case_ids)
    assert all(row[0].case_id != mine for row, mine in zip(first, index.case_ids, strict=True))
    some = index.search(data[:2], 1, exclude=[None, index.case_ids[1]])
    assert some[0][0].case_id == index.case_ids[0]
    assert some[1][0].case_id != index.case_ids[1]


def test_a_cluster_may_be_a_patient_a_group_a_case_or_several() -> None:
    cases = make_cases(4)
    cases = [
        replace(cases[0], patient_id="anna"),
        replace(cases[1], group="lesion-7"),
        cases[2],
        replace(cases[3], patient_id="bert", group="lesion-8"),
    ]
    index = CaseIndex.build(np.eye(4, dtype=np.float32) + 0.1, cases, dataset="toy", encoder="e")
    query = np.ones((1, 4), dtype=np.float32)

    def left(cluster: object) -> set[str]:
        (row,) = index.search(query, 9, exclude_clusters=[cluster])  # type: ignore[list-item]
        return {neighbour.case_id[7] for neighbour in row}

    assert left(None) == {"0", "1", "2", "3"}
    assert left("anna") == {"1", "2", "3"}
    assert left("lesion-7") == {"0", "2", "3"}
    assert left(cases[2].cluster) == {"0", "1", "3"}
    assert left("lesion-8") == {"0", "1", "2"}
    assert left(("anna", "bert")) == {"1", "2"}
    assert left("nobody") == {"0", "1", "2", "3"}


def test_provenance() -> None:
    index = build()
    (neighbour, *_), *_ = index.search(vectors(1, 16, seed=4), 3)
    assert neighbour.dataset == "toy"
    assert neighbour.index_version == index.version
    assert neighbour.labels == index.entries[index.case_ids.index(neighbour.case_id)].labels


def test_version_depends_on_content_alone() -> None:
    index = build()
    assert build().version == index.version
    assert len(index.version) == 16
    others = [
        build(seed=1),
        build(39),
        build(patients=3),
        build(dataset="other"),
        build(encoder="enc-2"),
        build(pooled=False),
        index.without([index.case_ids[5]]),
    ]
    assert len({other.version for other in [index, *others]}) == 1 + len(others)
    # A scale that is a power of two leaves the directions untouched to the last bit.
    assert (
        CaseIndex.build(vectors(40, 16) * 4, make_cases(40), dataset="toy", encoder="enc-1").version
        == index.version
    )


@pytest.mark.parametrize("pooled", [True, False])
def test_saving_and_loading(tmp_path: Path, pooled: bool) -> None:
    index = build(patients=5, pooled=pooled)
    index.save_pretrained(tmp_path / "index")
    again = CaseIndex.from_pretrained(tmp_path / "index", expect_encoder="enc-1")
    assert isinstance(again.embeddings, np.memmap), "stays on disk"
    assert (again.version, again.entries, again.dataset, again.pooled, len(again), again.dim) == (
        index.version,
        index.entries,
        "toy",
        pooled,
        40,
        16,
    )
    queries = vectors(9, 16, seed=3)
    clusters = ["p1"] * 9
    assert again.search(queries, 5, exclude_clusters=clusters) == index.search(
        queries, 5, exclude_clusters=clusters
    )
    from safetensors.numpy import load_file

    assert np.array_equal(
        load_file(tmp_path / "index" / "embeddings.safetensors")["embeddings"], index.embeddings
    )
    assert sorted(p.name for p in (tmp_path / "index").iterdir()) == [
        "README.md",
        "cases.jsonl",
        "config.json",
        "embeddings.safetensors",
    ]


def test_saving_over_the_folder_it_was_loaded_from(tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)
    loaded = CaseIndex.from_pretrained(tmp_path)
    smaller = loaded.without(loaded.case_ids[:3])
    loaded.save_pretrained(tmp_path)
    smaller.save_pretrained(tmp_path)
    assert loaded.search(vectors(2, 16), 4) == build().search(vectors(2, 16), 4), (
        "the old mapping still holds"
    )
    assert CaseIndex.from_pretrained(tmp_path).case_ids == smaller.case_ids


def test_patient_ids_are_not_written(tmp_path: Path) -> None:
    cases = [replace(case, patient_id=f"Mustermann-{i}") for i, case in enumerate(make_cases(3))]
    CaseIndex.build(vectors(3, 4), cases, dataset="toy", encoder="e").save_pretrained(tmp_path)
    assert all(b"Mustermann" not in path.read_bytes() for path in tmp_path.iterdir())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("index")
    build(6, 4).save_pretrained(folder)
    name = data.draw(st.sampled_from(["embeddings.safetensors", "cases.jsonl"]))
    content = bytearray((folder / name).read_bytes())
    spot = data.draw(st.integers(0, len(content) - 1))
    content[spot] ^= data.draw(st.integers(1, 255))
    (folder / name).write_bytes(content)
    try:
        index = CaseIndex.from_pretrained(folder)
    except ModelError:
        return
    # What is not noticed must not matter (spaces in JSON, say).
    original = build(6, 4)
    assert index.entries == original.entries
    assert np.array_equal(index.embeddings, original.embeddings)


@pytest.mark.parametrize("name", ["embeddings.safetensors", "cases.jsonl", "config.json"])
@pytest.mark.parametrize("harm", ["missing", "empty", "short", "text"])
def test_damaged_folders_are_refused(tmp_path: Path, name: str, harm: str) -> None:
    build().save_pretrained(tmp_path)
    path = tmp_path / name
    if harm == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes({"empty": b"", "short": content[: len(content) * 2 // 3], "text": b"hello"}[harm])
    with pytest.raises(ModelError) as error:
        CaseIndex.from_pretrained(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_another_encoder_format_or_kind_is_refused(tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="made by the encoder enc-1, not by enc-2"):
        CaseIndex.from_pretrained(tmp_path, expect_encoder="enc-2")
    config = json.loads((tmp_path / "config.json").read_text())
    for change, message in [
        ({"schema": 99}, "format 99"),
        ({"kind": "specialist"}, "another kind"),
        ({"n": 41}, "damaged"),
        ({"dim": "16"}, "no valid 'dim'"),
        ({"version": "0" * 16}, "not that of version"),
        ({"dataset": "other"}, "not that of version"),
    ]:
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=message):
            CaseIndex.from_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no such folder"):
        CaseIndex.from_pretrained(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        CaseIndex.from_pretrained(tmp_path / "empty")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write the index"):
        build().save_pretrained(tmp_path / "file")


@pytest.mark.parametrize("split", ["val", "test"])
def test_only_training_cases_are_indexed(split: str) -> None:
    cases = make_cases(3)
    cases[1] = replace(cases[1], split=split)  # type: ignore[arg-type]
    with pytest.raises(LeakageError, match=r"images/1\.png.*training cases only"):
        CaseIndex.build(vectors(3, 4), cases, dataset="toy", encoder="e")


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_useless_embeddings_are_refused(value: float) -> None:
    data = vectors(3, 4)
    data[2] = value
    with pytest.raises(ModelError, match=r"images/2\.png is zero or not finite"):
        CaseIndex.build(data, make_cases(3), dataset="toy", encoder="e")
    with pytest.raises(ValueError, match="query 2 is zero or not finite"):
        build(3, 4).search(data)


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1.0, 1e20, 3e37])
def test_any_finite_scale_is_normalised(scale: float) -> None:
    index = CaseIndex.build(vectors(5, 4) * np.float32(scale), make_cases(5), dataset="toy", encoder="e")
    assert np.allclose(np.linalg.norm(index.embeddings, axis=1), 1, atol=1e-5)


def test_misuse_is_refused() -> None:
    index = build()
    with pytest.raises(ValueError, match="do not fit 3 cases"):
        CaseIndex.build(vectors(2, 4), make_cases(3), dataset="t", encoder="e")
    with pytest.raises(ValueError, match="at least one case"):
        CaseIndex.build(vectors(0, 4), [], dataset="t", encoder="e")
    with pytest.raises(ValueError, match=r"images/0\.png stands twice"):
        CaseIndex.build(vectors(2, 4), make_cases(1) * 2, dataset="t", encoder="e")
    with pytest.raises(ValueError, match="engine 'annoy'"):
        build(engine="annoy")
    with pytest.raises(ValueError, match="dimension 16"):
        index.search(vectors(2, 17))
    with pytest.raises(ValueError, match="k is 0"):
        index.search(vectors(2, 16), 0)
    with pytest.raises(ValueError, match="1 exclusions for 2 queries"):
        index.search(vectors(2, 16), exclude=["a"])
    with pytest.raises(ValueError, match="0 exclusions for 2 queries"):
        index.search(vectors(2, 16), exclude_clusters=[])
    with pytest.raises(ValueError, match="nobody is not in the index"):
        index.without(["nobody"])
    with pytest.raises(LeakageError, match="all 40 cases"):
        index.without(index.case_ids)
    with pytest.raises(ValueError, match="read-only"):
        index.embeddings[0] = 0


def test_small_and_empty_searches() -> None:
    index = build(3)
    assert [len(row) for row in index.search(vectors(2, 16), 10)] == [3, 3]
    assert index.kneighbors(vectors(2, 16), 10)[0].shape == (2, 3)
    assert index.search(np.zeros((0, 16), np.float32)) == []
    assert index.without([]) is index


def test_importing_is_light() -> None:
    """The index's module pulls in neither torch nor faiss nor scikit-learn before it is searched."""
    heavy = "{'torch', 'faiss', 'sklearn', 'PIL'}"
    code = f"import sys, gsco.retrieval; print(*({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


def test_errors_survive_pickling() -> None:
    """They cross process borders when images are read in workers."""
    with pytest.raises(LeakageError) as error:
        build().without(build().case_ids)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
