"""MedDr-nano's closed diagnosis: the tree's own reader in fp32 and in int8, against one masked pass.

    python benchmarks/int8.py --root path/to/data RUN... [--cases 40]

Asks the four arms' prompts of finished runs again, in three ways in one process: by transformers' forward
pass under one mask over the tree, by `gsco.generalist.nano.reader` in fp32, and in int8. Printed for each:
share of answers that are the same, mean difference of probability, CPU and wall seconds an answer, and the
ratio to the first way; for all arms of an image together, and for one request alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsco.cases import load_dataset
from gsco.collaboration import STANDARD_ARMS
from gsco.generalist import Request
from gsco.generalist.nano.backend import NanoGeneralist
from gsco.generalist.option_tree import Row

WAYS = ("one masked pass", "fp32", "int8")


class MaskedPass:
    """transformers' own forward pass over the whole tree, under one mask."""

    def __init__(self, language_model: Any) -> None:
        self.language_model = language_model

    def __call__(self, embeds: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """See `gsco.generalist.nano.reader.Reader`."""
        places = torch.cat([torch.arange(row.start, row.start + len(row.ids)) for row in rows])
        mask = None
        if len(rows) > 1:
            lengths = torch.tensor([len(row.ids) for row in rows])
            owner = torch.repeat_interleave(torch.arange(len(rows)), lengths)
            visible = torch.zeros(len(rows), len(owner), dtype=torch.bool)
            for i, row in enumerate(rows):
                for start, end in row.sees:
                    visible[i, start:end] = True
            mask = (visible[owner] | (owner[:, None] == owner[None, :]).tril())[None, None]
        output = self.language_model(
            inputs_embeds=embeds[None], attention_mask=mask, position_ids=places[None], use_cache=False
        )
        return output.last_hidden_state[0]  # type: ignore[no-any-return]


def in_turns(
    ways: Sequence[NanoGeneralist], groups: list[list[Request]]
) -> list[tuple[list[Any], float, float]]:
    """Of each way its answers, CPU seconds and wall seconds an answer; a group goes to all before the next.

    So a machine that others use, too, slows all ways alike.
    """
    answers: list[list[Any]] = [[] for _ in ways]
    spent = [[0.0, 0.0] for _ in ways]
    for nano in ways:
        nano.score_options(groups[0])  # warm up
    for group in groups:
        for nano, said, took in zip(ways, answers, spent, strict=True):
            wall, cpu = time.perf_counter(), time.process_time()
            said += nano.score_options(group)
            took[0] += time.process_time() - cpu
            took[1] += time.perf_counter() - wall
    n = len(answers[0])
    return [(said, cpu / n, wall / n) for said, (cpu, wall) in zip(answers, spent, strict=True)]


def requests_of(run: Path, root: Path, n: int) -> list[list[Request]]:
    """What a run asked of the generalist about its first n cases, by case."""
    record = json.loads((run / "dataset.json").read_text())
    name = record["name"]
    folder = root / name if (root / name).exists() else root / "medmnist" / f"{name}.npz"
    images = {case.id: case.image for case in load_dataset(folder).cases}
    choices = tuple(option["name"] for option in record["task"]["options"])
    lines = [json.loads(line) for line in (run / "cases.jsonl").read_text().splitlines()]
    asked = sorted((line for line in lines if line["arm"] in STANDARD_ARMS), key=lambda x: x["case_id"])
    groups = [list(group) for _, group in groupby(asked, key=lambda line: line["case_id"])]
    rng = np.random.default_rng(0)
    chosen = sorted(rng.permutation(len(groups))[:n])
    return [[Request(line["prompt"], images[line["case_id"]], choices) for line in groups[i]] for i in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--root", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    exact, rough = NanoGeneralist.from_pretrained(), NanoGeneralist.from_pretrained(precision="int8")
    masked = NanoGeneralist.from_pretrained()
    masked._reader = MaskedPass(masked.model.model.language_model)  # type: ignore[assignment]
    same, answered = dict.fromkeys(WAYS, 0), 0
    spent, spent_alone = dict.fromkeys(WAYS, 0.0), dict.fromkeys(WAYS, 0.0)
    for run in options.runs:
        groups = requests_of(run, options.root, options.cases)
        alone = [[group[-1]] for group in groups[:10]]
        ways = (masked, exact, rough)
        together, one = in_turns(ways, groups), in_turns(ways, alone)
        base, first, first_wall = together[0]
        for way, (answers, cpu, wall), (_, one_cpu, one_wall) in zip(WAYS, together, one, strict=True):
            pairs = list(zip(answers, base, strict=True))
            equal = sum(a.choice == b.choice for a, b in pairs)
            gap = np.mean([np.abs(a.probabilities - b.probabilities).mean() for a, b in pairs])
            same[way] += equal
            spent[way] += cpu * len(answers)
            spent_alone[way] += one_cpu
            print(
                f"{run.name:<16}{way:<17}same {equal / len(answers):.3f} of {len(answers)}, "
                f"mean |dp| {gap:.4f}; four arms {cpu:.3f} s CPU, {wall:.3f} s wall, ratio "
                f"{first / cpu:.2f} / {first_wall / wall:.2f}; alone {one_cpu:.3f} s, "
                f"ratio {one[0][1] / one_cpu:.2f} / {one[0][2] / one_wall:.2f}",
                flush=True,
            )
        answered += len(base)
    for way in WAYS:
        print(
            f"all: {way:<17}same {same[way] / answered:.4f} of {answered}, "
            f"CPU ratio {spent[WAYS[0]] / spent[way]:.2f} four arms, "
            f"{spent_alone[WAYS[0]] / spent_alone[way]:.2f} alone"
        )


if __name__ == "__main__":
    main()
