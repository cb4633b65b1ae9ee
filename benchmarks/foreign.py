"""Each set's images offered to the teams of all others: does the out-of-distribution sign tell them apart?

    python benchmarks/foreign.py runs/busi runs/ham10000 runs/cxr_nih ...           # finished runs
    python benchmarks/foreign.py runs/* --other "DATA/vqa_rad@HEAD=head CT or MR"   # and sets without a run
    python benchmarks/foreign.py runs/* --split val --opinions linear_probe knn     # what choices are made by

Prints Markdown. A pair counts as foreign where the modalities differ by name; other pairs stand in a table of
their own. The sign is the run's own (``foreign.json``), or is fitted as the run would, from its index and its
validation images, where the run is older. "AUROC" is that of the distance, a team's own images against the
others'; "called foreign" is the share at the run's rate of false alarms, chosen without these images.
Where two sets differ in size (side below 64 pixels or not) or in colour (grey or not), a sign that saw
nothing but that would tell them apart, so the pairs that have both in common are summed up apart, too.
With ``--reduced`` N, the first N images of every large set, made grey and 28 pixels wide, are offered to the
teams that know such images: there size and colour tell nothing. Photographs that scikit-image brings are one
more set where it is installed. Features come from the cache.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case, Dataset, ImageRef, Split, load_dataset, load_image
from gsco.collaboration import Evidence
from gsco.embedded import cache_home
from gsco.evaluation.config import RunConfig
from gsco.evaluation.data import read_record
from gsco.evaluation.foreign import read_sign
from gsco.evaluation.metrics import binary_auc
from gsco.evaluation.parts import load_encoder
from gsco.evaluation.runfolder import RunFolder
from gsco.retrieval import CaseIndex, ForeignSign
from gsco.specialists import Opinion, load_specialist
from gsco.specialists.features import extract
from gsco.specialists.registry import safe_name

Floats = NDArray[np.float64]
PHOTOGRAPHS = ("chelsea", "astronaut", "coffee", "rocket")
STAINED = ("retina", "immunohistochemistry")
SMALL = 64
REDUCED = 28  # side in pixels, as MedMNIST's


@dataclass
class Images:
    """The images of one set that are offered to the teams."""

    name: str
    modality: str
    refs: list[ImageRef]
    size: str
    colour: str

    @property
    def look(self) -> tuple[str, str]:
        """What tells sets apart without any knowledge."""
        return self.size, self.colour


@dataclass
class Team:
    """What a run knows: index, sign and, where asked for, specialists."""

    images: Images
    index: CaseIndex
    sign: ForeignSign
    run: Path


@dataclass
class Pair:
    """One set's images offered to one team."""

    team: Images
    other: Images
    auroc: float
    called: float
    disagreement: float | None = None
    both: float | None = None

    @property
    def alike(self) -> bool:
        """Whether both are as large and as coloured."""
        return self.team.look == self.other.look


def looked_at(name: str, modality: str, refs: Sequence[ImageRef]) -> Images:
    """A set with what its first images look like."""
    some = [load_image(ref) for ref in refs[:12]]
    side = float(np.median([min(image.size) for image in some]))
    grey = np.median([np.ptp(np.asarray(image.convert("RGB")), axis=2).mean() for image in some]) < 2
    return Images(
        name, modality, list(refs), "small" if side < SMALL else "large", "grey" if grey else "colour"
    )


def labelled(dataset: Dataset, split: Split, gone: Sequence[str] = ()) -> list[Case]:
    return [case for case in dataset.split(split) if case.label is not None and case.id not in set(gone)]


def team_of(run: Path, split: Split, cache: Path) -> Team:
    """A finished run as a team."""
    folder = RunFolder(run)
    config = RunConfig.from_yaml(folder.config)
    record = read_record(folder)
    dataset = load_dataset(config.data, max_broken=1.0, seed=config.seed)
    encoder = load_encoder(config.backbone)
    index = CaseIndex.from_pretrained(folder.index, expect_encoder=encoder.fingerprint)
    sign = read_sign(folder, index)
    if sign is None:
        copies = (folder.read_json("leakage.json") or {}).get("validation", {}).get("left_out", [])
        known = [case.image for case in labelled(dataset, "val", copies)]
        sign = ForeignSign.fit(index, extract(encoder, known, cache=cache))
    refs = [case.image for case in labelled(dataset, split)]
    return Team(looked_at(record["name"], record["task"]["modality"], refs), index, sign, run)


def other_of(given: str, split: Split) -> Images:
    """``FOLDER[@LABEL]=MODALITY``: a set (or one label of it) that has no run."""
    where, _, modality = given.partition("=")
    path, _, label = where.partition("@")
    dataset = load_dataset(Path(path), max_broken=1.0, seed=0)
    refs = [case.image for case in labelled(dataset, split) if not label or label in case.labels]
    name = Path(path).name + (f" {label}" if label else "")
    return looked_at(name, modality or str(dataset.task.modality), refs)


def photographs(folder: Path) -> list[Images]:
    """Images that scikit-image brings, as files; none where it is not installed."""
    try:
        from skimage import data
        from skimage.io import imsave
    except ImportError:
        return []
    sets = []
    for name, members in (("photographs", PHOTOGRAPHS), ("retina, stained tissue", STAINED)):
        refs = []
        for member in members:
            path = folder / f"{member}.png"
            imsave(path, getattr(data, member)(), check_contrast=False)
            refs.append(ImageRef(path))
        sets.append(looked_at(name, name, refs))
    return sets


def reduced(images: Images, most: int, folder: Path) -> Images:
    """The first images of a set, grey and small, as files."""
    from PIL.Image import Resampling

    refs = []
    (folder / images.name).mkdir(parents=True)
    for i, ref in enumerate(images.refs[:most]):
        path = folder / images.name / f"{i}.png"
        load_image(ref).convert("L").resize((REDUCED, REDUCED), Resampling.BICUBIC).save(path)
        refs.append(ImageRef(path))
    return looked_at(f"{images.name}, reduced", images.modality, refs)


def disagreements(team: Team, names: Sequence[str], sets: Sequence[Images], cache: Path) -> list[Floats]:
    """Disagreement of a team's specialists about the images of each set, (n,) each."""
    speakers = [load_specialist(team.run / "specialists" / safe_name(name), cache=cache) for name in names]
    out = []
    for images in sets:
        said = [speaker.predict(images.refs) for speaker in speakers]
        out.append(
            np.asarray(
                [
                    Evidence(
                        tuple(
                            Opinion(name, tuple(map(float, p[i])))
                            for name, p in zip(names, said, strict=True)
                        )
                    ).disagreement()
                    for i in range(len(images.refs))
                ],
                dtype=np.float64,
            )
        )
    return out


def told_apart(own: Floats, others: Floats) -> float:
    """AUROC of a score that should be higher for `others`."""
    return binary_auc(np.repeat([False, True], [len(own), len(others)]), np.concatenate([own, others]))


def compare(
    team: Team,
    others: Sequence[Images],
    features: dict[str, NDArray[np.float32]],
    names: Sequence[str],
    cache: Path,
) -> tuple[list[Pair], float]:
    """All pairs of one team, and the share of its own images that it calls foreign."""
    judged = {
        images.name: team.sign.judge(team.index, features[images.name]) for images in (team.images, *others)
    }
    scores = {name: np.asarray([found.score for found in judged[name]]) for name in judged}
    called = {name: float(np.mean([found.is_foreign for found in judged[name]])) for name in judged}
    own = scores[team.images.name]
    apart: list[Floats] = disagreements(team, names, (team.images, *others), cache) if names else []
    pairs = []
    for i, images in enumerate(others):
        pair = Pair(team.images, images, told_apart(own, scores[images.name]), called[images.name])
        if apart:
            # as large as the team's own images make each of them
            unit = [(x.mean(), x.std() + 1e-9) for x in (own, apart[0])]
            pair.disagreement = told_apart(apart[0], apart[i + 1])
            pair.both = told_apart(
                *(
                    (distance - unit[0][0]) / unit[0][1] + (spread - unit[1][0]) / unit[1][1]
                    for distance, spread in ((own, apart[0]), (scores[images.name], apart[i + 1]))
                )
            )
        pairs.append(pair)
    return pairs, called[team.images.name]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def grid(pairs: Sequence[Pair], value: str) -> str:
    """Teams down, sets across; pairs that are no foreign ones stay empty."""
    teams = list(dict.fromkeys(pair.team.name for pair in pairs))
    others = list(dict.fromkeys(pair.other.name for pair in pairs))
    known = {(pair.team.name, pair.other.name): getattr(pair, value) for pair in pairs}
    rows = [
        [team, *(f"{known[team, other]:.3f}" if (team, other) in known else "" for other in others)]
        for team in teams
    ]
    return table(["team \\ images", *others], rows)


def summary(title: str, pairs: Sequence[Pair]) -> list[str]:
    """Mean and worst of some pairs."""
    worst = min(pairs, key=lambda pair: pair.auroc)
    least = min(pairs, key=lambda pair: pair.called)
    return [
        title,
        str(len(pairs)),
        f"{np.mean([pair.auroc for pair in pairs]):.4f}",
        f"{worst.auroc:.4f} ({worst.team.name} ← {worst.other.name})",
        f"{100 * np.mean([pair.called for pair in pairs]):.1f} %",
        f"{100 * least.called:.1f} % ({least.team.name} ← {least.other.name})",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="finished run folders of one backbone")
    parser.add_argument("--other", action="append", default=[], metavar="FOLDER[@LABEL]=MODALITY")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="whose images are offered")
    parser.add_argument(
        "--opinions", nargs="+", default=[], help="specialists whose disagreement is tried, too"
    )
    parser.add_argument(
        "--reduced", type=int, default=0, metavar="N", help="offer N reduced images of a set, too"
    )
    args = parser.parse_args()
    cache = cache_home(None)
    with tempfile.TemporaryDirectory() as scratch:
        report(args, cache, Path(scratch))


def report(args: argparse.Namespace, cache: Path, scratch: Path) -> None:
    teams = [team_of(run, args.split, cache) for run in args.runs]
    extra = [other_of(given, args.split) for given in args.other] + photographs(scratch)
    sets = [*(team.images for team in teams), *extra]
    encoder = load_encoder(RunConfig.from_yaml(args.runs[0] / "config.yaml").backbone)
    features = {images.name: extract(encoder, images.refs, cache=cache) for images in sets}
    pairs: list[Pair] = []
    rows = []
    for team in teams:
        others = [images for images in sets if images.name != team.images.name]
        found, alarms = compare(team, others, features, args.opinions, cache)
        pairs += found
        own = team.images
        known = (str(len(own.refs)), str(len(team.sign.known)), str(len(team.sign.validation)))
        rows.append([own.name, f"{own.size}, {own.colour}", *known, f"{team.sign.rate:.3f}", f"{alarms:.3f}"])
    ran = {team.images.name for team in teams}
    foreign = [pair for pair in pairs if pair.team.modality.lower() != pair.other.modality.lower()]
    between = [pair for pair in foreign if pair.other.name in ran]
    near = [pair for pair in pairs if pair not in foreign]
    print(
        f"\n### {args.split} images offered to teams of another modality: AUROC\n\n{grid(foreign, 'auroc')}"
    )
    print(f"\n### The same, share called foreign\n\n{grid(foreign, 'called')}\n")
    head = ["pairs", "n", "AUROC, mean", "worst", "called foreign, mean", "least"]
    parts = [
        ("between the runs", between),
        ("of those, alike in size and colour", [pair for pair in between if pair.alike]),
        ("sets without a run", [pair for pair in foreign if pair.other.name not in ran]),
    ]
    print(table(head, [summary(title, some) for title, some in parts if some]))
    if near:
        columns = ["team", "images", "AUROC", "called foreign", "alike in size and colour"]
        cells = [
            [p.team.name, p.other.name, f"{p.auroc:.3f}", f"{p.called:.3f}", "yes" if p.alike else "no"]
            for p in near
        ]
        print(f"\n### Near: the same modality from elsewhere\n\n{table(columns, cells)}")
    columns = ["team", "images", "n", "known", "validation", "promised rate", "own images called foreign"]
    print(f"\n### False alarms on own {args.split} images\n\n{table(columns, rows)}")
    if args.reduced:
        small = [images for images in sets if images.size == "large" and len(images.refs) > len(PHOTOGRAPHS)]
        offered = [reduced(images, args.reduced, scratch) for images in small]
        features |= {images.name: extract(encoder, images.refs, cache=None) for images in offered}
        looking = [team for team in teams if team.images.look == ("small", "grey")]
        control = [pair for team in looking for pair in compare(team, offered, features, (), cache)[0]]
        print(f"\n### Reduced to {REDUCED} grey pixels: AUROC\n\n{grid(control, 'auroc')}")
        print(f"\nShare called foreign:\n\n{grid(control, 'called')}")
    if args.opinions:
        means = {
            name: [getattr(pair, name) for pair in between] for name in ("auroc", "disagreement", "both")
        }
        cells = [[name, f"{np.mean(x):.4f}", f"{min(x):.4f}"] for name, x in means.items()]
        print(f"\n### Distance, disagreement, both\n\n{table(['score', 'AUROC, mean', 'worst'], cells)}")
        print(f"\n{grid(between, 'disagreement')}")


if __name__ == "__main__":
    main()
