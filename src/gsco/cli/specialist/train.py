"""``gsco specialist train``: one specialist from a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example:  gsco specialist train --data my_dataset --recipe linear_probe --out my-specialist"


def train(
    data: Annotated[
        Path, typer.Option(help="Dataset folder, MedMNIST .npz or ImageFolder.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder of the specialist.", show_default=False)],
    recipe: Annotated[str, typer.Option(help="How it is trained; `recipe:backbone` names a backbone.")],
    size: Annotated[int | None, typer.Option(min=8, help="Side of the input in pixels.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that draws.")] = 0,
    quick: Annotated[bool, typer.Option(help="Fewer epochs.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to compute with; all by default.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """Train one specialist on a dataset's training cases and calibrate it on its validation cases."""
    from gsco import embedded
    from gsco.cases import load_dataset
    from gsco.cli.console import print_json, stderr, stdout
    from gsco.cli.progress import reporter
    from gsco.specialists import train_specialist

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    dataset = load_dataset(data, seed=seed)
    with reporter(stderr()).stage(f"specialist {recipe}") as step:
        made = train_specialist(
            recipe,
            dataset,
            cache=embedded.cache_home(),
            out=out,
            seed=seed,
            quick=quick,
            size=size,
            progress=lambda what, done, total: step(done, total, what),
        )
    if json:
        print_json({"folder": str(out), "name": made.name, "validation": made.val_metrics})
        return
    from rich.table import Table

    table = Table("figure", "on validation", title=f"{made.name}, saved in {out}")
    for key, value in made.val_metrics.items():
        table.add_row(key, f"{value:.0f}" if key == "n" else f"{value:.3f}")
    stdout().print(table)
