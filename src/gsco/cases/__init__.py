"""Cases: what is asked, about which image, and what the reference answer is."""

from gsco.cases.case import SPLITS, Case, Dataset, ImageRef, Option, Split, Task, TaskKind
from gsco.cases.hashing import file_hash, pixel_hash
from gsco.cases.images import MAX_PIXELS, load_image
from gsco.cases.loading import find_broken, find_dataset, load_dataset
from gsco.cases.splits import check_splits, draw_splits, require_splits, units_of

__all__ = [
    "MAX_PIXELS",
    "SPLITS",
    "Case",
    "Dataset",
    "ImageRef",
    "Option",
    "Split",
    "Task",
    "TaskKind",
    "check_splits",
    "draw_splits",
    "file_hash",
    "find_broken",
    "find_dataset",
    "load_dataset",
    "load_image",
    "pixel_hash",
    "require_splits",
    "units_of",
]
