"""Asking the generators: one line of ``drafts.jsonl`` for each image, generator and wording."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gsco.bootstrapping.prompts import make_prompt
from gsco.bootstrapping.subjects import Settings, Subject
from gsco.errors import ModelError, RequestsFailedError, RunError
from gsco.evaluation.progress import Reporter
from gsco.evaluation.runfolder import RunFolder
from gsco.generalist import Generalist, Request, Sampling

BATCH = 16


def draft_prompt(subject: Subject, variant: int, settings: Settings) -> str:
    """What a generator is asked about one image, in one of its wordings."""
    return make_prompt(
        settings.template, subject.told, case_id=subject.case.id, variant=variant, seed=settings.seed
    )


def _sampling(subject: Subject, variant: int, settings: Settings) -> Sampling | None:
    if not settings.temperature:
        return None
    rng = random.Random(f"{settings.seed}:draft:{variant}:{subject.case.id}")
    return Sampling(settings.temperature, rng.getrandbits(31))


def write_drafts(
    folder: RunFolder,
    settings: Settings,
    found: Sequence[Subject],
    load: Callable[[str], Generalist],
    progress: Reporter,
) -> list[dict[str, Any]]:
    """All drafts, in order of case, generator and variant; those that stand in the log are not made again.

    Raises:
        ModelError: some have no answer, though they were tried again; all others stand in the log.
    """
    log = folder.path / "drafts.jsonl"
    lines = folder.recover_log(log, ("case_id", "draft"))
    done = {(line["case_id"], line["draft"]) for line in lines}
    failed: list[str] = []
    for place, spec in enumerate(settings.generalists):
        wanted = [(subject, variant) for subject in found for variant in range(settings.drafts)]
        if all((s.case.id, f"{place}.{v}") in done for s, v in wanted):
            continue
        generalist = load(spec)
        others = {line["fingerprint"] for line in lines if line["draft"].startswith(f"{place}.")}
        if others - {generalist.fingerprint}:
            raise RunError(
                f"{spec} is not the generator that the round was begun with",
                where=str(folder.path),
                remedy="Make the next --round with it, or name another --out.",
            )
        with progress.stage(f"asking {generalist.name}", len(wanted)) as step:
            for start in range(0, len(wanted), BATCH):
                batch = wanted[start : start + BATCH]
                missing = [(s, v) for s, v in batch if (s.case.id, f"{place}.{v}") not in done]
                if missing:
                    made, reasons = _ask(generalist, spec, place, missing, settings, folder, log)
                    lines += made
                    failed += reasons
                step(start + len(batch))
        del generalist
    if failed:
        raise ModelError(
            f"{len(failed)} drafts have no answer ({failed[0]})",
            where=str(folder.path),
            remedy="Give the same command again: it asks for these alone.",
        )
    order = {subject.case.id: place for place, subject in enumerate(found)}
    return sorted(
        lines, key=lambda line: (order[line["case_id"]], [int(part) for part in line["draft"].split(".")])
    )


def _ask(
    generalist: Generalist,
    spec: str,
    place: int,
    batch: Sequence[tuple[Subject, int]],
    settings: Settings,
    folder: RunFolder,
    log: Path,
) -> tuple[list[dict[str, Any]], list[str]]:
    """The drafts of a batch, which are in the log by then, and why others have no answer."""
    prompts = [draft_prompt(subject, variant, settings) for subject, variant in batch]
    requests = [
        Request(prompt, subject.case.image, sampling=_sampling(subject, variant, settings))
        for prompt, (subject, variant) in zip(prompts, batch, strict=True)
    ]
    texts: Sequence[str | None]
    reasons: Sequence[str | None] = []
    try:
        texts = generalist.generate(requests, max_new_tokens=settings.max_new_tokens)
    except RequestsFailedError as error:
        texts, reasons = error.results, error.reasons
    made = [
        {
            "case_id": subject.case.id,
            "draft": f"{place}.{variant}",
            "generator": spec,
            "fingerprint": generalist.fingerprint,
            "template": settings.template,
            "variant": variant,
            "seed": settings.seed,
            "temperature": settings.temperature,
            "prompt": prompt,
            "raw": text,
        }
        for (subject, variant), prompt, text in zip(batch, prompts, texts, strict=True)
        if text is not None
    ]
    folder.append(made, log)
    return made, [reason for reason in reasons if reason]
