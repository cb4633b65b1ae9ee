"""``gsco generalist merge``: an adapter and its base as one model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example:  gsco generalist merge my-adapter --out my-model"


def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder of the adapter.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write.", show_default=False)],
    base: Annotated[
        str | None, typer.Option(help="Folder or hub id of its base; as the adapter states by default.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="bfloat16, float16 or float32; that of the base by default.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """Fold an adapter into the weights of its base; needs memory for the whole model."""
    import dataclasses

    from gsco.cli.console import print_json, stderr
    from gsco.cli.progress import reporter
    from gsco.generalist.merging import merge_adapter

    with reporter(stderr()).stage("merging"):
        made = merge_adapter(adapter, out, base=base, dtype=dtype)
    if json:
        print_json({"folder": str(out), **dataclasses.asdict(made)})
    else:
        typer.echo(str(out))
