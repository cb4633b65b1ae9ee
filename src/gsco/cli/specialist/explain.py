"""``gsco specialist explain``: where a specialist looks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gsco.cli.options import Json

EXAMPLE = "Example:  gsco specialist explain runs/busi/specialists/finetuned scan.png --option malignant"


def explain(
    folder: Annotated[Path, typer.Argument(help="Folder of the specialist.", show_default=False)],
    image: Annotated[Path, typer.Argument(help="PNG, JPEG, TIFF or DICOM file.", show_default=False)],
    option: Annotated[
        str | None,
        typer.Option(help="Key or name of the option to explain. Default: the specialist's answer."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="PNG to write. Default: beside the image, IMAGE.heat.png.")
    ] = None,
    json: Json = False,
) -> None:
    """Draw a heat map: which places of the image speak for an option. Not a medical device."""
    from gsco.cases import ImageRef, load_image
    from gsco.cases.paths import expanded
    from gsco.cli.console import RESEARCH_ONLY, print_json, stdout
    from gsco.evaluation.comparison.labels import option_names, plain
    from gsco.specialists import load_specialist
    from gsco.specialists.heatmaps import heatmap
    from gsco.specialists.overlays import save_figure

    ref = ImageRef(expanded(image))
    picture = load_image(ref)  # a broken image is told before anything is loaded for it
    specialist = load_specialist(folder)
    names = option_names(specialist)
    found = heatmap(
        specialist, ref, {plain(name): key for key, name in names.items()}.get(plain(option or ""), option)
    )
    target = out or ref.path.with_name(f"{ref.path.name}.heat.png")
    save_figure(target, picture, [found], title=image.name, names=names)
    if json:
        print_json({"image": str(image), "map": str(target), **found.to_dict()})
        return
    console = stdout()
    name = names.get(found.option, found.option)
    said = f"{found.specialist}: {name}, {100 * found.probability:.1f} % ({found.method})"
    console.print(said, markup=False, highlight=False)
    if found.empty:
        console.print("No place of the image speaks for it: the map is empty.", highlight=False)
    console.print(f"heat map: {target}", markup=False, highlight=False, soft_wrap=True)
    console.print(RESEARCH_ONLY, style="dim", highlight=False)
