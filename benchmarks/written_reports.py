"""What a generalist writes when asked for a report: is the label right, and the side, and would it pass?

    python benchmarks/written_reports.py --generalist nano --data ../shared/data/busi --out said

Test images (validation with --split val), written greedily. Prints, with 95 % intervals over patients or
groups: how often a report has both parts, names the true label and no other, passes every check of the
filter of `gsco bootstrap`, and, where the data say on which side the finding is, names that side; beside it
the share of the most frequent label, which a constant report would reach. ``phantoms`` are made for it, from
a seed of their own. Texts are kept in --out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gsco.bootstrapping.checks import Known, judge, read
from gsco.bootstrapping.sides import sides_in
from gsco.bootstrapping.subjects import Settings, Subject, subjects
from gsco.bootstrapping.vocabulary import Vocabulary
from gsco.cases import Dataset, load_dataset
from gsco.cases.phantoms import generate_phantoms
from gsco.cases.reports import Report, parse_report, report_question
from gsco.disk import dump_json, write_atomic
from gsco.evaluation.report.wording import number
from gsco.evaluation.statistics import bootstrap_interval, cluster_positions, per_cluster
from gsco.generalist import Generalist, Request, load_generalist

LABEL_CODES = {"label_missing", "label_denied", "contradiction"}
PHANTOMS, PHANTOM_SEED = 240, 505
BATCH = 16


def main() -> None:
    """Print a block of lines for each dataset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--generalist", required=True)
    parser.add_argument("--data", action="append", required=True, help="a dataset, or phantoms")
    parser.add_argument("--out", type=Path, required=True, help="folder for the texts")
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--tokens", type=int, default=120)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    model = load_generalist(options.generalist)
    for name in options.data:
        folder = Path(name)
        if name == "phantoms":
            folder = options.out / f"phantoms-{PHANTOMS}-{PHANTOM_SEED}"
            if not (folder / "labels.csv").exists():
                generate_phantoms(folder, n=PHANTOMS, seed=PHANTOM_SEED)
        dataset = load_dataset(folder)
        asked, words, _ = subjects(dataset, Settings((options.generalist,), split=options.split))
        print(f"{name}: {len(asked)} images", flush=True)
        show(written(model, dataset, asked, options.out, options.tokens), asked, words)


def written(
    model: Generalist, dataset: Dataset, asked: Sequence[Subject], out: Path, tokens: int
) -> list[str]:
    """What `model` writes of each image; read from `out` where it stands there."""
    said = [model.fingerprint, dataset.name, tokens, *(subject.case.id for subject in asked)]
    path = out / f"{hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]}.json"
    if path.exists():
        found: list[str] = json.loads(path.read_text())
        return found
    requests = [
        Request(report_question(dataset.task.modality, case_id=s.case.id, seed=0), s.case.image)
        for s in asked
    ]
    texts: list[str] = []
    for start in range(0, len(requests), BATCH):
        texts += model.generate(requests[start : start + BATCH], max_new_tokens=tokens)
        print(f"  writing {len(texts)}/{len(requests)}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(path, dump_json(texts))
    return texts


def names_label(text: str, known: Known, words: Vocabulary) -> bool:
    """Whether a text names the true label and no other; without headings, all of it is a conclusion."""
    report = parse_report(text)
    whole = report if report.whole else Report("", text)
    return not {f.code for f in judge(whole, known, words, without=("parts_missing",))} & LABEL_CODES


def passes(text: str, known: Known, words: Vocabulary) -> bool:
    """Whether no check of the filter speaks against a text."""
    return not judge(parse_report(text), known, words)


def names_side(text: str, known: Known, words: Vocabulary) -> bool:
    """Whether the true label is said to be on the side that is known, and on no other."""
    key = known.labels[0]
    reading = read(parse_report(text), words)
    mentions = [m for m in reading.said(key) if m.status != "denied"]
    said = frozenset[str]().union(*(m.sides for m in mentions))
    return bool(said) and said == sides_in(known.positions[key])


def show(texts: Sequence[str], asked: Sequence[Subject], words: Vocabulary) -> None:
    """The lines of one dataset."""
    every = range(len(asked))
    placed = [i for i in every if sides_in(asked[i].known.positions.get(asked[i].known.labels[0], ""))]
    top, most = Counter(s.known.labels for s in asked).most_common(1)[0]
    lines = {
        "both parts": ([parse_report(text).whole for text in texts], every),
        "names the true label and no other": (
            [names_label(t, s.known, words) for t, s in zip(texts, asked, strict=True)],
            every,
        ),
        "passes the whole filter": (
            [passes(t, s.known, words) for t, s in zip(texts, asked, strict=True)],
            every,
        ),
        "names the side": ([names_side(texts[i], asked[i].known, words) for i in placed], placed),
    }
    for name, (right, rows) in lines.items():
        if right:
            positions, n = cluster_positions([asked[i].case.cluster for i in rows])
            counted = np.stack([np.asarray(right, dtype=np.float64), np.ones(len(right))], axis=1)
            found = bootstrap_interval(per_cluster(counted, positions, n), share)
            interval = f"[{number(found.low)}, {number(found.high)}]"
            print(f"  {name:36}{number(found.value)} {interval}, {len(right)} images")
    print(f"  {'most frequent label':36}{number(most / len(asked))} ({', '.join(top)})")
    print(f"  {len(set(texts))} different texts, for example: {texts[0]!r}")


def share(sums: np.ndarray) -> np.ndarray:
    """Of sums of (right, asked), the share that is right."""
    return np.asarray(sums[..., 0] / sums[..., 1])


if __name__ == "__main__":
    main()
