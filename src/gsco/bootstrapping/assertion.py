"""Whether a report affirms, doubts or denies an option: negation by triggers and their scope.

After NegEx (Chapman et al., Journal of Biomedical Informatics 34:301-310, 2001): a trigger before a term
denies it up to the next terminating word or the end of the sentence, a trigger behind it denies it within
the clause, and pseudo-negations ("no change in") deny nothing. Doubt ("may represent", "cannot exclude") is
read likewise and is neither an affirmation nor a denial. Scope is the sentence and not NegEx's five words,
since radiologists deny in long lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gsco.bootstrapping.sides import sides_of
from gsco.bootstrapping.vocabulary import Vocabulary

Status = Literal["affirmed", "uncertain", "denied"]

_SENTENCE = re.compile(r"(?<!\b[a-z])(?<!\bdr)(?<!\d)[.!?](?=\s|$)|(?<=\d)\.(?=\s+[A-Za-z]|\s*$)|[;\n]")
_PSEUDO = re.compile(
    r"\b(?:no|not|without)(?: (?:significant|interval|definite|appreciable|any|further|radiographic"
    r"|substantial"
    r"|large|major|other))* (?:change|changed|increase|decrease|improvement|worsening|progression"
    r"|resolution"
    r"|only|necessarily|certain)\b"
    r"|\b(?:near|nearly|partial|incomplete|some)[- ]?(?:complete )?(?:resolution|clearing) of\b"
    r"|\bunable to|\b(?:not|cannot|can not|can't|never)(?: be)?(?: \w+ly)? (?:exclude[d]?|rule[d]? out"
    r"|excluding)"
)
_NOT_QUITE = re.compile(
    r"^[^.;]{0,60}?\bnot (?:be )?(?:entirely|completely|definite\w*|fully) (?:be )?excluded\b"
)
_BEFORE = re.compile(
    r"\b(?:no|not|without|denie[sd]|negative for|free of|clear of|absence of|lack of|neither|nor|never"
    r"|rather than"
    r"|instead of|(?:resolution|clearing) of|resolved|cleared|isn't|aren't|doesn't|ruled? out|excludes?)\b"
)
_AFTER = re.compile(
    r"^[^.;:]{0,45}?\b(?:(?:is|are|was|were|has|have|been) (?:not|no longer)(?! (?:change|exclude|rule"
    r"|significant))"
    r"|not (?:seen|identified|present|evident|visuali[sz]ed|demonstrated|appreciated|observed|noted"
    r"|detected)"
    r"|unlikely|less likely|(?:has|have) (?:resolved|cleared)|(?:is|are) (?:absent|resolved)|ruled out"
    r"|excluded)\b"
    r"|^\s*[:=-]\s*(?:none|no|absent|negative|not)\b"
)
_AFTER_PSEUDO = re.compile(
    r"^[^.;]{0,45}?\b(?:cannot|can not|not|never)(?: be)?(?: \w+ly)? (?:exclude|rule|be)"
)
_DOUBT_BEFORE = re.compile(
    r"\b(?:may|might|could|possibl[ey]|question(?:able|ed|s)?(?: of)?|cannot exclude|not exclude[ds]?|versus"
    r"|vs|or"
    r"|suspected|concern for|concerning for|suspicious for|suspicion of|to exclude|to rule out|evaluate for"
    r"|suggest(?:s|ed|ing|ive)?|equivocal|uncertain|differential|considerations?|consider|either"
    r"|difficult to exclude|to (?:identify|detect|look for|search for|assess for))\b"
)
_DOUBT_AFTER = re.compile(
    r"^[^.;]{0,45}?\b(?:difficult to (?:\w+ )?exclude|(?:cannot|can not"
    r"|not)(?: be)?(?: \w+ly)? (?:be )?(?:excluded|ruled out)|(?:is|are) possible"
    r"|possible|versus|vs|(?:is|are) suspected|may be|might be|could be|differential)\b"
)
_STOP = re.compile(
    r"\b(?:but|however|although|though|except|aside from|apart from|other than|with the exception of"
    r"|there (?:is|are)"
    r"|which|(?<!may be )(?<!might be )(?<!could be )(?<!possibly )(?:secondary to|due to)"
    r"|otherwise|nevertheless|yet|again(?: seen)?)\b"
    r"|(?<!consistent )(?<!compatible )"
    r"(?<!associated )\bwith\b"
    r"|,? \band (?:a|an|the|stable|unchanged|persistent|chronic|mild|moderate|small|minimal|old|left"
    r"|right|severe)\b"
    r"|, (?:a|an|the|stable|unchanged|persistent|chronic|mild|moderate|minimal|there|it|this|these"
    r"|findings?) "
)
_QUALIFIED = re.compile(
    r"\b(?:large|sizable|significant|focal|other|additional|new|further|acute|definite|overt|gross"
    r"|frank|worsening"
    r"|increas\w+|convincing|suspicious|evident|obvious|discrete|dense|lobar|left|right|xxxx|layering"
    r"|confluent|segmental|retrocardiac|subpulmonic|loculated|apical|visible|active|displaced"
    r"|interstitial|alveolar|superimposed|associated)\b"
)
_ELSEWHERE = re.compile(r"\b(?:otherwise|elsewhere|remainder|remaining)\b")


@dataclass(frozen=True, slots=True)
class Mention:
    """One place where a report speaks of an option.

    Attributes:
        option: its key.
        status: affirmed, uncertain or denied.
        named: by a name, not by a vaguer sign.
        sides: ``left``, ``right``, both or none, as this mention says.
        bare: denied without a qualifier ("no effusion", not "no large effusion").
        start / stop: place in the text.
    """

    option: str
    status: Status
    named: bool
    sides: frozenset[str]
    bare: bool
    start: int
    stop: int


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Start and stop of each sentence; list numbers and abbreviations of one letter end none."""
    start = 0
    for match in _SENTENCE.finditer(text):
        if re.fullmatch(r"\W*\d*\W*", text[start : match.start()]) and match.group() == ".":
            continue  # "1. Cardiomegaly": the number belongs to what it numbers
        yield start, match.start()
        start = match.end()
    if text[start:].strip():
        yield start, len(text)


def find_mentions(text: str, words: Vocabulary) -> list[Mention]:
    """All mentions of the task's options, in order of place; overlapping ones: the longest for each option.

    Options that are names for "normal" are not looked for here, see `gsco.bootstrapping.checks`.
    """
    out: list[Mention] = []
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters grow when lowered; places must stay
        lowered = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    for start, stop in sentences(lowered):
        out += _in_sentence(lowered[start:stop], start, words)
    return sorted(out, key=lambda mention: (mention.start, mention.option))


def _in_sentence(sentence: str, offset: int, words: Vocabulary) -> list[Mention]:
    found: list[tuple[str, int, int, str]] = []
    for option in (*words.options, *words.beyond):
        if option.normal:
            continue
        for kind, pattern in (("denial", option.denials), ("name", option.names), ("sign", option.signs)):
            for match in pattern.finditer(sentence) if pattern else ():
                if not any(o == option.key and a < match.end() and match.start() < b for o, a, b, _ in found):
                    found.append((option.key, match.start(), match.end(), kind))
    spans = [(a, b) for _, a, b, _ in found]
    out = []
    for key, a, b, kind in found:
        status: Status = "denied"
        bare = True
        if kind != "denial":
            status, bare = status_at(sentence, a, b)
        sides = sides_of(sentence, a, b, spans)
        out.append(Mention(key, status, kind != "sign", sides, bare, offset + a, offset + b))
    return out


def status_at(sentence: str, start: int, stop: int) -> tuple[Status, bool]:
    """Status of the term at [start, stop) of a lower-case sentence, and whether a denial is bare."""
    before, after = sentence[:start], sentence[stop:]
    scope_start = max((m.end() for m in _STOP.finditer(before)), default=0)
    scope = _PSEUDO.sub(lambda m: " " * len(m.group()), before)[scope_start:]
    doubt_pseudo = any(
        m.start() >= scope_start and re.search(r"exclu|rule|unable", m.group())
        for m in _PSEUDO.finditer(before)
    )
    clause = after[: next((m.start() for m in _STOP.finditer(after)), len(after))]
    if doubt_pseudo or _DOUBT_AFTER.match(clause) or _NOT_QUITE.match(after):
        return "uncertain", False
    if denials := list(_BEFORE.finditer(scope)):
        between = scope[denials[-1].end() :] + sentence[start:stop]
        return "denied", not (_QUALIFIED.search(between) or _ELSEWHERE.search(before))
    if _AFTER.match(clause) and not _AFTER_PSEUDO.match(clause):
        return "denied", True
    if _DOUBT_BEFORE.search(scope):
        return "uncertain", False
    return "affirmed", False
