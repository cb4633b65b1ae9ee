"""Option scoring and arm scheduling of MedDr-nano against the reference's way, in one run.

The reference answers one request at a time by greedy generation (batch 1), and runs every arm over all
images anew. Here closed options are scored, and all arms of an image go together: the image is encoded
once, and what prompts and options have in common is read once, all in one pass.

    python benchmarks/scoring.py [--images 12] [--adapter DIR]

Two tables, each with wall and CPU seconds per answer and the ratio to the reference's way:

1. one request: generating the option's name to its end, against scoring all names in one pass (the same
   prompts), and against scoring letters
2. four arms of an image: four separate batch-1 passes, each with its own image encoding, against one group

With ``--profile`` also: which part of a scored request is matrix products, how fast they are done, and the
ratio there would be if everything else cost nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from gsco.cases import load_dataset
from gsco.cases.phantoms import generate_phantoms
from gsco.collaboration import STANDARD_ARMS, get_template, restrict
from gsco.generalist import Request
from gsco.generalist.nano.backend import NanoGeneralist
from gsco.teaching.simulate import simulate_evidence


def timed(work: Callable[[], object], answers: int) -> tuple[float, float]:
    """Wall and CPU seconds per answer."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - wall) / answers, (time.process_time() - cpu) / answers


def show(title: str, rows: list[tuple[str, tuple[float, float]]]) -> None:
    """Print a table; the first row is what the others are compared to."""
    table = Table("way", "wall s / answer", "CPU s / answer", "wall ratio", "CPU ratio", title=title)
    base = rows[0][1]
    for name, (wall, cpu) in rows:
        table.add_row(name, f"{wall:.3f}", f"{cpu:.3f}", f"{base[0] / wall:.2f}x", f"{base[1] / cpu:.2f}x")
    Console(width=110).print(table)


def show_bound(score: Callable[[], object], scored: float, generated: float) -> None:
    """What the matrix products of scoring alone leave to be won.

    Args:
        score: scores all requests, one by one.
        scored, generated: CPU seconds of scoring and of generating one answer, not profiled.
    """
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as seen:
        score()
    rows = seen.key_averages()
    products = [row for row in rows if row.key in ("aten::mm", "aten::addmm", "aten::bmm")]
    spent = sum(row.self_cpu_time_total for row in products)
    share = spent / sum(row.self_cpu_time_total for row in rows)
    rate = sum(row.flops for row in products) / 1e3 / spent
    side = torch.randn(1024, 1024)
    alone = 20 * 2 * 1024**3 / 1e9 / timed(lambda: [side @ side for _ in range(20)], 1)[1]
    rest = scored * (1 - share)
    Console(width=110).print(
        f"{share:.0%} of scoring one request is matrix products, at {rate:.0f} GFLOP/s "
        f"(a product of 1024 x 1024 alone: {alone:.0f}). Were all else free in both ways, the ratio would be "
        f"{(generated - rest) / (scored - rest):.2f}x."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    nano = NanoGeneralist.from_pretrained(args.adapter)
    with tempfile.TemporaryDirectory() as folder:
        dataset = load_dataset(generate_phantoms(Path(folder), n=max(40, 4 * args.images), seed=5))
        cases = dataset.cases[: args.images]
        rng = np.random.default_rng(0)
        evidence = [simulate_evidence(rng, dataset.targets([c])[0], dataset.task.keys) for c in cases]

        def ask(template: str, arms: tuple[str, ...]) -> list[Request]:
            out = []
            for case, known in zip(cases, evidence, strict=True):
                for arm in arms:
                    prompt = get_template(template).render(dataset.task, restrict(known, arm))
                    out.append(Request(prompt.text, case.image, prompt.choices))
            return out

        def alone(requests: list[Request], *, generate: bool) -> None:
            for request in requests:
                nano.forget()
                nano.generate([request], max_new_tokens=16) if generate else nano.score_options([request])

        def together(requests: list[Request]) -> None:
            nano.forget()
            nano.score_options(requests)

        alone(ask("paper", ("gsco",))[:2], generate=True)  # warm up
        names, lettered = ask("paper", ("gsco",)), ask("letters", ("gsco",))
        generated = timed(lambda: alone(names, generate=True), len(names))
        scored = timed(lambda: alone(names, generate=False), len(names))
        show(
            f"One request ({len(names)} images, {len(dataset.task.options)} options)",
            [
                ("generate the name, batch 1", generated),
                ("score all names, one pass", scored),
                ("score letters, one pass", timed(lambda: alone(lettered, generate=False), len(names))),
            ],
        )
        if args.profile:
            show_bound(lambda: alone(names, generate=False), scored[1], generated[1])
        for template in ("paper", "evidence"):
            arms = ask(template, STANDARD_ARMS)
            n = len(arms)
            show(
                f"Four arms of an image, template {template}",
                [
                    (
                        "four passes, batch 1, generation",
                        timed(partial(alone, arms, generate=True), n),
                    ),
                    (
                        "four passes, batch 1, scoring",
                        timed(partial(alone, arms, generate=False), n),
                    ),
                    ("by image, scoring", timed(partial(together, arms), n)),
                ],
            )


if __name__ == "__main__":
    main()
