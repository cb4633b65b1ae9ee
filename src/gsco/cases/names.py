"""Readable names: what the public sets call their classes and images, for data that do not say so."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gsco.cases.case import Option
from gsco.errors import LabelError

UNKNOWN_MODALITY = "medical image"
"""The modality of a set that does not state one."""


@dataclass(frozen=True, slots=True)
class KnownSet:
    """What is known about a public set by its name.

    Attributes:
        modality: readable, without an article.
        names: option key → readable name; keys that are missing here are prettified.
        licence: as its publisher states it.
        source: the publication.
    """

    modality: str
    names: Mapping[str, str] = field(default_factory=dict)
    licence: str | None = None
    source: str | None = None


CATALOGUE: Mapping[str, KnownSet] = {
    "busi": KnownSet(
        "breast ultrasound",
        {"benign": "benign", "malignant": "malignant", "normal": "normal"},
        "CC BY 4.0 (as redistributed by MedMNIST)",
        "Al-Dhabyani et al., Data in Brief 28:104863 (2020)",
    ),
    "ham10000": KnownSet(
        "dermatoscopy",
        {
            "akiec": "actinic keratosis",
            "bcc": "basal cell carcinoma",
            "bkl": "benign keratosis",
            "df": "dermatofibroma",
            "mel": "melanoma",
            "nv": "melanocytic nevus",
            "vasc": "vascular lesion",
        },
        "CC BY-NC 4.0",
        "Tschandl et al., Scientific Data 5:180161 (2018)",
    ),
    "lc25000_lung": KnownSet(
        "lung histopathology",
        {
            "lung_adenocarcinoma": "lung adenocarcinoma",
            "lung_benign": "benign lung tissue",
            "lung_squamous_cell_carcinoma": "lung squamous cell carcinoma",
        },
        "free for AI researchers (no licence text)",
        "Borkowski et al., arXiv:1912.12142",
    ),
    "cxr_nih": KnownSet(
        "chest X-ray",
        {"no_finding": "no finding", "pneumonia": "pneumonia"},
        "NIH Clinical Center: unrestricted, attribution",
        "Wang et al., CVPR 2017",
    ),
    "bccd": KnownSet(
        "blood smear microscopy",
        {"Platelets": "platelet", "RBC": "red blood cell", "WBC": "white blood cell"},
        "MIT",
        "BCCD dataset (cosmicad, akshaylamba)",
    ),
    "wbc_tecom": KnownSet(
        "blood smear microscopy",
        {},
        "GPL-3.0 repository; no other terms stated",
        "Zheng et al., Micron 107:55-71 (2018)",
    ),
    "covid_cxr_notes": KnownSet(
        "chest X-ray or CT",
        {
            "ARDS": "acute respiratory distress syndrome",
            "COVID-19": "COVID-19",
            "No Finding": "no finding",
            "Pneumocystis": "pneumocystis pneumonia",
            "SARS": "SARS",
            "Streptococcus": "streptococcal pneumonia",
        },
        "CC BY-NC-SA 4.0 (metadata); each image has its own",
        "Cohen et al., arXiv:2003.11597",
    ),
    "vqa_rad": KnownSet(
        "radiology image (X-ray, CT or MRI)",
        {"ABD": "abdomen", "CHEST": "chest", "HEAD": "head"},
        "CC0 1.0",
        "Lau et al., Scientific Data 5:180251 (2018)",
    ),
    "iu_xray_reports": KnownSet(
        "chest X-ray",
        {},
        "CC BY-NC-ND 4.0 (unverified)",
        "Demner-Fushman et al., JAMIA 23:304-310 (2016)",
    ),
}
"""Public sets by folder name (lower case, words joined by ``_``)."""


def known_set(name: str, *, exact: bool = False) -> KnownSet | None:
    """The catalogue's entry for a dataset name; ``busi``, ``BUSI`` and ``busi-small`` are the same.

    Args:
        name: of the folder.
        exact: not ``busi-small``: what is said of a set's origin holds for that set only.
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    for known in sorted(CATALOGUE, key=len, reverse=True):
        if plain == known or (not exact and plain.startswith(f"{known}_")):
            return CATALOGUE[known]
    return None


def prettify(key: str) -> str:
    """``lung_squamous_cell_carcinoma`` → ``lung squamous cell carcinoma``; never empty."""
    return " ".join(key.replace("_", " ").split()) or key


def make_options(keys: Iterable[str], names: Mapping[str, str] | None = None) -> tuple[Option, ...]:
    """Options in the order of `keys`, named by `names` or else prettified; names are unique.

    Where prettifying would give two options one name, those options are called by their keys.

    Raises:
        LabelError: two keys differ by upper and lower case, blanks or encoding only.
    """
    keys = list(keys)
    alike: dict[str, str] = {}
    for key in keys:
        other = alike.setdefault(unicodedata.normalize("NFKC", key).casefold().strip(), key)
        if other != key:
            raise LabelError(
                f"labels {other!r} and {key!r} differ by upper and lower case, blanks or encoding only",
                remedy="Write each label in one way.",
            )
    given = names or {}
    pretty = {key: given.get(key) or prettify(key) for key in keys}
    taken = Counter(pretty.values())
    unique = [pretty[key] if taken[pretty[key]] == 1 else key for key in keys]
    if len(set(unique)) < len(unique):  # a given name is another option's key
        unique = keys
    return tuple(Option(key, name) for key, name in zip(keys, unique, strict=True))
