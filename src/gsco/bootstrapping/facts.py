"""Facts about a patient that no image shows: ages, names, dates, earlier examinations, sizes."""

from __future__ import annotations

import re

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_STUDY = (
    r"(?:exam\w*|stud(?:y|ies)|radiograph\w*|films?|x-?rays?|x-xxxx|ct|cts|images?|imaging|scans?|chest"
    r"|mammogra\w+|views?"
    r"|ultrasound|comparisons?|reports?|visits?)"
)
KINDS: dict[str, re.Pattern[str]] = {
    "age": re.compile(
        r"\b\d{1,3}[- ]?(?:years?|yrs?|y/?o|months?|weeks?|days?)[- ]?(?:old|of age)\b"
        r"|\b\d{1,3} ?y/?o\b|\baged? \d{1,3}\b"
        r"|\bin (?:his|her|their) (?:early |mid |late )?\d0s\b|\b(?:elderly|teenage|adolescent"
        r"|middle[- ]aged)\b"
    ),
    "sex": re.compile(r"\b(?:male|female|man|woman|men|women|gentleman|lady|boy|girl|his|her|he|she)\b"),
    "name": re.compile(
        r"\b(?:mr|mrs|ms|dr)\b\.? ?[a-z]|\bdoctor [a-z]|\bpatient(?:'s)? (?:name|id)\b|\bmrn\b"
        r"|\bsigned by\b|\bdictated by\b"
    ),
    "date": re.compile(
        rf"\b\d{{1,2}}([/.-])\d{{1,2}}\1(?:\d{{4}}|\d{{2}})\b|\b(?:19|20)\d\d[-/]\d"
        rf"|\b{_MONTH}\.? \d{{1,2}}\b"
        rf"|\b\d{{1,2}}(?:st|nd|rd|th)? {_MONTH}\b|\b(?:in|of|since|from|dated) (?:{_MONTH} )?(?:19"
        rf"|20)\d\d\b"
        r"|\b\d{1,2}:\d\d ?(?:am|pm|hours|hrs)?\b|\b(?:yesterday|last (?:week|month|year))\b"
    ),
    "prior": re.compile(
        rf"\bcompar(?:ed|ison)(?: \w+)? (?:to|with|is)\b|\bin comparison\b|\b(?:prior|previous|earlier"
        rf"|last)"
        rf"(?: \w+){{0,2}}? {_STUDY}\b|\b(?:since|from|to) (?:the )?(?:prior|previous"
        rf"|last)(?= ?(?:[.,;]|$|exam|stud|radiog|film|x-|ct|imag))|\bprior of\b"
        rf"|(?<!short )(?<!short-)(?<!short term )\binterval\b(?! follow)"
        r"|\bpreviously (?:seen|noted|described|identified)\b|\bredemonstrat\w+|\bagain (?:seen|noted"
        r"|demonstrated|identified)\b"
        r"|\bstable\b|\bunchanged\b|\bno change\b|\bsimilar to (?:prior|previous)\b"
    ),
    "measurement": re.compile(
        r"\b\d+(?:\.\d+)?(?: ?(?:x|by|-|to) ?\d+(?:\.\d+)?)* ?-?(?:mm|cm|millimet\w+|centimet\w+"
        r"|inch\w*|ml|cc|hu)\b"
        r"|\bratio (?:of |is )?(?:approximately )?0?\.\d+|\bmeasur(?:es|ing) (?:approximately |about )?\d"
    ),
    "history": re.compile(
        r"\b(?:history of|h/o|presents with|(?<!is )(?<!are )present with|presenting with"
        r"|complain\w*|known (?:case|history)|status post|s/p"
        r"|smok\w+|surgery in|treated (?:with|for)|symptoms? of|admitted|underwent)\b"
    ),
}
"""Patterns on lower-case text by the kind of fact."""

_WISHED = re.compile(
    r"\b(?:consider|recommend|suggest|advise)\w* comparison\b[^.]*|\bcomparison with\b[^.]*\b(?:could|would"
    r"|if available|if possible|is recommended|recommended)\b[^.]*"
    r"|\bif (?:there (?:are|is) )?(?:no )?(?:prior|previous)\b[^.]*"
)
"""A wish for an earlier examination says nothing of one."""

PLACEHOLDER = re.compile(r"\bx{3,}\b|\[[^\]\n]{0,40}\]|<[^>\n]{1,40}>|_{3,}", re.IGNORECASE)
"""Words taken out or to be filled in: no text to learn from."""


def find_facts(text: str) -> dict[str, str]:
    """Kinds of facts a report states, each with the first words that do."""
    lowered = _WISHED.sub(" ", text.lower())
    return {kind: match.group() for kind, pattern in KINDS.items() if (match := pattern.search(lowered))}
