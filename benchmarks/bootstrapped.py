"""Training MedDr-nano on bootstrapped reports against labels only: the same number of steps, side by side.

    python benchmarks/bootstrapped.py --data ../shared/data/cxr_nih --data ../shared/data/busi --out boot

For each dataset: a writer, nano taught on reports of `phantom_reports` whose label it is told, reports every
training image (`gsco bootstrap`, words drawn at random); what passes the filter is learned from.
Two pupils go on from nano for the same steps with the same settings: one is shown images and asked for the
label, the other in half of the records for the label and in half for the report.

Prints, for test images and with 95 % intervals over patients or groups: macro-F1 of the label by option
scoring; how often a greedily written report names the true label and no other; and how often it passes every
check of the filter. There are no reference reports of these images, so nothing is said of wording. Every part
is kept in --out; called again after a kill it goes on.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gsco.bootstrapping.checks import Known
from gsco.bootstrapping.prompts import Told, make_prompt
from gsco.bootstrapping.rounds import bootstrap
from gsco.bootstrapping.subjects import Settings
from gsco.bootstrapping.vocabulary import vocabulary
from gsco.cases import Case, Dataset, load_dataset
from gsco.cases.reports import report_question
from gsco.collaboration import Evidence
from gsco.collaboration.templates import TEMPLATES
from gsco.disk import dump_json, write_atomic
from gsco.evaluation.metrics import macro_f1_of
from gsco.evaluation.report.wording import number
from gsco.evaluation.statistics import bootstrap_interval, cluster_positions, compare, per_cluster
from gsco.generalist import Generalist, Request, load_generalist
from gsco.generalist.nano.assemble import weights_folder
from gsco.generalist.nano.train import TrainConfig, train_nano
from gsco.generalist.records import Record, read_records
from gsco.teaching.copies import without_copies
from gsco.teaching.curriculum import make_records
from gsco.teaching.shares import Shares
from phantom_reports import GRAMMARS, write_phantom_report
from written_reports import names_label, passes, share

TEMPLATE = "guided"
BATCH = 16
Statistic = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Print one table for each dataset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--writer-records", type=int, default=480)
    parser.add_argument("--records", type=int, default=800, help="of each pupil")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--limit", type=int, help="at most so many images are reported, and tested")
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16, where the processor can")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    settings: dict[str, Any] = {"views": 1, "bf16": options.bf16, "seed": options.seed}
    writer = _trained(
        options.out / "writer",
        phantom_records(options.writer_records, options.seed),
        TrainConfig(learning_rate=5e-4, **settings),
    )
    for path in options.data:
        dataset = load_dataset(path)
        folder = options.out / dataset.name
        (dataset,), _ = without_copies([dataset], folder / "left_out.json")
        told = Settings(
            (str(writer),),
            template=TEMPLATE,
            drafts=2,
            seed=options.seed,
            temperature=options.temperature,
            limit=options.limit,
            max_new_tokens=120,
        )
        statistics = bootstrap(dataset, told, folder / "boot.jsonl", load=load_generalist)
        counts = ", ".join(f"{statistics[name]} {name}" for name in ("accepted", "spare", "rejected"))
        print(f"{dataset.name}: {statistics['drafts']} drafts of {statistics['images']} images: {counts}")
        print(f"  reasons: {statistics['reasons']}")
        reports = read_records(folder / "boot.jsonl")
        mixtures = {"labels only": {"see": 1.0}, "bootstrapped": {"see": 0.5, "given": 0.5}}
        judged = {}
        for name, mixture in mixtures.items():
            records = make_records(
                [dataset],
                n=options.records,
                seed=options.seed,
                shares=Shares(mixture=mixture),
                given=[(1.0, reports)],
            )
            config = TrainConfig(learning_rate=3e-4, projector_learning_rate=5e-5, **settings)
            pupil = _trained(folder / name.replace(" ", "_"), records, config)
            judged[name] = _judged(pupil, dataset, options.limit, options.seed)
        _show(judged, dataset, options.limit)


def phantom_records(n: int, seed: int) -> list[Record]:
    """What the writer learns from: a prompt that tells the label, and a report of the grammar, no image."""
    rng = random.Random(f"{seed}:writer")
    out = []
    for i in range(n):
        modality = rng.choice(sorted(GRAMMARS))
        label = rng.choice(sorted(GRAMMARS[modality]))
        told = Told(modality, (label,), normal=label in ("normal", "no finding"))
        prompt = make_prompt(TEMPLATE, told, case_id=f"phantom-{i}", variant=0, seed=seed)
        report = write_phantom_report(modality, label, rng)
        out.append(Record(f"phantom-{i}", "write", "phantom_reports", None, prompt, report))
    return out


def _trained(folder: Path, records: Sequence[Record], config: TrainConfig) -> Path:
    if not (folder / "training.json").exists():
        train_nano(records, folder, config=config, init=weights_folder(), progress=_tell)
    return folder


def _tell(what: str, done: int, total: int) -> None:
    if done == total or done % 10 == 0:
        print(f"  {what} {done}/{total}", flush=True)


def _judged(adapter: Path, dataset: Dataset, limit: int | None, seed: int) -> dict[str, list[Any]]:
    """Of each test case: the option chosen, what it writes, and what is said against that."""
    path = adapter / "judged.json"
    if path.exists():
        found: dict[str, list[Any]] = json.loads(path.read_text())
        return found
    model = load_generalist(str(adapter))
    cases = dataset.split("test")[:limit]
    prompt = TEMPLATES["evidence"].render(dataset.task, Evidence())
    chosen = _batched(
        cases,
        lambda part: [
            s.choice
            for s in model.score_options([Request(prompt.text, c.image, prompt.choices) for c in part])
        ],
    )
    written = _batched(cases, lambda part: _reports(model, part, dataset, seed))
    words = vocabulary(dataset.task)
    # An answer without headings is a conclusion, too: who was taught labels says nothing but the label.
    named = [names_label(t, Known(case.labels), words) for case, t in zip(cases, written, strict=True)]
    passed = [passes(t, Known(case.labels), words) for case, t in zip(cases, written, strict=True)]
    out = {"chosen": chosen, "written": written, "named": named, "passed": passed}
    write_atomic(path, dump_json(out))
    return out


def _reports(model: Generalist, cases: Sequence[Case], dataset: Dataset, seed: int) -> list[str]:
    requests = [
        Request(report_question(dataset.task.modality, case_id=case.id, seed=seed), case.image)
        for case in cases
    ]
    return model.generate(requests, max_new_tokens=120)


def _batched(cases: Sequence[Case], ask: Callable[[Sequence[Case]], list[Any]]) -> list[Any]:
    out: list[Any] = []
    for start in range(0, len(cases), BATCH):
        out += ask(cases[start : start + BATCH])
        _tell("judging", len(out), len(cases))
    return out


def _show(judged: dict[str, dict[str, list[Any]]], dataset: Dataset, limit: int | None) -> None:
    cases = dataset.split("test")[:limit]
    truth = dataset.targets(cases)
    positions, n = cluster_positions([case.cluster for case in cases])
    n_options = len(dataset.task.options)
    measures: dict[str, tuple[Statistic, Callable[[dict[str, list[Any]]], np.ndarray]]] = {
        "macro-F1 of the label": (
            macro_f1_of,
            lambda found: _confusions(np.asarray(truth), np.asarray(found["chosen"]), n_options),
        ),
        "report names the label alone": (share, lambda found: _counted(found["named"])),
        "report passes the filter": (share, lambda found: _counted(found["passed"])),
    }
    print(f"{dataset.name}: {len(cases)} test images")
    for name, (statistic, contributions) in measures.items():
        sums = {arm: per_cluster(contributions(found), positions, n) for arm, found in judged.items()}
        shown = []
        for arm, values in sums.items():
            found = bootstrap_interval(values, statistic)
            shown.append(f"{arm} {number(found.value)} [{number(found.low)}, {number(found.high)}]")
        between = compare(sums["bootstrapped"], sums["labels only"], statistic)
        shown.append(f"difference {between.difference:+.3f} [{between.low:+.3f}, {between.high:+.3f}]")
        print(f"  {name:30}{'; '.join(shown)}; p {between.p_value:.3f}")


def _confusions(truth: np.ndarray, chosen: np.ndarray, n_options: int) -> np.ndarray:
    """One confusion matrix a case, shape (n, n_options, n_options)."""
    out = np.zeros((len(truth), n_options, n_options))
    out[np.arange(len(truth)), truth, chosen] = 1.0
    return out


def _counted(said: Sequence[bool]) -> np.ndarray:
    return np.stack([np.asarray(said, dtype=np.float64), np.ones(len(said))], axis=1)


if __name__ == "__main__":
    main()
