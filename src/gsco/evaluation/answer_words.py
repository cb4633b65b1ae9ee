"""The English words by which answers deny and introduce options; used by `gsco.evaluation.parsing` alone."""

from __future__ import annotations

import re

# Deny the option that follows, with only `FILLERS` in between.
DENIALS: frozenset[tuple[str, ...]] = frozenset(
    tuple(line.split())
    for line in """
        not
        no
        non
        never
        neither
        nor
        without
        cannot
        isnt
        arent
        wasnt
        doesnt
        dont
        unlike
        than
        against
        unlikely
        lacks
        lack of
        exclude
        excludes
        excluded
        excluding
        denies
        absence of
        free of
        negative for
        rule out
        rules out
        ruled out
        ruling out
        instead of
        rather than
        as opposed to
    """.strip().splitlines()
)

# A list after one of these goes on through commas ("no effusion, nodule or mass").
LIST_DENIALS = frozenset({"no", "without", "negative", "free", "neither", "absence", "excluding", "lacks"})

_FILLERS = """
    a an the any of in to be as is are was been being for with that this it its there case cases diagnosis
    option obvious definite clear frank convincing evidence sign signs feature features finding findings
    suggestion indication suspicion likely really truly actually clearly typical consistent compatible
    suggestive suspicious indicative characteristic show shows showing look looks like appear appears seem
    seems represent represents suggest suggests indicate indicates have has contain contains see
    call considered
"""
FILLERS = frozenset(_FILLERS.split())

_LEAD_IN = "the a an is option choice letter most likely probably answer diagnosis clearly definitely text"
LEAD_IN = frozenset(_LEAD_IN.split())

# "malignancy is unlikely", "effusion: absent", "pneumonia was ruled out", "benign is not the answer"
DENIED_AFTER = re.compile(
    r"^(?:\W+(?:is|are|was|were|can|could|may|be|been|has|have|seems?|appears?|looks?|very|highly|quite|also|"
    r"therefore|thus|lesions?|mass(?:es)?|tumou?rs?|findings?|disease|diagnosis|option|here|safely))*"
    r"\W+(?:unlikely|improbable|absent|excluded|denied|incorrect|wrong|false|(?:less|least) likely|ruled out|"
    r"(?:not|isnt|arent|wasnt) (?:the |a |an )?(?:seen|present|likely|identified|evident|visible|found|"
    r"suspected|favou?red|supported|shown|correct|right|answer|diagnosis|case|option|detected|apparent|"
    r"appropriate))\b"
)

_SAYS = r"(?:\bis\b|\bwould be\b|[:=\n]|->|→)"
CUE = re.compile(
    r"(?P<strong>\\boxed\s*\{|<answer>|"
    r"\b(?:final|overall|definitive)[\s_-]+(?:answer|diagnosis|choice|prediction|classification|label|decision)"
    rf"(?=\W*{_SAYS}))|"
    r"(?<!differential )\b(?P<weak>answer|diagnosis|choice|prediction|predicted[\s_-]class|classification|"
    rf"label|conclusion|impression)(?=[\"'*_`)\]]*\s*{_SAYS})",
    re.IGNORECASE,
)
CUE_TAIL = re.compile(r"[\"'*_`)\]#\s]*(?:(?:is|would be)\b|[:=]|->|→)?[\s:\"'*_`(\[{#<>$-]*", re.IGNORECASE)
