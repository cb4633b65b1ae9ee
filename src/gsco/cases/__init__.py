"""Cases: what is asked, about which image, and what the reference answer is."""

from gsco.cases.case import SPLITS, Case, Dataset, ImageRef, Option, Split, Task, TaskKind

__all__ = ["SPLITS", "Case", "Dataset", "ImageRef", "Option", "Split", "Task", "TaskKind"]
