from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gsco.disk import as_storage_error, write_atomic
from gsco.errors import RunError, StorageError
from gsco.evaluation.runfolder import RunFolder


def line(number: int, arm: str = "gsco") -> dict[str, object]:
    return {"case_id": f"images/{number}.png", "arm": arm, "prediction": "maß – ü", "prompt": "a\nb"}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.path.mkdir()
    return made


class TestLog:
    def test_what_is_appended_is_read_back_in_order(self, folder: RunFolder) -> None:
        folder.append([line(1), line(1, "rad")])
        folder.append([])
        folder.append([line(2)])
        assert folder.recover_log() == [line(1), line(1, "rad"), line(2)]

    def test_no_log_yet_is_an_empty_log(self, folder: RunFolder) -> None:
        assert folder.recover_log() == []
        assert not folder.log.exists()

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_cut_anywhere_it_keeps_every_whole_line_and_nothing_else(
        self, folder: RunFolder, data: st.DataObject
    ) -> None:
        folder.log.unlink(missing_ok=True)
        lines = [line(number) for number in range(4)]
        folder.append(lines)
        whole = folder.log.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        folder.log.write_bytes(whole[:cut])
        kept = folder.recover_log()
        assert kept == lines[: whole[:cut].count(b"\n")]
        folder.append(lines[len(kept) :])
        assert folder.log.read_bytes() == whole

    def test_a_torn_end_of_zero_bytes_is_cut_off(self, folder: RunFolder) -> None:
        folder.append([line(1)])
        before = folder.log.read_bytes()
        folder.log.write_bytes(before + b"\0" * 40)
        assert folder.recover_log() == [line(1)]
        assert folder.log.read_bytes() == before

    def test_damage_in_the_middle_is_an_error_that_names_the_line(self, folder: RunFolder) -> None:
        folder.append([line(1), line(2), line(3)])
        lines = folder.log.read_text(encoding="utf-8").splitlines()
        lines[1] = lines[1][:10]
        folder.log.write_text("\n".join(lines) + "\n", encoding="utf-8")
        with pytest.raises(RunError, match="line 2 is damaged"):
            folder.recover_log()

    def test_a_case_and_arm_standing_twice_is_an_error(self, folder: RunFolder) -> None:
        folder.append([line(1), line(1)])
        with pytest.raises(RunError, match=r"line 2 repeats case 'images/1\.png'"):
            folder.recover_log()

    def test_a_value_json_cannot_hold_leaves_the_log_alone(self, folder: RunFolder) -> None:
        folder.append([line(1)])
        with pytest.raises(ValueError, match="JSON"):
            folder.append([{**line(2), "probabilities": float("nan")}])
        assert folder.recover_log() == [line(1)]


class TestFull:
    """A full disk, by a limit on file size: the kernel refuses the write as it does when space is out."""

    def in_child(self, folder: Path, body: str) -> subprocess.CompletedProcess[str]:
        script = f"""
        import resource, signal, sys
        from pathlib import Path
        from gsco.errors import StorageError
        from gsco.disk import write_atomic
        from gsco.evaluation.runfolder import RunFolder
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        folder = RunFolder(Path({str(folder)!r}))
        def limit(n): resource.setrlimit(resource.RLIMIT_FSIZE, (n, resource.RLIM_INFINITY))
        """
        code = textwrap.dedent(script) + textwrap.dedent(body)
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    def test_an_append_that_does_not_fit_leaves_the_log_as_it_was(self, folder: RunFolder) -> None:
        folder.append([line(1)])
        before = folder.log.read_bytes()
        done = self.in_child(
            folder.path,
            f"""
            limit({len(before) + 30})
            try:
                folder.append([{line(2)!r}])
            except StorageError as error:
                print(error)
            """,
        )
        assert "cases.jsonl: no space left to write to" in done.stdout, done.stderr
        assert len(done.stdout.splitlines()) == 1
        assert folder.log.read_bytes() == before

    def test_a_file_that_cannot_be_replaced_stays_what_it_was(self, folder: RunFolder) -> None:
        folder.write_json("metrics.json", {"n": 1})
        done = self.in_child(
            folder.path,
            """
            limit(100)
            try:
                folder.write_json("metrics.json", {"n": list(range(1000))})
            except StorageError as error:
                print(error)
            """,
        )
        assert "no space left" in done.stdout, done.stderr
        assert folder.read_json("metrics.json") == {"n": 1}
        assert [path.name for path in folder.path.iterdir()] == ["metrics.json"]


def test_a_libraries_own_error_about_space_is_recognised(tmp_path: Path) -> None:
    try:
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise RuntimeError("SafetensorError: I/O error") from error
    except RuntimeError as error:
        assert isinstance(as_storage_error(error, tmp_path), StorageError)
    assert as_storage_error(ValueError("something else")) is None


def test_write_atomic_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


class TestLock:
    def test_a_second_process_is_refused_and_told_who_holds_it(self, tmp_path: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from gsco.evaluation.runfolder import RunFolder\n"
            f"with RunFolder(Path({str(tmp_path)!r})).locked(): print('held', flush=True); sys.stdin.read()"
        )
        holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with (
                pytest.raises(RunError, match=f"is being written by process {holder.pid}"),
                RunFolder(tmp_path).locked(),
            ):
                pass
            os.kill(holder.pid, signal.SIGKILL)
            holder.wait()
            with RunFolder(tmp_path).locked() as taken:  # a dead holder's lock is free
                assert (taken.path / RunFolder.LOCK).read_text() == str(os.getpid())
        finally:
            holder.kill()
            holder.communicate()

    def test_opening_sweeps_what_a_killed_process_left(self, folder: RunFolder) -> None:
        (folder.path / ".metrics.json.1.tmp").write_text("half")
        (folder.path / "specialists").mkdir()
        (folder.path / "specialists" / ".knn.tmp").mkdir()
        (folder.path / "specialists" / ".knn.tmp" / "model.safetensors").write_text("half")
        with folder.locked():
            left = sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*"))
        assert left == ["run.lock", "specialists"]

    def test_a_file_in_the_way_is_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("")
        with pytest.raises(RunError, match="is a file"), RunFolder(tmp_path / "run").locked():
            pass


def test_building_leaves_a_whole_folder_or_none(folder: RunFolder) -> None:
    target = folder.specialists / "knn"
    with pytest.raises(ValueError, match="boom"), folder.building(target) as temporary:
        (temporary / "config.json").write_text("{}")
        raise ValueError("boom")
    assert list(folder.specialists.iterdir()) == []
    with folder.building(target) as temporary:
        (temporary / "config.json").write_text("{}")
        assert not target.exists()
    assert json.loads((target / "config.json").read_text()) == {}


def test_a_damaged_json_file_is_named(folder: RunFolder) -> None:
    (folder.path / "dataset.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match=r"dataset\.json: is damaged"):
        folder.read_json("dataset.json")
    assert folder.read_json("other.json") is None
