"""What every test may use: one CPU thread, small datasets, and the real sets where they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# one thread: tests run beside other work, and results must not depend on the machine's core count
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# a shared machine is slow now and then: an example is judged by its result, not by its time
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

ROOT = Path(__file__).resolve().parent.parent

_QUICK: dict[str, Any] = {
    "specialists": ("linear_probe", "knn"),
    "generalist": "scripted:percent",
    "template": "evidence",
    "neighbours": 3,
    "batch_cases": 2,
    "resamples": 200,
    "threads": 1,
    "seed": 5,
}


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real datasets: ``$GSCO_SHARED_DATA`` or ``../shared/data`` beside the checkout."""
    given = os.environ.get("GSCO_SHARED_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real datasets at {folder}")
    return folder


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder of 60 small synthetic phantoms; read only."""
    from gsco.cases.phantoms import generate_phantoms

    folder = tmp_path_factory.mktemp("phantoms") / "phantoms"
    generate_phantoms(folder, n=60, seed=3, size=64)
    return folder


@pytest.fixture(scope="session")
def feature_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature cache that the tests of one session share."""
    return tmp_path_factory.mktemp("cache")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the base parts of MedDr-nano where they were not pulled."""
    if not any(item.get_closest_marker("nano") for item in items):
        return
    from gsco.embedded import EMBEDDED, locate

    missing = [name for name in EMBEDDED if locate(name) is None]
    if missing:
        skip = pytest.mark.skip(reason=f"{', '.join(missing)} not here: run `gsco models pull nano`")
        for item in items:
            if item.get_closest_marker("nano"):
                item.add_marker(skip)


@pytest.fixture
def quick() -> dict[str, Any]:
    """Settings of a run that takes seconds: two heads on features and a scripted generalist."""
    return dict(_QUICK)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, phantom_folder: Path, feature_cache: Path) -> Path:
    """A whole run on the phantoms with quick specialists and a scripted generalist; read only."""
    from gsco import RunConfig, run

    out = tmp_path_factory.mktemp("runs") / "phantoms"
    run(RunConfig(data=phantom_folder, **_QUICK), out, cache=feature_cache)
    return out
