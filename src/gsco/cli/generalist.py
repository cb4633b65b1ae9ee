"""``gsco generalist``: training the embedded generalist."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The generalist: train MedDr-nano, try whether a model hears evidence or copies it.",
    no_args_is_help=True,
    epilog="Example:  gsco generalist train nano --root ../data --out my-nano",
)

_TRAIN_EXAMPLE = "Example:  gsco generalist train nano --root ../data --out my-nano"


@app.command("train", epilog=_TRAIN_EXAMPLE)
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


@app.command("trial", epilog="Example:  gsco generalist trial --generalist nano --data my_dataset --n 100")
def trial(
    generalist: Annotated[str, typer.Option(help="Which generalist; as for `gsco run`.")] = "nano",
    data: Annotated[
        Path | None, typer.Option(help="A dataset whose test images are shown; without one, text only.")
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Prompts of each condition.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the prompts drawn.")] = 0,
    template: Annotated[str, typer.Option(help="Prompt template.")] = "evidence",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to compute with; all by default.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """Try whether a generalist hears evidence, or copies it, on label sets from no training record."""
    import dataclasses

    from gsco.cases import load_dataset
    from gsco.cli.console import print_json, stderr, stdout
    from gsco.cli.progress import reporter
    from gsco.generalist import load_generalist
    from gsco.teaching.trial import MEANING, make_trial, run_trial

    items = make_trial(n=n, seed=seed, dataset=load_dataset(data) if data else None, template=template)
    model = load_generalist(generalist)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with reporter(stderr()).stage("trial", total=len(items)) as step:
        results = run_trial(model, items, progress=lambda done, total: step(done, total))
    if json:
        print_json([dataclasses.asdict(result) for result in results])
        return
    from rich.table import Table

    table = Table("condition", "n", "answered truly", "a copy would", title=f"Trial of {model.name}")
    for result in results:
        row = (
            MEANING[result.condition],
            str(result.n),
            f"{result.accuracy:.1%}",
            f"{result.copy_accuracy:.1%}",
        )
        table.add_row(*row)
    stdout().print(table)
