"""One pass over the data before training: which records can be used, how long each is, why others are not.

No record is ever put in the place of another. The pass is kept line by line, so a killed one goes on.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsco.cases import load_image
from gsco.disk import whole_file, writing
from gsco.errors import DatasetError, ImageError
from gsco.generalist.finetune.conversation import Conversation, SkippedRecord, read_conversation
from gsco.generalist.finetune.encoding import IGNORED, Encoder
from gsco.generalist.finetune.meta import Annotation
from gsco.progress import Progress

_FLUSH = 64


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known of one line of an annotation file.

    Attributes:
        source / line: the entry of the meta file and the line in its annotation, from 0.
        id: of the record, else its set and line.
        skipped: why it is not trained on, or None.
        tokens / answer_tokens / images / turns: of a record that is.
    """

    source: int
    line: int
    id: str
    skipped: str | None = None
    tokens: int = 0
    answer_tokens: int = 0
    images: int = 0
    turns: int = 0


def prepare(
    annotations: Sequence[Annotation],
    encoder: Encoder,
    log: Path,
    *,
    max_tokens: int,
    progress: Progress | None = None,
) -> list[Prepared]:
    """Read every line that training would read, once; a second call after a kill goes on.

    Args:
        annotations: what to read.
        encoder: tokenises a conversation with its images.
        log: a file that keeps what is known so far.
        max_tokens: longer records are skipped, since a cut answer teaches never to end.
        progress: told what, done, in all.

    Raises:
        DatasetError: no record can be used.
    """
    wanted = [(s, line) for s, a in enumerate(annotations) for line in sorted(set(a.taken()))]
    known = _read_log(log)
    with log.open("a", encoding="utf-8") as file:
        for done, (source, line) in enumerate(wanted, start=1):
            if (source, line) not in known:
                found = _look_at(annotations[source], source, line, encoder, max_tokens)
                known[source, line] = found
                file.write(json.dumps(asdict(found), ensure_ascii=False) + "\n")
                if done % _FLUSH == 0:
                    file.flush()
            if progress:
                progress("reading records", done, len(wanted))
    out = [known[key] for key in wanted]
    if all(one.skipped for one in out):
        reasons = Counter(one.skipped for one in out)
        raise DatasetError(
            f"none of {len(out)} records can be used; most often: {reasons.most_common(1)[0][0]}",
            where=str(annotations[0].path),
        )
    return out


def _read_log(path: Path) -> dict[tuple[int, int], Prepared]:
    """What a killed pass left, its torn last line cut off."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    found = [Prepared(**json.loads(line)) for line in whole.splitlines()]
    return {(one.source, one.line): one for one in found}


def _look_at(annotation: Annotation, source: int, line: int, encoder: Encoder, most: int) -> Prepared:
    name = f"{annotation.name}:{line + 1}"
    try:
        record = _record(annotation, line)
        name = _name(record, annotation, line)
        found = read_conversation(record, root=annotation.root, markup=encoder.markup)
        images = []
        for ref in found.images:
            try:
                images.append(load_image(ref))
            except ImageError:
                raise SkippedRecord("an image cannot be read") from None
        encoded = encoder(found.messages, images)
        if len(encoded) > most:
            raise SkippedRecord(f"more than {most:,} tokens")
    except SkippedRecord as reason:
        return Prepared(source, line, name, skipped=str(reason))
    return Prepared(
        source,
        line,
        name,
        tokens=len(encoded),
        answer_tokens=int((encoded.labels != IGNORED).sum()),
        images=len(images),
        turns=sum(message["role"] == "assistant" for message in found.messages),
    )


def conversation_of(annotation: Annotation, line: int, encoder: Encoder) -> Conversation:
    """The conversation of a line; SkippedRecord where it cannot be trained on."""
    return read_conversation(_record(annotation, line), root=annotation.root, markup=encoder.markup)


def _record(annotation: Annotation, line: int) -> Any:
    try:
        return annotation.line(line)
    except (ValueError, RecursionError):
        raise SkippedRecord("is not JSON") from None


def _name(record: Any, annotation: Annotation, line: int) -> str:
    own = record.get("id") if isinstance(record, Mapping) else None
    return f"{annotation.name}:{line + 1}" if own is None else str(own)


def statistics(annotations: Sequence[Annotation], prepared: Sequence[Prepared]) -> dict[str, Any]:
    """What training reads, by entry of the meta file: records, reasons of skipping, images, lengths."""
    out: dict[str, Any] = {}
    for source, annotation in enumerate(annotations):
        own = [one for one in prepared if one.source == source]
        kept = {one.line: one for one in own if not one.skipped}
        read = [kept[line] for line in annotation.taken() if line in kept]
        out[annotation.name] = {
            "lines": len(annotation.offsets),
            "repeat_time": annotation.repeat_time,
            "data_augment": annotation.data_augment,
            "looked_at": len(own),
            "used": len(kept),
            "read_each_epoch": len(read),
            "skipped": dict(Counter(one.skipped for one in own if one.skipped).most_common()),
            "text_only": sum(one.images == 0 for one in kept.values()),
            "one_image": sum(one.images == 1 for one in kept.values()),
            "several_images": sum(one.images > 1 for one in kept.values()),
            "several_turns": sum(one.turns > 1 for one in kept.values()),
            "tokens": _spread([one.tokens for one in kept.values()]),
            "answer_tokens": _spread([one.answer_tokens for one in kept.values()]),
        }
    return out


def _spread(values: Sequence[int]) -> dict[str, float]:
    if not values:
        return {}
    low, middle, high = np.percentile(values, [5, 50, 95])
    return {
        "sum": int(np.sum(values)),
        "mean": round(float(np.mean(values)), 1),
        "p5": float(low),
        "median": float(middle),
        "p95": float(high),
        "max": int(np.max(values)),
    }


def write_skipped(path: Path, data: Mapping[str, tuple[Sequence[Annotation], Sequence[Prepared]]]) -> None:
    """Every skipped record with its reason, one a line; records are counted from 1."""
    with writing(path), whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        for part, (annotations, prepared) in data.items():
            for one in prepared:
                if one.skipped:
                    entry = {
                        "part": part,
                        "set": annotations[one.source].name,
                        "record": one.line + 1,
                        "id": one.id,
                        "reason": one.skipped,
                    }
                    file.write(json.dumps(entry, ensure_ascii=False) + "\n")
