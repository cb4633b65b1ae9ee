"""The run: from a dataset to parts, answers, figures and a page; killed at any moment, it resumes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsco.cases import Task
from gsco.disk import as_storage_error, write_atomic
from gsco.embedded import cache_home
from gsco.errors import RunError
from gsco.evaluation.answering import answer_cases
from gsco.evaluation.calibrating import calibrate
from gsco.evaluation.conclusion import RunResult, check_complete, conclude
from gsco.evaluation.config import RunConfig
from gsco.evaluation.data import read_dataset
from gsco.evaluation.environment import describe_environment, set_threads
from gsco.evaluation.heatmaps import make_heatmaps
from gsco.evaluation.parts import check_recipes, gather_evidence, make_parts
from gsco.evaluation.pooling import pool_answers
from gsco.evaluation.progress import Reporter, Silent
from gsco.evaluation.runfolder import RunFolder
from gsco.evaluation.work import Work

if TYPE_CHECKING:
    from gsco.generalist import Generalist


def run(
    config: RunConfig,
    out: Path | str,
    *,
    generalist: Generalist | None = None,
    cache: Path | None = None,
    progress: Reporter | None = None,
) -> RunResult:
    """Start a run in a new folder and see it through.

    Args:
        config: what to run.
        out: the folder to make; it may not hold a run already.
        generalist: a generalist of your own instead of the one that `config` names.
        cache: where features are kept between runs; ``$GSCO_CACHE`` or ``~/.cache/gsco`` by default.
        progress: where progress goes; nowhere by default.

    Raises:
        UserError: the data, a model, or the folder cannot be used; the message says what to do.
    """
    folder = RunFolder(Path(out))
    progress = progress or Silent()
    folder.check_free()
    with progress.stage("loading libraries"):
        config = _settle(config, generalist)
    with _plain_errors(folder), folder.locked():
        folder.forget_beginnings()
        write_atomic(folder.config, config.to_yaml())
        return _execute(folder, config, generalist, cache, progress)


def resume(
    out: Path | str,
    *,
    changes: dict[str, Any] | None = None,
    generalist: Generalist | None = None,
    cache: Path | None = None,
    progress: Reporter | None = None,
) -> RunResult:
    """Continue a run where it stopped; its figures are those of a run that was never interrupted.

    Args:
        out: the run folder.
        changes: settings that were given by hand; one that contradicts the run's own is an error.
        generalist: the generalist of your own that the run was started with.
        cache: as in `run`.
        progress: as in `run`.

    Raises:
        RunError: the folder holds no run, or one of another config, data or generalist.
    """
    folder = RunFolder(Path(out))
    config = RunConfig.from_yaml(folder.config)
    clashes = config.contradictions(config.with_changes(changes or {}))
    if clashes:
        raise RunError(
            f"was started with other settings ({'; '.join(clashes)})",
            where=str(out),
            remedy="Resume it without them, or start a new run with another --out.",
        )
    progress = progress or Silent()
    with progress.stage("loading libraries"):
        set_threads(config.threads)
    with _plain_errors(folder), folder.locked():
        return _execute(folder, config, generalist, cache, progress)


def rerender(out: Path | str, *, progress: Reporter | None = None) -> RunResult:
    """Make ``metrics.json`` and ``report.html`` of a finished run again, from its log alone.

    Raises:
        RunError: the folder holds no run, or one that is not finished.
    """
    folder = RunFolder(Path(out))
    config = RunConfig.from_yaml(folder.config)
    if not folder.metrics.is_file():
        raise RunError(
            "is not finished", where=str(out), remedy=f"Continue it with `gsco run --resume {out}`."
        )
    with _plain_errors(folder), folder.locked():
        work = Work(folder, config, progress or Silent(), Path(), _session())
        lines = folder.recover_log()
        check_complete(work, lines)
        return conclude(work, lines)


@contextlib.contextmanager
def _plain_errors(folder: RunFolder) -> Iterator[None]:
    """A full disk is the user's to mend, whichever library met it."""
    try:
        yield
    except Exception as error:
        storage = as_storage_error(error, full=folder.path)
        if storage is None or storage is error:
            raise
        raise storage from error


def _session() -> dict[str, Any]:
    return {"started": datetime.now(UTC).isoformat(timespec="microseconds"), "stages": []}


def _settle(config: RunConfig, generalist: Generalist | None) -> RunConfig:
    """Fill in what was left to defaults, so that ``config.yaml`` says it, and refuse unknown names early."""
    from gsco.collaboration import get_template
    from gsco.generalist.loading import check_spec
    from gsco.specialists.registry import DEFAULT_TEAM

    get_template(config.template)
    if generalist is None:
        check_spec(config.generalist)
    check_recipes(config.specialists, config.backbone)
    changes: dict[str, Any] = {
        "specialists": config.specialists or tuple(DEFAULT_TEAM),
        "threads": set_threads(config.threads),
    }
    if generalist is not None:
        changes["generalist"] = generalist.name
    return config.with_changes(changes)


def _check_template(name: str, task: Task) -> None:
    """Let the template say now, not after all training, what it cannot put into words."""
    from gsco.collaboration import Evidence, get_template

    get_template(name).render(task, Evidence())


def _execute(
    folder: RunFolder,
    config: RunConfig,
    generalist: Generalist | None,
    cache: Path | None,
    progress: Reporter,
) -> RunResult:
    """All stages, each skipped where its result is on disk."""
    threads = set_threads(config.threads)
    work = Work(folder, config, progress, cache_home(cache), _session())
    _note_environment(work, threads)
    dataset, cases = read_dataset(work)
    if config.arms:
        _check_template(config.template, dataset.task)
        generalist = _ready_generalist(work, generalist)
    parts = make_parts(work, dataset, cases)
    asked = generalist if config.arms else None
    fits = calibrate(work, cases, parts, asked)
    evidence = gather_evidence(work, cases, parts, config.split)
    lines = answer_cases(work, dataset, cases, evidence, best=parts.best, generalist=asked, calibrations=fits)
    lines = pool_answers(work, parts, lines, fits)
    make_heatmaps(work, cases, lines, parts.specialists)
    return conclude(work, lines, dataset=dataset)


def _note_environment(work: Work, threads: int) -> None:
    """Write ``environment.json`` once; a resumed run elsewhere is noted, since figures may then differ."""
    now = describe_environment(threads)
    before = work.folder.read_json("environment.json")
    if before is None:
        work.folder.write_json("environment.json", now)
        return
    changed = sorted(
        name for name in before["packages"] if before["packages"][name] != now["packages"].get(name)
    )
    if changed or before["cpu"] != now["cpu"]:
        what = ", ".join(changed) if changed else "the processor"
        work.progress.note(f"started with another version of {what}: figures may differ in the last digits")


def _ready_generalist(work: Work, generalist: Generalist | None) -> Generalist:
    """The generalist, loaded before anything is trained, and the same as when the run was started."""
    with work.stage(f"generalist {work.config.generalist}"):
        from gsco.collaboration import check_arms
        from gsco.generalist import load_generalist, remark_of

        if generalist is None:
            generalist = load_generalist(work.config.generalist)
        now = {"schema": 1, "name": generalist.name, "fingerprint": generalist.fingerprint}
        check_arms(work.config.arms, generalist)
        remark = remark_of(generalist)
        if remark:
            now["remark"] = remark
            work.progress.note(remark)
        before = work.folder.read_json("generalist.json")
        if before is None:
            work.folder.write_json("generalist.json", now)
        elif before["fingerprint"] != now["fingerprint"]:
            raise RunError(
                f"was started with another {before['name']} (fingerprint {before['fingerprint'][:12]})",
                where=str(work.folder.path),
                remedy="Restore that model, or start a new run with another --out.",
            )
    return generalist
