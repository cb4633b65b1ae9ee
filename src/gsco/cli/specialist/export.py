"""``gsco specialist export``: a specialist as a graph for another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gsco.cli.options import Json, Seed, Threads

if TYPE_CHECKING:
    from rich.console import Console

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
            help="onnx, openvino, auto (the fastest that passes answers from now on), or reference "
            "(checkpoint and results)."
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
        Path | None,
        typer.Option(
            help="Folder to write; FOLDER-TO-PRECISION by default. auto writes into FOLDER.",
            show_default=False,
        ),
    ] = None,
    loss: Annotated[
        float, typer.Option(min=0, max=1, help="The most accuracy and macro-F1 may fall below fp32.")
    ] = 0.005,
    agreement: Annotated[
        float, typer.Option(min=0, max=1, help="Least share of equal answers below fp32.")
    ] = 0.99,
    seed: Seed = 0,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Write a specialist as one graph, and prove that it answers as before.

    In fp32 no probability may differ by more than 1e-4, in lower precision accuracy, macro-F1 and answers on
    validation cases must hold. What does not pass is not written. With --to auto the fastest graph that
    passes is kept in the specialist's own folder, and answers in its place on this machine. For the
    reference's scripts the weights are written as their checkpoint and, where a dataset is given, what they
    would say of its test split.
    """
    from gsco import embedded
    from gsco.cases import load_dataset
    from gsco.cli.console import print_json, stderr, stdout
    from gsco.cli.progress import reporter
    from gsco.cli.tables import show_choice
    from gsco.errors import ModelError
    from gsco.evaluation.environment import set_threads
    from gsco.specialists import load_specialist
    from gsco.specialists.export import Gate, export_specialist
    from gsco.specialists.fastest import choose_runtime

    if to == "auto" and (out is not None or precision != "fp32"):
        raise ModelError(
            "--to auto tries all precisions and writes into the specialist's own folder",
            remedy="Leave --out and --precision away, or name a runtime with --to.",
        )
    set_threads(threads)
    source = load_specialist(folder, cache=embedded.cache_home(), runtime="pytorch")
    target = out or folder.with_name(f"{folder.name}-{to if to == 'reference' else f'{to}-{precision}'}")
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
            report = choose_runtime(source, folder, dataset, gate=gate, seed=seed, say=say)
        else:
            report = export_specialist(
                source, target, to=to, precision=precision, dataset=dataset, gate=gate, seed=seed, say=say
            ).report
    if json:
        print_json(report if to == "auto" else {"folder": str(target), **report})
    elif to == "auto":
        show_choice(stdout(), report)
    else:
        _show(stdout(), f"{to} {precision}", target, report)


def _show(console: Console, name: str, target: Path, report: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    differences = [key for key in report if key.startswith("largest")]
    title = escape(f"{name} against PyTorch · {report['compared on']}")
    table = Table("figure", title=title, title_justify="left")
    table.add_column("value", justify="right")
    for key in differences:
        table.add_row(key, f"{report[key]:.2g}")
    table.add_row("equal answers", f"{100 * report['agreement']:.1f} %")
    for key, called in (("accuracy", "accuracy"), ("macro_f1", "macro-F1")):
        if key in report:
            table.add_row(
                f"{called} (of the original)", f"{report[key]:.3f} ({report[f'{key} of the original']:.3f})"
            )
    console.print(table)
    console.print(str(target), markup=False, highlight=False, soft_wrap=True)


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
