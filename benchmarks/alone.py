"""Generalists by themselves, without any evidence, side by side: macro-F1 on each dataset.

    python benchmarks/alone.py --generalist nano --generalist trained --data ../shared/data/busi --data …

Every case is asked once, in the prompt that `gsco run` gives its arm `generalist`, and answered by option
scoring; answers are kept in --out, and not asked for again. Prints macro-F1 with 95 % intervals over patients
or groups, and for every further generalist the paired difference from the first one with its p-value
(approximate randomisation).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gsco.cases import Case, Dataset, load_dataset
from gsco.collaboration import Evidence, get_template
from gsco.disk import dump_json, write_atomic
from gsco.evaluation.metrics import confusion_matrix, macro_f1_of
from gsco.evaluation.report.wording import number
from gsco.evaluation.statistics import bootstrap_interval, cluster_positions, compare, per_cluster
from gsco.generalist import Generalist, Request, load_generalist

BATCH = 16


def main() -> None:
    """Print a line for each dataset and generalist."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--generalist", action="append", required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the answers")
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--limit", type=int, help="at most so many cases of each dataset")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    models = [load_generalist(name) for name in options.generalist]
    wide = max(map(len, options.generalist)) + 2
    for path in options.data:
        dataset = load_dataset(path)
        cases = dataset.split(options.split)[: options.limit]
        positions, n = cluster_positions([case.cluster for case in cases])
        truth = dataset.targets(cases)
        sums = []
        for name, model in zip(options.generalist, models, strict=True):
            chosen = answered(model, dataset, cases, options.out)
            one = [
                confusion_matrix([t], [c], len(dataset.task.options))
                for t, c in zip(truth, chosen, strict=True)
            ]
            sums.append(per_cluster(np.stack(one), positions, n))
            found = bootstrap_interval(sums[-1], macro_f1_of)
            line = f"{dataset.name:16}{len(cases):5}  {name:{wide}}{number(found.value)} "
            line += f"[{number(found.low)}, {number(found.high)}]"
            if len(sums) > 1:
                than = compare(sums[-1], sums[0], macro_f1_of)
                line += f"  {than.difference:+.3f} [{than.low:+.3f}, {than.high:+.3f}], p {than.p_value:.3f}"
            print(line, flush=True)


def answered(model: Generalist, dataset: Dataset, cases: Sequence[Case], out: Path) -> list[int]:
    """Positions of the options that are chosen."""
    asked = hashlib.sha256(repr((model.fingerprint, [case.id for case in cases])).encode()).hexdigest()[:12]
    path = out / f"{dataset.name}-{asked}.json"
    if path.exists():
        found: list[int] = json.loads(path.read_text())
        return found
    prompt = get_template("evidence").render(dataset.task, Evidence())
    chosen = []
    for start in range(0, len(cases), BATCH):
        part = [Request(prompt.text, case.image, prompt.choices) for case in cases[start : start + BATCH]]
        chosen += [scores.choice for scores in model.score_options(part)]
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(path, dump_json(chosen))
    return chosen


if __name__ == "__main__":
    main()
