"""Evidence for some 5,000 cases x 4 specialists: passes of each backbone, peak memory, time, and a kill.

Four specialists, three of them on the embedded backbone and one on another, speak about every case of a set,
out of fold on training cases, in a process of their own that begins with an empty cache. Then the same again
from the filled cache (nothing may go through a backbone), and a build that is killed half-way and given
again, which must leave the same bytes.

    python benchmarks/evidence.py --data pneumoniamnist.npz

The second backbone has random weights and stands for any other one: it is there to be counted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

FILES = ("evidence.jsonl", "evidence.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--second", default="test_efficientnet", help="timm name of the second backbone")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(build(json.loads(options.job))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        compare(options, Path(scratch))


def compare(options: argparse.Namespace, scratch: Path) -> None:
    """The four builds, and the table."""
    job = {
        "data": str(options.data),
        "folds": options.folds,
        "cache": str(scratch / "cache"),
        "specialists": ["linear_probe", "knn", "texture_probe", f"knn:{scratch / 'second'}"],
    }
    save_backbone(options.second, scratch / "second")
    first = child({**job, "out": str(scratch / "first")})
    again = child({**job, "out": str(scratch / "again")})
    if first is None or again is None:
        raise SystemExit("a build failed")
    kill_at = max(1, sum(-(-cases // 64) for cases in first["cases"].values()) // 2)
    if child({**job, "out": str(scratch / "killed"), "kill_at": kill_at}) is not None:
        raise SystemExit("the build was to be killed, and was not")
    left = (scratch / "killed" / FILES[0]).read_bytes().count(b"\n")
    resumed = child({**job, "out": str(scratch / "killed")})
    if resumed is None:
        raise SystemExit("a build failed")
    for name in FILES:
        contents = {(scratch / which / name).read_bytes() for which in ("first", "again", "killed")}
        if len(contents) > 1:
            raise SystemExit(f"{name} differs between the builds")
    n = sum(first["cases"].values())
    print(f"{n} cases x 4 specialists, {options.folds} folds; killed after {left} lines: the same bytes\n")
    print("| build | pictures through each backbone | peak memory, MB | wall, s | CPU, s |")
    print("|---|---|---|---|---|")
    for name, row in (("empty cache", first), ("filled cache", again), ("after a kill", resumed)):
        passes = ", ".join(f"{k}: {v} ({v / n:.2f} a case)" for k, v in row["passes"].items()) or "none"
        print(f"| {name} | {passes} | {row['peak']:.0f} | {row['wall']:.1f} | {row['cpu']:.1f} |")
    print(f"\nimports alone: {first['start']:.0f} MB")


def child(job: dict[str, Any]) -> dict[str, Any] | None:
    """One build in a process of its own, None where it was killed; progress goes to stderr."""
    words = [sys.executable, __file__, "--data", job["data"], "--job", json.dumps(job)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == -signal.SIGKILL:
        return None
    if done.returncode:
        raise SystemExit(done.returncode)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def build(job: dict[str, Any]) -> dict[str, Any]:
    """Build the evidence and measure; pictures are counted where they enter a backbone."""
    import sklearn.linear_model
    import torch

    from gsco.cases import load_dataset
    from gsco.cli.console import stderr
    from gsco.cli.progress import reporter
    from gsco.evaluation import evidence_build
    from gsco.evaluation.runfolder import RunFolder
    from gsco.specialists.backbones import Backbone

    torch.set_num_threads(1)
    _ = sklearn.linear_model.LogisticRegression
    passes: Counter[str] = Counter()
    plain, appended = Backbone.apply, RunFolder.append

    def counted(self: Backbone, images: Any, forward: Any) -> Any:
        if hasattr(self, "channels"):  # not the one picture by which it learns its own shape
            passes[Path(self.name).name] += len(images)
        return plain(self, images, forward)

    def mortal(self: RunFolder, *arguments: Any) -> None:
        appended(self, *arguments)
        job["kill_at"] -= 1  # a call is one synced write of 64 lines
        if not job["kill_at"]:
            os.kill(os.getpid(), signal.SIGKILL)

    Backbone.apply = counted  # type: ignore[method-assign]
    if "kill_at" in job:
        RunFolder.append = mortal  # type: ignore[method-assign, assignment]
    start, began = peak(), (time.perf_counter(), time.process_time())
    record = evidence_build.build_evidence(
        load_dataset(job["data"]),
        job["specialists"],
        job["out"],
        folds=job["folds"],
        cache=Path(job["cache"]),
        progress=reporter(stderr()),
    )
    return {
        "cases": record["cases"],
        "passes": dict(passes),
        "start": start,
        "peak": peak(),
        "wall": time.perf_counter() - began[0],
        "cpu": time.process_time() - began[1],
    }


def peak() -> float:
    """Most memory that this process held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def save_backbone(name: str, folder: Path) -> None:
    """A timm network with random weights, in timm's own layout."""
    import timm
    import torch
    from timm.models import save_for_hf

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_for_hf(timm.create_model(name), str(folder), safe_serialization=True)


if __name__ == "__main__":
    main()
