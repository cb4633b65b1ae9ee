"""Training cases that are, or nearly are, one image, within a dataset and across datasets.

What is said about a training case must come from who never saw it. A near-copy in another fold, or the
same image in another collection, has been seen all the same, so such cases are made one group, and folds,
neighbours and what is held back from looking go by group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gsco.cases import Case, Dataset
from gsco.cases.splits import UnionFind
from gsco.progress import Count
from gsco.retrieval.leakage import check_leakage


def group_alike(
    datasets: Sequence[Dataset],
    twins: Mapping[str, Mapping[str, str]] | None = None,
    *,
    progress: Count | None = None,
) -> list[Dataset]:
    """The datasets with the ``group`` of training cases widened to all that are alike.

    Args:
        datasets: of any kind; only training cases of diagnosis datasets are compared.
        twins: dataset name -> name of another one -> column (`Case.extra`) that holds that one's case id,
            where a collection says itself which images it shares and looks cannot tell.
        progress: called with (images read, images in all).

    Returns:
        The same datasets in the same order. Cases that share a patient or a group stay together.
    """
    known = {
        f"{number}/{case.id}": (number, case)
        for number, dataset in enumerate(datasets)
        if dataset.task.kind == "diagnosis"
        for case in dataset.split("train")
    }
    cases = [replace(case, id=name, patient_id=None, group=None) for name, (_, case) in known.items()]
    report = check_leakage(cases, cases, progress=progress)
    alike = UnionFind()
    for name, (number, case) in known.items():
        for kind, unit in (("p", case.patient_id), ("g", case.group)):
            if unit:
                alike.join(f"{kind}:{number}/{unit}", name)
        for other, column in (twins or {}).get(datasets[number].name, {}).items():
            for at, dataset in enumerate(datasets):
                twin = f"{at}/{case.extra.get(column)}"
                if dataset.name == other and twin in known:
                    alike.join(name, twin)
    for pair in (*report.pixels, *report.near_duplicates):
        alike.join(pair.indexed, pair.answered)
    size = Counter(alike.find(name) for name in known)
    group = {name: f"alike {alike.find(name)}" for name in known if size[alike.find(name)] > 1}
    return [
        replace(
            dataset,
            cases=tuple(_grouped(case, group.get(f"{number}/{case.id}")) for case in dataset.cases),
        )
        for number, dataset in enumerate(datasets)
    ]


def _grouped(case: Case, group: str | None) -> Case:
    return case if group is None or case.split != "train" else replace(case, group=group)
