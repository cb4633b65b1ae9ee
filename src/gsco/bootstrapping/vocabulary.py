"""By which words a report speaks of an option, from a small table with its sources.

Chest terms: the fourteen labels of ChestX-ray14 (Wang et al., CVPR 2017), their phrases after the mention
lists of the CheXpert labeler (Irvin et al., AAAI 2019) and the headings of MeSH. Other options are spoken of
by their own names and the few synonyms below. Words are matched whole, case aside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from gsco.cases.case import Option, Task


@dataclass(frozen=True, slots=True)
class Terms:
    """Patterns (regular expressions on lower-case text) for one option.

    Attributes:
        names: they say the option, wherever they stand unnegated.
        signs: vaguer words that count as naming it where it is true, and as nothing where it is not.
        denials: phrases that deny it without a negation ("heart size is normal").
        companions: canonical names of options that may be said beside it without having been told.
    """

    names: tuple[str, ...]
    signs: tuple[str, ...] = ()
    denials: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()


_HEART = r"(?:heart|cardiac)(?: and mediastin\w+| size| silhouette| shadow| contours?)*"
_IS_LARGE = (
    r"(?:(?:is|are|appears?|remains?|size|again|mildly|moderately|markedly|severely|slightly|borderline"
    r"|significantly|at the upper limits of|upper limits of) ){1,4}(?:enlarged|prominent)"
)
_CLEAR = (  # all of them: "the left lung is clear" says nothing of the right one
    r"(?<!left )(?<!right )(?<!remainder of the )(?<!rest of the )(?<!remaining )lungs? (?:fields? )?"
    r"(?:are|is|appears?|remains?)(?: well[- ]\w+ and| both| grossly)? clear\b"
)

_CHEST_TERMS: dict[str, Terms] = {
    "atelectasis": Terms((r"atelecta\w+",), (r"(?:lung|lobar|lobe) collapse", r"volume loss")),
    "cardiomegaly": Terms(
        (
            r"cardiomegaly",
            r"cardiac enlargement",
            r"(?:enlarged|large|enlargement of the|prominen\w+ of the) (?:heart|cardiac)(?: size)?(?! silh)",
            rf"heart(?: and mediastin\w+| size| contours?)* {_IS_LARGE}",
            r"heart enlargement",
        ),
        (
            # a large silhouette may be fluid around the heart
            r"(?:enlarged|large|enlargement of the|prominen\w+ of the) (?:heart|cardiac) (?:silhouette"
            r"|shadow|contours?)",
            rf"{_HEART} {_IS_LARGE}",
            rf"{_HEART} enlargement",
            r"borderline (?:heart|cardiac) size",
            r"heart (?:is|appears) large",
            r"(?:enlarged|large|prominent) cardiomediastinal (?:silhouette|contours?)",
        ),
        (
            r"(?:heart|cardiac(?: silhouette)?)(?: size)?(?: and [a-z ]{1,30})? (?:is|are|appears?"
            r"|remains?)"
            r"(?: of)?(?: within)?(?: the)?(?: grossly)? (?:normal|not enlarged|unremarkable)",
            r"(?<!limits of )normal (?:heart|cardiac) (?:size|silhouette)",
            r"heart size (?:and [a-z ]{1,30} )?(?:within normal|normal)",
        ),
    ),
    "effusion": Terms(
        (r"(?<!pericardial )(?<!joint )(?:pleural )?effusions?", r"pleural fluid", r"hydrothorax"),
        (r"blunt\w+",),
        (r"pleural spaces? (?:is|are|appears?) clear",),
    ),
    "infiltration": Terms(
        (r"infiltrat\w+",),
        (r"(?:air ?space|focal|patchy) (?:disease|opacit\w+|opacification)", r"opacit\w+"),
        (_CLEAR,),
        ("consolidation", "pneumonia"),
    ),
    "mass": Terms((r"mass(?:es)?", r"neoplasm\w*", r"tumou?rs?"), (r"lesions?",), (), ("nodule",)),
    "nodule": Terms((r"(?:micro)?nodules?",), (r"nodular\w*", r"lesions?", r"granulomas?"), (), ("mass",)),
    "pneumonia": Terms(
        (r"(?:broncho)?pneumonia\w*",),
        (r"infecti\w+ (?:process|etiology|infiltrat\w+)", r"infection", r"pneumonitis"),
        (_CLEAR,),
        ("infiltration", "consolidation"),
    ),
    "pneumothorax": Terms((r"(?:hydro)?pneumothora\w+",)),
    "consolidation": Terms(
        (r"consolidat\w+",),
        (r"air ?space (?:disease|opacit\w+|opacification)",),
        (_CLEAR,),
        ("infiltration", "pneumonia"),
    ),
    "edema": Terms(
        (r"(?<!soft tissue )(?<!laryngeal )(?<!peripheral )(?<!subcutaneous )o?edema",),
        (r"(?:vascular|pulmonary) congestion", r"(?:congestive )?heart failure", r"chf", r"fluid overload"),
        (),
        (),
    ),
    "emphysema": Terms(
        (r"(?<!subcutaneous )emphysema\w*",),
        (r"copd", r"chronic obstructive pulmonary disease", r"hyperinflat\w+", r"hyperexpan\w+"),
    ),
    "fibrosis": Terms(
        (r"fibro(?:sis|tic)",), (r"scarr?\w*", r"interstitial (?:lung )?(?:disease|changes|markings)")
    ),
    "pleural thickening": Terms((r"pleural[a-z /]{0,20}thickening", r"thickening of the pleura")),
    "hernia": Terms((r"herni(?:a|as|ation)",)),
}
_NOTHING_THERE = (
    r"no (?!other |further |additional |second |new )(?:\w+ ){0,2}?(?:mass(?:es)?|lesions?)",
    r"without (?:an? )?(?:\w+ )?(?:mass(?:es)?|lesions?)",
)
"""Where something is benign or malignant, something is there."""

_OTHER_TERMS: dict[str, Terms] = {
    "melanoma": Terms((r"melanomas?",)),
    "melanocytic nevus": Terms(
        (r"n(?:a)?ev(?:us|i)", r"moles?"),
    ),
    "benign": Terms((r"benign",), (r"fibroadenomas?", r"cysts?"), _NOTHING_THERE),
    "malignant": Terms(
        (r"malignan\w+", r"carcinomas?", r"cancer\w*"), (r"suspicious (?:mass|lesion)",), _NOTHING_THERE
    ),
}
TERMS = _CHEST_TERMS | _OTHER_TERMS
"""Terms by canonical name."""

CHEST = tuple(_CHEST_TERMS)
"""The labels of ChestX-ray14: where a task has one of them, the others can be seen on its images, too."""

ALIASES = {
    "pleural effusion": "effusion",
    "infiltrate": "infiltration",
    "lung mass": "mass",
    "lung nodule": "nodule",
    "pulmonary edema": "edema",
    "pulmonary fibrosis": "fibrosis",
    "pulmonary emphysema": "emphysema",
    "pulmonary atelectasis": "atelectasis",
    "hiatal hernia": "hernia",
    "melanocytic nevi": "melanocytic nevus",
}
NORMAL_NAMES = frozenset({"no finding", "no findings", "normal", "healthy", "no abnormality", "nothing"})

_THING = (
    r"(?:chest|exam\w*|stud(?:y|ies)|x[- ]?(?:rays?|xxxx)|radiographs?|radiographic|films?|images?"
    r"|imaging|appearance"
    r"|heart and lungs|cardiopulmonary|tissues?|breasts?|skin|scans?|ct|ultrasound|views?|retina|fundus)"
)
_ILL = r"(?:abnormalit\w+|diseases?|process\w*|findings?|changes?|patholog\w+|lesions?|disorders?)"
NORMAL_ACUTE = re.compile(
    rf"\b(?:no|without|negative for|absence of)\b[^.;:]{{0,60}}\b(?:acute|active)\b[^.;:]{{0,60}}\b{_ILL}"
)
"""Nothing acute: says "normal" where that is true, and contradicts nothing by itself."""

NORMAL_WHOLE = re.compile(
    rf"\b(?:normal|negative|unremarkable)(?: \w+){{0,3}}? {_THING}\b"
    rf"|\b{_THING}(?: [\w,-]+){{0,6}}? (?:is|are|appears?|was|within)(?: \w+){{0,2}}? (?:normal"
    rf"|negative|unremarkable)\b"
    rf"|\bno (?:(?:significant|radiographic|visible|focal|other|definite|cardiopulmonary|pulmonary"
    rf"|intrathoracic) ){{0,3}}"
    rf"{_ILL}\b(?<!changes)(?<!change)(?! (?:in|of|since|from|compared))"
    r"|^\W*(?:\d+\.\s*)?(?:normal|negative|unremarkable)\W*$"
)
"""The whole image is normal: contradicts every other option."""

NORMAL_PART = re.compile(
    r"\bclear lungs?\b|\blungs?(?: fields?)? (?:are|is|appears?|remains?)(?: \w+){0,2}? clear\b"
    r"|\bno (?:[\w-]+ ){0,6}disease\b|\bno (?:\w+ ){0,3}acute\b|\bno active\b|\bnegative for acute\b"
    r"|\bunremarkable\b|\bwithin normal limits\b"
)
"""Says "normal" where that is true, and contradicts nothing by itself."""


@dataclass(frozen=True, slots=True)
class OptionTerms:
    """The compiled words of one option of a task."""

    key: str
    name: str
    normal: bool
    names: re.Pattern[str]
    signs: re.Pattern[str] | None
    denials: re.Pattern[str] | None
    companions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words of all options of a task, in its order.

    Attributes:
        options: of the task.
        beyond: what else may be said of such images; none of it goes with "nothing to be found".
    """

    options: tuple[OptionTerms, ...]
    beyond: tuple[OptionTerms, ...] = ()

    def of(self, key: str) -> OptionTerms:
        """Terms of one option, or of what is beyond them; KeyError where there is none."""
        for option in (*self.options, *self.beyond):
            if option.key == key:
                return option
        raise KeyError(key)


def canonical(name: str) -> str:
    """``Pleural_Effusion`` → ``effusion``: the name under which `TERMS` knows an option."""
    plain = " ".join(re.sub(r"\([^)]*\)", " ", name).replace("_", " ").lower().split())
    return ALIASES.get(plain, plain)


def vocabulary(task: Task) -> Vocabulary:
    """The words for a task's options. An option without an entry is spoken of by its name and key."""
    return _vocabulary(tuple((option.key, option.name) for option in task.options))


def vocabulary_of(names: Iterable[str]) -> Vocabulary:
    """The words for options whose keys are their names."""
    return vocabulary(Task("diagnosis", "", tuple(Option(name, name) for name in names)))


@lru_cache(maxsize=64)
def _vocabulary(options: tuple[tuple[str, str], ...]) -> Vocabulary:
    known = {canonical(name) for _, name in options}
    others = [name for name in CHEST if name not in known] if known & set(CHEST) else []
    return Vocabulary(_terms(options), _terms(tuple((name, name) for name in others)))


def _terms(options: tuple[tuple[str, str], ...]) -> tuple[OptionTerms, ...]:
    plain = {key: canonical(name) for key, name in options}
    known = {key: name for key, name in plain.items() if name in TERMS}
    out = []
    for key, name in options:
        terms = TERMS.get(plain[key]) or TERMS.get(canonical(key))
        normal = plain[key] in NORMAL_NAMES or canonical(key) in NORMAL_NAMES
        literal = (
            set() if terms else {_literal(t) for t in (plain[key], name.lower(), canonical(key)) if t.strip()}
        )
        out.append(
            OptionTerms(
                key,
                name,
                normal,
                _compiled((*(terms.names if terms else ()), *sorted(literal, key=len, reverse=True))),
                _compiled(terms.signs) if terms and terms.signs else None,
                _compiled(terms.denials) if terms and terms.denials else None,
                frozenset(k for k, n in known.items() if terms and n in terms.companions),
            )
        )
    return tuple(out)


def _literal(text: str) -> str:
    words = re.findall(r"[^\W_]+", text)
    return r"[\s_-]+".join(map(re.escape, words)) + "s?" if words else re.escape(text)


def _compiled(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile(r"(?<![\w-])(?:" + "|".join(patterns) + r")(?!\w)")
