"""``gsco demo``: the main job on a small set, in minutes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

EXAMPLE = "Example:  gsco demo --out runs/demo"

DEMO: dict[str, Any] = {
    "specialists": ("linear_probe", "knn", "texture_probe", "small_cnn"),
    "quick": True,
    "limit": 78,
    "calibration_cases": 48,
}
"""What the demo leaves out, so that it ends within five minutes on two cores; the output says so."""

_DOWNLOAD_SECONDS = 20
_DOWNLOAD = (
    "import sys, medmnist; medmnist.BreastMNIST(split='train', download=True, root=sys.argv[1], size=28)"
)


def demo(
    out: Annotated[Path, typer.Option(help="Run folder to make.")] = Path("runs/demo"),
    generalist: Annotated[str, typer.Option(help="As in `gsco run`.")] = "nano",
    json: Annotated[bool, typer.Option("--json", help="Print metrics.json to stdout.")] = False,
) -> None:
    """Run the main job on BreastMNIST where a copy is at hand or can be had, else on phantoms."""
    from gsco.cli.console import stderr
    from gsco.cli.run import execute

    console = stderr()
    data = find_breastmnist(out.parent / "demo-data")
    if data is not None:
        console.print(f"demo on BreastMNIST ({data})", markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(
            "BreastMNIST is not at hand and cannot be downloaded: the demo takes synthetic phantoms.",
            highlight=False,
            soft_wrap=True,
        )
        data = make_phantoms(out.parent / "demo-data" / "phantoms")
    console.print(
        f"a quick setting: {len(DEMO['specialists'])} specialists, fewer epochs, {DEMO['limit']} test cases",
        highlight=False,
        soft_wrap=True,
    )
    free = next(path for path in _candidates(out) if not (path / "config.yaml").exists())
    execute({"data": data, "generalist": generalist, **DEMO}, out=free, json=json)


def _candidates(out: Path) -> Any:
    """`out`, then `out`-2, `out`-3 …: a second demo never touches the first one's run."""
    yield out
    number = 2
    while True:
        yield out.with_name(f"{out.name}-{number}")
        number += 1


def find_breastmnist(folder: Path) -> Path | None:
    """A local copy of BreastMNIST, else one downloaded into `folder`, else None.

    The download (0.5 MB) is medmnist's own, which checks the file's hash; it is given a short time.
    """
    from gsco.cases import find_dataset

    found = find_dataset("breastmnist")
    if found is not None:
        return found
    target = folder / "breastmnist.npz"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _DOWNLOAD, str(folder)],
            capture_output=True,
            timeout=_DOWNLOAD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        done = None
    if done is not None and done.returncode == 0 and target.is_file():
        return target
    target.unlink(missing_ok=True)
    return None


def make_phantoms(folder: Path) -> Path:
    """The demo's phantoms, made once."""
    from gsco.cases.phantoms import generate_phantoms

    if not (folder / "dataset.yaml").is_file():
        generate_phantoms(folder, n=360, seed=7, size=128)
    return folder
