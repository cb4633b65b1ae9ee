"""Option names that look alike, or mean nothing, for label sets that exist nowhere.

A small language model copies an answer token by token. Where two names begin with the same tokens
(melan-oma, melan-ocytic) it must turn back to the evidence in the middle of a name; where a name means
nothing, only the evidence can lead to it. Fields' own terms (`vocabulary.TERMS`) seldom ask for either.
"""

from __future__ import annotations

import numpy as np

STEMS: tuple[str, ...] = (
    "fibr", "lip", "chondr", "oste", "my", "neur", "angi", "lymph", "haemangi", "leiomy", "gli", "ependym",
    "thym", "hepat", "nephr", "gastr", "enter", "cholangi", "pancreat", "aden", "cyst", "arthr", "mening",
    "rhabdomy", "synovi", "trich", "mast", "thyroid", "bronch", "pleur",
)  # fmt: skip
SUFFIXES: tuple[str, ...] = (
    "oma", "osis", "itis", "osarcoma", "oblastoma", "omatosis", "opathy", "omegaly", "ocele", "olysis",
    "oplasia", "oid cyst", "ogenic tumour", "oid change", "ocytic nodule", "ocytic tumour",
)  # fmt: skip
QUALITIES: tuple[str, ...] = (
    "papillary", "tubular", "mucinous", "serous", "cystic", "spindle cell", "giant cell", "clear cell",
    "lobular", "follicular", "medullary", "trabecular", "diffuse", "focal", "acute", "chronic", "mild",
    "severe", "left-sided", "right-sided", "upper lobe", "lower lobe", "calcified", "inflammatory",
    "infiltrating", "granular cell", "border zone", "recurrent", "suspected", "healed",
)  # fmt: skip
NOUNS: tuple[str, ...] = (
    "carcinoma", "adenoma", "tumour", "lesion", "hyperplasia", "fibrosis", "cyst", "nodule", "oedema",
    "haemorrhage", "necrosis", "ulcer", "polyp", "infiltrate", "atrophy", "stenosis", "abscess",
    "plaque", "metastasis",
)  # fmt: skip
_ONSETS = (
    "b",
    "d",
    "f",
    "g",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "br",
    "dr",
    "kl",
    "pl",
    "st",
    "tr",
)
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("", "", "", "n", "r", "l", "s", "m", "x")


def one_stem(rng: np.random.Generator, n: int) -> list[str]:
    """`n` names that begin alike: chondroma, chondrosis, ... (at most `len(SUFFIXES)`)."""
    stem = str(rng.choice(STEMS))
    return [stem + str(suffix) for suffix in rng.choice(SUFFIXES, size=n, replace=False)]


def one_quality(rng: np.random.Generator, n: int) -> list[str]:
    """`n` names that begin with the same words: cystic lesion, cystic tumour, ..."""
    quality = str(rng.choice(QUALITIES))
    return [f"{quality} {noun}" for noun in rng.choice(NOUNS, size=n, replace=False)]


def one_noun(rng: np.random.Generator, n: int) -> list[str]:
    """`n` names that end alike: acute ulcer, healed ulcer, ..."""
    noun = str(rng.choice(NOUNS))
    return [f"{quality} {noun}" for quality in rng.choice(QUALITIES, size=n, replace=False)]


def mixed_names(rng: np.random.Generator, n: int) -> list[str]:
    """`n` names, some of one word and some of several, a few of which begin or end alike."""
    names: list[str] = []
    makers = (one_stem, one_quality, one_noun)
    while len(names) < n:
        maker = makers[int(rng.integers(len(makers)))]
        for name in maker(rng, min(n - len(names), int(rng.integers(1, 4)))):
            if name not in names:
                names.append(name)
    return [names[i] for i in rng.permutation(n)]


def meaningless_names(rng: np.random.Generator, n: int) -> list[str]:
    """`n` different words of two to four syllables that mean nothing, half of the time beginning alike."""
    start = _word(rng, 2) if rng.random() < 0.5 else ""
    names: list[str] = []
    while len(names) < n:
        name = start + _word(rng, int(rng.integers(1, 3) if start else rng.integers(2, 5)))
        if name not in names:
            names.append(name)
    return names


def _word(rng: np.random.Generator, syllables: int) -> str:
    parts = (
        str(rng.choice(_ONSETS)) + str(rng.choice(_VOWELS)) + str(rng.choice(_CODAS))
        for _ in range(syllables)
    )
    return "".join(parts)
