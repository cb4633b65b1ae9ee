"""``gsco phantoms``: a synthetic dataset from a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example:  gsco phantoms phantoms/ --n 240 --seed 7"


def phantoms(
    out: Annotated[
        Path, typer.Argument(help="Folder to write; it becomes a dataset folder.", show_default=False)
    ],
    n: Annotated[int, typer.Option("--n", min=12, help="How many images.")] = 240,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same images.")] = 0,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Side of an image in pixels.")] = 224,
) -> None:
    """Make chest-radiograph-like phantoms with labels, reports and questions. They are synthetic."""
    from gsco.cases.phantoms import generate_phantoms
    from gsco.cli.console import stderr
    from gsco.cli.progress import reporter

    with reporter(stderr()).stage(f"{n} synthetic phantoms"):
        generate_phantoms(out, n=n, seed=seed, size=size)
    typer.echo(f"{out}: {n} synthetic images (phantoms, not patients)")
    typer.echo(f"next: gsco run --data {out} --out runs/phantoms")
