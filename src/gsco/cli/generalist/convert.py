"""``gsco generalist convert``: a checkpoint in MedDr's old layout becomes a model folder of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example:  gsco generalist convert Sunanhe/MedDr_0401 --out meddr-hf"


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder or hub id of a checkpoint of InternVL-Chat V1.x, or a folder of a LoRA adapter.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder to write; called again after a kill, it goes on.", show_default=False)
    ],
    drop_unused_layers: Annotated[
        bool, typer.Option("--drop-unused-layers", help="Leave out vision layers that are never read.")
    ] = False,
    dtype: Annotated[
        str | None,
        typer.Option(help="bfloat16, float16 or float32; as they are by default.", show_default=False),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(help="System message of the chat template; the template's own by default."),
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="For an adapter: the converted model it belongs to.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """Convert MedDr, shard by shard, to the native InternVL class; logits stay what they were.

    Memory stays small, whatever a shard's size; disk is needed as much as the checkpoint has.
    """
    import dataclasses

    from gsco.cli.console import print_json, stderr
    from gsco.cli.progress import reporter
    from gsco.errors import UserError
    from gsco.generalist.internvl_chat import convert_adapter, convert_checkpoint
    from gsco.generalist.internvl_chat.adapter import is_adapter

    progress = reporter(stderr())
    adapting = is_adapter(source)
    of_checkpoints = {"--drop-unused-layers": drop_unused_layers, "--dtype": dtype, "--system": system}
    given = [name for name, value in of_checkpoints.items() if value not in (None, False)]
    if adapting and given:
        raise UserError(f"{given[0]} is for whole checkpoints, and this is an adapter", where=source)
    if base is not None and not adapting:
        raise UserError("--base is for adapters, and this holds no adapter_config.json", where=source)
    if adapting:
        adapter = convert_adapter(source, out, base=base)
        if json:
            print_json({"folder": str(adapter.folder), "modules": adapter.modules, "rank": adapter.rank})
        else:
            typer.echo(str(adapter.folder))
        return
    with progress.stage("converting, MB") as step:
        made = convert_checkpoint(
            source,
            out,
            drop_unused_layers=drop_unused_layers,
            dtype=dtype,
            system=system,
            progress=lambda what, done, total: step(done // 1_000_000, total // 1_000_000, what),
        )
    for note in made.notes:
        progress.note(note)
    if made.system_message:
        progress.note(f"system message of the chat template: {made.system_message}")
    if made.kept_shards:
        progress.note(f"{made.kept_shards} of {made.shards} shards were there already, and are whole")
    if json:
        print_json({**dataclasses.asdict(made), "folder": str(made.folder)})
    else:
        typer.echo(str(made.folder))
