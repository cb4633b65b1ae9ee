"""``gsco generalist chat``: describe an image, ask about it, have a report written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gsco.generalist.conversation import Conversation

EXAMPLE = 'Example:  gsco generalist chat scan.png --generalist nano --ask "Which organ is shown?"'

_HELP = "Ask in your own words, or: /describe  /report  /again (forget what was said)  /quit"


def chat(
    image: Annotated[Path, typer.Argument(help="PNG, JPEG, TIFF or DICOM file.", show_default=False)],
    generalist: Annotated[str, typer.Option(help="Which generalist; as for `gsco run`.")] = "nano",
    ask: Annotated[
        list[str] | None,
        typer.Option(help="A question instead of a conversation; repeat for several.", show_default=False),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, max=8192, help="Most tokens of an answer.")] = 256,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout; needs --ask.")] = False,
) -> None:
    """Talk with a generalist about one image. Research use only, not a medical device."""
    from gsco.cases import ImageRef, load_image
    from gsco.cases.paths import expanded
    from gsco.cli.console import RESEARCH_ONLY, print_json, stderr, stdout
    from gsco.cli.progress import reporter
    from gsco.errors import UserError
    from gsco.generalist import caution_of, load_generalist, remark_of
    from gsco.generalist.conversation import Conversation

    if json and not ask:
        raise UserError("--json has nothing to print", remedy='Ask something: --ask "Which organ is shown?".')
    ref = ImageRef(expanded(image))
    load_image(ref)  # a broken image is told before a model is loaded for it
    with reporter(stderr()).stage(f"generalist {generalist}"):
        model = load_generalist(generalist)
    if caution_of(model):
        stderr().print(caution_of(model), style="dim", markup=False, highlight=False)
    talk = Conversation(model, ref, tokens)
    if not ask:
        console = stdout()
        console.print(f"{model.name} · {image.name}", style="bold", markup=False, highlight=False)
        console.print(RESEARCH_ONLY, style="dim", highlight=False)
        console.print(_HELP, style="dim", markup=False, highlight=False)
        _talk(talk)
        return
    answers = [{"question": question, "answer": talk.ask(question)} for question in ask]
    if json:
        asked = {"schema": 1, "notice": RESEARCH_ONLY, "image": str(image), "generalist": model.name}
        remark = remark_of(model)
        print_json({**asked, **({"remark": remark} if remark else {}), "answers": answers})
        return
    for turn in answers:
        _show(turn["answer"])
    stderr().print(RESEARCH_ONLY, style="dim", highlight=False)


def _talk(talk: Conversation) -> None:
    """Until /quit or the end of input; a request that fails is told, and the talk goes on."""
    from gsco.cli.console import stdout
    from gsco.errors import RequestsFailedError
    from gsco.generalist.conversation import DESCRIBE, REPORT

    console = stdout()
    while True:
        try:
            said = console.input("[bold cyan]> [/]").strip()
        except EOFError:
            console.print()
            return
        if said in ("/quit", "/exit"):
            return
        if said == "/again":
            talk.forget()
            console.print("Forgotten what was said; the image is the same.", style="dim")
            continue
        question = {"/describe": DESCRIBE, "/report": REPORT}.get(said, said)
        if not question or question.startswith("/"):
            console.print(_HELP, style="dim", markup=False, highlight=False)
            continue
        try:
            with console.status("thinking"):
                answer = talk.ask(question)
        except RequestsFailedError as error:
            console.print(str(error), style="red", markup=False, highlight=False)
            continue
        _show(answer)


def _show(answer: str) -> None:
    from gsco.cli.console import stdout

    if answer:
        stdout().print(answer, markup=False, highlight=False, soft_wrap=True)
    else:
        stdout().print("(it said nothing)", style="dim")
