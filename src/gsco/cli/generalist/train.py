"""``gsco generalist train``: an adapter of the embedded generalist, by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example:  gsco generalist train nano --root ../data --out my-nano"


def train(
    recipe: Annotated[
        str,
        typer.Argument(help="A recipe file, or `nano`: the one of the shipped weights.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the adapter; called again, it goes on.", show_default=False)
    ],
    root: Annotated[Path, typer.Option(help="Folder below which the recipe's datasets lie.")] = Path(),
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to compute with; all by default.")
    ] = None,
) -> None:
    """Train an adapter by a recipe: records from datasets, then each stage in turn."""
    from gsco import embedded
    from gsco.cli.console import stderr
    from gsco.cli.progress import reporter
    from gsco.generalist.nano.assemble import assemble_base
    from gsco.teaching.recipe import read_recipe, shipped_recipe, train_by_recipe

    plan = read_recipe(shipped_recipe() if recipe == "nano" else Path(recipe))
    progress = reporter(stderr())
    assemble_base(download=True, progress=progress.note)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with progress.stage("training") as step:
        train_by_recipe(
            plan,
            out,
            root=root,
            cache=embedded.cache_home(),
            progress=lambda what, done, total: step(done, total, what),
        )
    typer.echo(str(out))
