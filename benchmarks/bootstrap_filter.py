"""The bootstrapping filter on real reports and on the same made wrong: precision and recall, by kind.

    python benchmarks/bootstrap_filter.py --root ../shared/data              # the first rules were made on it
    python benchmarks/bootstrap_filter.py --root ../shared/data --part second  # and the second ones
    python benchmarks/bootstrap_filter.py --root ../shared/data --part judged  # what those were judged on

What counts as what is said in docs/bootstrapping.md.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from corrupted_reports import KINDS, Corrupter, Sample, Spoken, sample_of
from gsco.bootstrapping.checks import BETWEEN, Known, judge
from gsco.bootstrapping.duplicates import Seen
from gsco.bootstrapping.vocabulary import vocabulary_of
from gsco.cases.reports import Report, parse_report

Judged = Sequence[tuple[Sample, list[str]]]
"""Reports, and the codes of what is said against each."""

NORMAL = "No Finding"
MESH = {  # heading of MeSH as Open-i indexes it → label of ChestX-ray14
    "Pulmonary Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Pleural Effusion": "Effusion",
    "Infiltrate": "Infiltration",
    "Mass": "Mass",
    "Nodule": "Nodule",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
    "Hydropneumothorax": "Pneumothorax",
    "Consolidation": "Consolidation",
    "Pulmonary Edema": "Edema",
    "Emphysema": "Emphysema",
    "Pulmonary Emphysema": "Emphysema",
    "Pulmonary Fibrosis": "Fibrosis",
    "Hernia, Hiatal": "Hernia",
}
SPOKEN = {  # stems are wide: they say that the impression speaks of the label, affirming it or not
    "Atelectasis": Spoken(r"atelecta", "atelectasis"),
    "Cardiomegaly": Spoken(r"cardiomegal|enlarge[dm]|cardiac silhouette|heart size", "cardiomegaly"),
    "Effusion": Spoken(r"effusion|pleural fluid", "pleural effusion"),
    "Infiltration": Spoken(r"infiltrat", "pulmonary infiltrate"),
    "Mass": Spoken(r"\bmass|neoplas|tumor", "lung mass"),
    "Nodule": Spoken(r"nodul", "pulmonary nodule"),
    "Pneumonia": Spoken(r"pneumonia|infecti", "pneumonia"),
    "Pneumothorax": Spoken(r"pneumothora", "pneumothorax"),
    "Consolidation": Spoken(r"consolid", "consolidation"),
    "Edema": Spoken(r"edema|congesti|heart failure|chf", "pulmonary edema"),
    "Emphysema": Spoken(r"emphysem|copd|obstructive", "emphysema"),
    "Fibrosis": Spoken(r"fibro|scar", "pulmonary fibrosis"),
    "Pleural_Thickening": Spoken(r"thickening", "pleural thickening"),
    "Hernia": Spoken(r"herni", "hiatal hernia"),
}
NEAR = {  # labels that a report of the other may rightly name
    "Infiltration": ("Consolidation", "Pneumonia"),
    "Consolidation": ("Infiltration", "Pneumonia"),
    "Pneumonia": ("Infiltration", "Consolidation"),
    "Mass": ("Nodule",),
    "Nodule": ("Mass",),
}
SEEN_EARLY = {
    655, 2782, 3967, 3802, 300, 1257, 580, 2412, 3789, 2203, 2315, 3190, 1846, 3915,
    1036, 455, 2381, 130, 1888, 2124, 2982, 3795, 3819, 14, 2186, 1311, 3567, 3464,
    1, 2, 3,
}  # fmt: skip
"""Reports that were read before the parts were drawn; they stay in the part for development."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="folder with iu_xray_reports and cxr_nih")
    parser.add_argument("--part", choices=("development", "second", "judged"), default="development")
    parser.add_argument("--errors", type=int, default=0, help="print so many errors (development only)")
    parser.add_argument("--kind", help="of the errors to print")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    samples, left_out = load(
        arguments.root / "iu_xray_reports" / "reports.jsonl", judged=arguments.part != "development"
    )
    sets = label_sets(arguments.root / "cxr_nih" / "labels.csv")
    corrupter = Corrupter(SPOKEN, NORMAL, sets, samples, NEAR, arguments.seed)
    words = vocabulary_of([*SPOKEN, NORMAL])
    seen = Seen()

    def reasons(sample: Sample) -> list[str]:
        codes = [f.code for f in judge(sample.report, sample.known, words, without=("placeholder",))]
        return codes + ([BETWEEN[0]] if seen.find(sample.text, sample.id) else [])

    verdicts = []
    for sample in samples:  # as in a round: of two that are alike, the first stays
        if in_part(sample, arguments.part):
            verdicts.append((sample, reasons(sample)))
        seen.add(sample.text, sample.id)
    wrong: dict[str, list[tuple[Sample, list[str]]]] = defaultdict(list)
    for sample, _ in verdicts:
        for kind in KINDS:
            made = corrupter.corrupt(sample, kind)
            if made is not None:
                wrong[kind].append((made, reasons(made)))
    result = figures(verdicts, wrong)
    result["left_out"] = left_out
    show(result, arguments.part)
    if arguments.errors:
        if arguments.kind in (None, "true"):
            for sample, codes in [v for v in verdicts if v[1]][: arguments.errors]:
                details = [f"{f.code}: {f.detail}" for f in judge(sample.report, sample.known, words)]
                print("\nTRUE", sample.id, sample.known, codes, details, "\n ", sample.text)
        else:
            for sample, _ in [v for v in wrong[arguments.kind] if not v[1]][: arguments.errors]:
                print("\nWRONG", sample.kind, sample.id, sample.known, "\n ", sample.text)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def load(path: Path, *, judged: bool) -> tuple[list[Sample], dict[str, int]]:
    """True samples of one part, and how many were left out for what."""
    out, texts = [], set()
    left: Counter[str] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        drawn = int(hashlib.sha256(f"part:{row['uid']}".encode()).hexdigest(), 16) % 2 == 1
        in_judged = (row["split"] != "train" or drawn) and row["uid"] not in SEEN_EARLY
        if in_judged != judged:
            continue
        report = Report(row["findings"].strip(), row["impression"].strip())
        labels, positions = labels_of(row["mesh"])
        plain = re.sub(r"\W+", " ", report.text.lower())
        if not report.findings or not report.impression:
            left["a part is missing"] += 1
        elif not labels:
            left["no label of ChestX-ray14 and not normal"] += 1
        elif labels != (NORMAL,) and not any(
            re.search(SPOKEN[label].stem, report.impression.lower()) for label in labels
        ):
            left["the impression does not speak of a label"] += 1
        elif re.search(r"\d\s*-?(?:mm|cm)\b", report.text.lower()):
            left["states a size, which only its text knows"] += 1
        elif plain in texts:
            left["word for word another one"] += 1
        else:
            texts.add(plain)
            known = Known(labels, positions, told(row))
            out.append(
                sample_of(row["study_id"], parse_report(report.text), known, normal=labels == (NORMAL,))
            )
    return out, dict(left)


def in_part(sample: Sample, part: str) -> bool:
    """Of the reports outside of the development part, half were read when the second rules were made."""
    drawn = int(hashlib.sha256(f"second:{sample.id}".encode()).hexdigest(), 16) % 2 == 0
    return part == "development" or drawn == (part == "second")


def told(row: dict[str, str]) -> frozenset[str]:
    """Facts that stand in the record outside the report."""
    facts = set()
    if not re.match(r"\W*(?:none|no |n/a|not )", row["comparison"].strip().lower()):  # blank: it is not said
        facts |= {"prior", "date"}
    if row["indication"].strip():
        facts |= {"history", "age", "sex"}
    return frozenset(facts)


def labels_of(mesh: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Labels of ChestX-ray14 and their sides, from MeSH with qualifiers (``Pleural Effusion/left/small``)."""
    if mesh.strip() == "normal":
        return (NORMAL,), {}
    places: dict[str, list[str]] = defaultdict(list)
    for entry in mesh.split(";"):
        head, *qualifiers = (part.strip() for part in entry.split("/"))
        label = MESH.get(head) or (
            "Pleural_Thickening" if head == "Thickening" and "pleura" in qualifiers else None
        )
        if label:
            places[label].append(" ".join(q for q in qualifiers if q in ("left", "right", "bilateral")))
    known = {k: " ".join(v) for k, v in places.items() if all(v)}  # a mention without a side leaves it open
    return tuple(places), known


def label_sets(path: Path) -> list[tuple[str, ...]]:
    """The sets of labels that NIH's images have."""
    with path.open(encoding="utf-8", newline="") as file:
        return [tuple(row["findings"].split("|")) for row in csv.DictReader(file)]


def wilson(k: int, n: int) -> dict[str, float | int]:
    """A share with its 95 % interval (Wilson, 1927)."""
    z, p = 1.96, k / n if n else 0.0
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) if n else 0.0
    scale = 1 + z * z / n
    return {
        "value": p,
        "low": (middle - half) / scale,
        "high": min(1.0, (middle + half) / scale),
        "k": k,
        "n": n,
    }


def figures(verdicts: Judged, wrong: Mapping[str, Judged]) -> dict[str, Any]:
    """Precision and recall of accepting, one wrong report for each true one, and detection by kind."""
    accepted = [s for s, codes in verdicts if not codes]
    chosen: list[tuple[Sample, list[str]]] = []
    by_id = {kind: {s.id: (s, codes) for s, codes in made} for kind, made in wrong.items()}
    counts: Counter[str] = Counter()
    for sample, _ in verdicts:  # the kind that has been taken least so far, so that rare ones are taken, too
        possible = [kind for kind in KINDS if sample.id in by_id.get(kind, {})]
        kind = min(possible, key=lambda k: (counts[k], len(by_id[k])))
        counts[kind] += 1
        chosen.append(by_id[kind][sample.id])
    slipped = sum(not codes for _, codes in chosen)
    lost = Counter(codes[0] for _, codes in verdicts if codes)
    return {
        "true": len(verdicts),
        "normal": sum(s.normal for s, _ in verdicts),
        "wrong": len(chosen),
        "precision": wilson(len(accepted), len(accepted) + slipped),
        "recall": wilson(len(accepted), len(verdicts)),
        "recall_normal": wilson(sum(s.normal for s in accepted), sum(s.normal for s, _ in verdicts)),
        "recall_abnormal": wilson(
            sum(not s.normal for s in accepted), sum(not s.normal for s, _ in verdicts)
        ),
        "caught": wilson(len(chosen) - slipped, len(chosen)),
        "kinds": {
            kind: {
                "chosen": counts[kind],
                **wilson(sum(bool(codes) for _, codes in made), len(made)),
                "reasons": dict(Counter(codes[0] for _, codes in made if codes).most_common(3)),
            }
            for kind, made in wrong.items()
        },
        "lost": dict(lost.most_common()),
    }


def show(result: dict[str, Any], part: str) -> None:
    """The tables."""

    def cell(f: dict[str, Any]) -> str:
        return f"{f['value']:.3f} ({f['low']:.3f}–{f['high']:.3f})  {f['k']}/{f['n']}"

    counted = f"{result['true']} true reports ({result['normal']} normal), {result['wrong']} wrong ones"
    print(f"{part} part: {counted}")
    print("left out:", result["left_out"])
    for name in ("precision", "recall", "recall_normal", "recall_abnormal", "caught"):
        print(f"  {name:17}{cell(result[name])}")
    print("  true reports rejected for:", result["lost"])
    print("all wrong reports, by kind: share rejected")
    for kind, figure in result["kinds"].items():
        print(f"  {kind:17}{cell(figure)}  {figure['reasons']}")


if __name__ == "__main__":
    main()
