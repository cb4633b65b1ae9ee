"""Images that copy one of a later split get no report: it would teach what is tested."""

from __future__ import annotations

from gsco.cases import Dataset
from gsco.cases.case import Split
from gsco.evaluation.progress import Reporter
from gsco.evaluation.runfolder import RunFolder
from gsco.retrieval import check_leakage

_FILE = "leakage.json"
_LATER: dict[Split, tuple[Split, ...]] = {"train": ("val", "test"), "val": ("test",), "test": ()}


def copies_of_later_splits(
    folder: RunFolder, dataset: Dataset, split: Split, progress: Reporter
) -> frozenset[str]:
    """Ids of cases of `split` whose image is, or nearly is, one of validation (for training) or test.

    Looked for once; ``leakage.json`` in `folder` holds what was found.
    """
    known = folder.read_json(_FILE)
    if known is None:
        later = [case for name in _LATER[split] for case in dataset.split(name)]
        with progress.stage("looking for copies") as step:
            report = check_leakage(dataset.split(split), later, progress=step)
        known = report.to_json()
        folder.write_json(_FILE, known)
    return frozenset(known["purged"])
