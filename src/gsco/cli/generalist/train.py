"""``gsco generalist train``: MedDr-nano's adapter, or one of any vision-language model, by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gsco.cli.options import Threads

if TYPE_CHECKING:
    from gsco.generalist.finetune.recipe import FinetuneRecipe

EXAMPLE = "Example:  gsco generalist train nano --root ../data --out my-nano"


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe file, or a shipped one: `nano` (MedDr-nano's own weights), `meddr` (MedDr's"
            " recipe, for any vision-language model).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the adapter; called again, it goes on.", show_default=False)
    ],
    root: Annotated[
        Path, typer.Option(help="Folder that paths of the recipe and its data count from.")
    ] = Path(),
    model: Annotated[
        str | None,
        typer.Option(
            help="Model folder or hub id, before the recipe's (not for MedDr-nano).", show_default=False
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="InternVL meta file, before the recipe's (not for MedDr-nano).", show_default=False
        ),
    ] = None,
    threads: Threads = None,
) -> None:
    """Train an adapter by a recipe.

    On several GPUs: `torchrun --nproc-per-node N -m gsco generalist train ...`.
    """
    from gsco.errors import UserError
    from gsco.evaluation.environment import set_threads
    from gsco.generalist.finetune.recipe import is_finetune_recipe, read_finetune_recipe
    from gsco.teaching.recipe import recipe_content, recipe_file

    path = recipe_file(recipe)
    set_threads(threads)
    content = recipe_content(path)
    if is_finetune_recipe(content):
        _finetune(read_finetune_recipe(content, str(path), model=model, data=data), out, root)
    elif model or data:
        raise UserError("--model and --data are for recipes of other models than MedDr-nano", where=str(path))
    else:
        _nano(path, out, root)
    if _is_first_process():
        typer.echo(str(out))


def _is_first_process() -> bool:
    import os

    return os.environ.get("RANK", "0") == "0"


def _finetune(plan: FinetuneRecipe, out: Path, root: Path) -> None:
    from transformers.utils import logging

    from gsco.cli.console import stderr
    from gsco.cli.progress import reporter
    from gsco.generalist.finetune.run import finetune

    logging.disable_progress_bar()
    if not _is_first_process():
        finetune(plan, out, root=root)
        return
    progress = reporter(stderr())
    with progress.stage("training") as step:
        finetune(plan, out, root=root, progress=lambda what, done, total: step(done, total, what))


def _nano(path: Path, out: Path, root: Path) -> None:
    from gsco import embedded
    from gsco.cli.console import stderr
    from gsco.cli.progress import reporter
    from gsco.generalist.nano.assemble import assemble_base
    from gsco.teaching.recipe import read_recipe, train_by_recipe

    plan = read_recipe(path)
    progress = reporter(stderr())
    assemble_base(download=True, progress=progress.note)
    with progress.stage("training") as step:
        train_by_recipe(
            plan,
            out,
            root=root,
            cache=embedded.cache_home(),
            progress=lambda what, done, total: step(done, total, what),
        )
