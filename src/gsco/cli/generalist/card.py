"""``gsco generalist card``: a model card from what a folder says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example:  gsco generalist card meddr-hf --write"


def card(
    folder: Annotated[Path, typer.Argument(help="Folder of a model or an adapter.", show_default=False)],
    write: Annotated[bool, typer.Option("--write", help="Write README.md instead of printing it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a card that was written by hand.")] = False,
) -> None:
    """Print a model card: class, sizes, origin, training record, licence. What is not known is said to be."""
    from gsco.disk import write_atomic
    from gsco.errors import UserError
    from gsco.generalist.card import MARK, make_card

    text = make_card(folder)
    if not write:
        typer.echo(text)
        return
    path = folder / "README.md"
    if path.exists() and not force and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise UserError("was written by someone else", where=str(path), remedy="Give --force to replace it.")
    write_atomic(path, text)
    typer.echo(str(path))
