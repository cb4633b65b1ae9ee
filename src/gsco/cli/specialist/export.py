"""``gsco specialist export``: a specialist as a graph for another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gsco.cases import Dataset
    from gsco.specialists import TrainedSpecialist

EXAMPLE = (
    "Example:  gsco specialist export my-specialist --to onnx --data my_dataset --out my-specialist-onnx"
)


def export(
    folder: Annotated[Path, typer.Argument(help="Folder of the specialist.", show_default=False)],
    to: Annotated[
        str,
        typer.Option(
            help="onnx, openvino, auto (the fastest that passes), or reference (checkpoint and results)."
        ),
    ] = "onnx",
    precision: Annotated[
        str, typer.Option(help="fp32, fp16, bf16 or int8; auto tries them itself.")
    ] = "fp32",
    data: Annotated[
        Path | None,
        typer.Option(help="Dataset whose validation images are compared on; needed below fp32 and for auto."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; FOLDER-TO-PRECISION by default.", show_default=False)
    ] = None,
    loss: Annotated[
        float, typer.Option(min=0, max=1, help="The most accuracy and macro-F1 may fall below fp32.")
    ] = 0.005,
    agreement: Annotated[
        float, typer.Option(min=0, max=1, help="Least share of equal answers below fp32.")
    ] = 0.99,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that draws.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to compute with; all by default.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """Write a specialist as one graph, and prove that it answers as before.

    In fp32 no probability may differ by more than 1e-4, in lower precision accuracy, macro-F1 and answers on
    validation cases must hold. What does not pass is not written. For the reference's scripts the weights are
    written as their checkpoint and, where a dataset is given, what they would say of its test split.
    """
    from gsco import embedded
    from gsco.cases import load_dataset
    from gsco.cli.console import print_json, stderr, stdout
    from gsco.cli.progress import reporter
    from gsco.specialists import load_specialist
    from gsco.specialists.export import Gate, export_specialist
    from gsco.specialists.fastest import export_fastest

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    source = load_specialist(folder, cache=embedded.cache_home())
    ending = to if to in {"auto", "reference"} else f"{to}-{precision}"
    target = out or folder.with_name(f"{folder.name}-{ending}")
    dataset = None if data is None else load_dataset(data, seed=seed)
    if to == "reference":
        written = _for_the_reference(source, target, dataset, embedded.cache_home())
        if json:
            print_json({"files": [str(path) for path in written]})
        else:
            typer.echo("\n".join(map(str, written)))
        return
    gate = Gate(loss, agreement)
    with reporter(stderr()).stage(f"export {source.name}") as step:
        said = 0

        def say(what: str) -> None:
            nonlocal said
            step(said, None, what)
            said += 1

        if to == "auto":
            report = export_fastest(source, target, dataset=dataset, gate=gate, seed=seed, say=say)
        else:
            made = export_specialist(
                source, target, to=to, precision=precision, dataset=dataset, gate=gate, seed=seed, say=say
            )
            report = {"kept": f"{to} {precision}", **made.report}
    if json:
        print_json({"folder": str(target), **report})
        return
    from rich.table import Table

    rows = report.pop("candidates", [])
    if rows:
        tried = Table("candidate", "CPU ms, batch 1", "batch 16", "accuracy", "macro-F1", "verdict")
        for row in rows:
            figures = (("batch_1", ".2f"), ("batch_16", ".2f"), ("accuracy", ".3f"), ("macro_f1", ".3f"))
            cells = ["" if row[key] is None else format(row[key], form) for key, form in figures]
            tried.add_row(row["candidate"], *cells, row["verdict"])
        stdout().print(tried)
    table = Table("measured", "value", title=f"{source.name}, saved in {target}")
    for key, value in report.items():
        table.add_row(key, f"{value:.3g}" if isinstance(value, float) else str(value))
    stdout().print(table)


def _for_the_reference(
    source: TrainedSpecialist, folder: Path, dataset: Dataset | None, cache: Path
) -> list[Path]:
    """Write the checkpoint and, with a dataset, the results JSON; the files."""
    from gsco.evaluation.reference_results import reference_results, write_results
    from gsco.specialists.checkpoints import export_checkpoint

    checkpoint = export_checkpoint(source, folder)
    if dataset is None:
        return [checkpoint]
    results = checkpoint.with_name(checkpoint.name.replace("_best.pth", "_results.json"))
    write_results(reference_results(source, dataset, cache=cache, checkpoint=checkpoint.name), results)
    return [checkpoint, results]
