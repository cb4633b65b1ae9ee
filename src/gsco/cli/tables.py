"""Tables that a person reads at the end of a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gsco.cli.console import RESEARCH_ONLY

if TYPE_CHECKING:
    from rich.console import Console

    from gsco.evaluation.conclusion import RunResult
    from gsco.evaluation.diagnose import Diagnosis

_COLUMNS = (("accuracy", "accuracy"), ("macro_f1", "macro-F1"), ("auc", "AUC"), ("ece", "ECE"))


def figure(entry: Any, *, interval: bool = False) -> str:
    """A figure of a result, perhaps with its interval, as a cell of a table (rich markup)."""
    if not isinstance(entry, dict) or entry.get("value") is None:
        return "–"
    text = f"{entry['value']:.3f}"
    if interval and entry.get("low") is not None and entry.get("high") is not None:
        text += f" [dim]({entry['low']:.3f}–{entry['high']:.3f})[/]"
    return text


def show_choice(console: Console, choice: dict[str, Any]) -> None:
    """What `gsco.specialists.fastest.choose_runtime` tried, and what it kept."""
    from rich.markup import escape
    from rich.table import Table

    columns = (("batch_1", ".2f"), ("batch_16", ".2f"), ("accuracy", ".3f"), ("macro_f1", ".3f"))
    table = Table("runtime", title="CPU milliseconds a picture, figures on validation", title_justify="left")
    for heading in ("batch 1", "batch 16", "accuracy", "macro-F1", "largest Δp"):
        table.add_column(heading, justify="right", no_wrap=True)
    failed = []
    for row in choice["candidates"]:
        if row["verdict"] != "passes":
            failed.append(f"{row['candidate']}: {row['verdict']}")
            continue
        cells = ["–" if row[key] is None else format(row[key], form) for key, form in columns]
        kept = row["candidate"] == choice["kept"]
        cells.append(f"{row['difference']:.0e}" if row["difference"] else "")
        table.add_row(escape(row["candidate"]), *cells, style="bold" if kept else None)
    console.print(table)
    for line in [*failed, f"{choice['kept']} answers from now on: {choice['why']}"]:
        console.print(line, markup=False, highlight=False)


def show_metrics(console: Console, result: RunResult) -> None:
    """The arms of a run with their figures, the verdict, and where the page is."""
    from rich.markup import escape
    from rich.table import Table

    from gsco.evaluation.report.wording import drawn_units

    metrics = result.metrics
    title = escape(f"{metrics['dataset']} · {metrics['split']} · n = {metrics['n']}")
    drawn = f"95 % bootstrap intervals over {drawn_units(metrics)}"
    table = Table(title=title, title_justify="left", caption=drawn, expand=False)
    table.add_column("arm", no_wrap=True)
    for name, heading in _COLUMNS:
        table.add_column(heading, justify="right", no_wrap=name == "macro_f1")
    for arm, figures in metrics["arms"].items():
        style = "bold" if arm == "gsco" else None
        cells = [figure(figures.get(name), interval=name == "macro_f1") for name, _ in _COLUMNS]
        failed = figures.get("failed", 0)
        unparsed = figures.get("unparsed", 0) - failed
        lost = [f"{n} {what}" for n, what in ((unparsed, "unparsed"), (failed, "failed")) if n]
        table.add_row(escape(arm) + (f" ({', '.join(lost)})" if lost else ""), *cells, style=style)
    console.print(table)
    for note in result.notes:
        console.print(note, markup=False, highlight=False)
    if result.verdict:
        console.print(result.verdict, markup=False, highlight=False)
    console.print(f"report: {result.report}", markup=False, highlight=False, soft_wrap=True)
    console.print(RESEARCH_ONLY, style="dim", highlight=False)


def show_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """One image: the answer, who said what, and the similar cases."""
    from rich.markup import escape
    from rich.table import Table

    from gsco.collaboration import CALIBRATED
    from gsco.evaluation.arm_words import arm_name

    names = {option.key: escape(option.name) for option in diagnosis.options}
    who = f"{arm_name(diagnosis.arm)}, {diagnosis.generalist}"
    if diagnosis.foreign:
        console.print(diagnosis.foreign, style="bold red", markup=False, highlight=False)
    console.print(f"[bold]{escape(diagnosis.label_name)}[/]  ({escape(who)})", highlight=False)
    if diagnosis.word:
        console.print(diagnosis.word, style="dim", highlight=False)
    if diagnosis.known_case:
        console.print(diagnosis.known_case, style="yellow", markup=False, highlight=False)
    if diagnosis.probabilities is not None:
        answer = Table.grid(padding=(0, 2))
        for key, p in sorted(diagnosis.probabilities.items(), key=lambda item: -item[1]):
            answer.add_row(f"  {names[key]}", f"{100 * p:5.1f} %", "█" * round(30 * p))
        console.print(answer)
    if diagnosis.label_set is not None and diagnosis.coverage is not None:
        members = ", ".join(names[key] for key in diagnosis.label_set)
        console.print(
            f"{100 * diagnosis.coverage:.0f} % label set ({arm_name(CALIBRATED)}): {members}"
            + ("  [yellow]too unsure: it would abstain[/]" if diagnosis.abstains else ""),
            highlight=False,
        )
    judged = any(voice.trust is not None for voice in diagnosis.voices)
    weighed = any(voice.weight is not None for voice in diagnosis.voices)
    said = Table(
        title="Who said what",
        title_justify="left",
        caption="reliability: balanced accuracy on validation"
        + ("; when it says so: share right there when it says this option" if judged else "")
        + ("; weight: in the pool of all voices" if weighed else ""),
    )
    for heading in ("who", "says"):
        said.add_column(heading)
    extra = [*(["when it says so"] if judged else []), *(["weight"] if weighed else [])]
    for heading in ("probability", "reliability", *extra):
        said.add_column(heading, justify="right")
    kind = diagnosis.voices[0].kind
    for voice in diagnosis.voices:
        if voice.kind != kind:
            said.add_section()
            kind = voice.kind
        said.add_row(
            escape(arm_name(voice.name)),
            "no answer could be read" if voice.choice is None else names[voice.choice],
            ("–" if voice.probabilities is None else f"{100 * max(voice.probabilities):.1f} %")
            + (" (abstains)" if voice.abstains else ""),
            "" if voice.reliability is None else f"{voice.reliability:.2f}",
            *([] if not judged else ["" if voice.trust is None else f"{voice.trust:.2f}"]),
            *([] if not weighed else ["" if voice.weight is None else f"{voice.weight:.2f}"]),
        )
    console.print(said)
    signs = _signs(diagnosis)
    similar = Table(title="Similar known cases", title_justify="left", caption=signs, caption_justify="left")
    for heading in ("similarity", "label", "case"):
        similar.add_column(heading)
    for neighbour in diagnosis.neighbours:
        labels = ", ".join(names.get(label, escape(label)) for label in neighbour.labels)
        similar.add_row(f"{neighbour.similarity:.3f}", labels, escape(neighbour.case_id))
    console.print(similar)
    console.print(RESEARCH_ONLY, style="dim", highlight=False)


def _signs(diagnosis: Diagnosis) -> str | None:
    """How far the image is from the known cases, and how much the specialists disagree."""
    from gsco.evaluation.foreign import percent_nearer

    parts = []
    if diagnosis.foreignness is not None:
        nearer = percent_nearer(diagnosis.foreignness.nearer)
        parts.append(f"farther from them than {nearer} are from each other")
    if diagnosis.disagreement is not None:
        parts.append(f"disagreement of the specialists: {diagnosis.disagreement:.2f} of 1")
    return "\n".join(parts) or None
