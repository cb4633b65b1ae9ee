"""From a model's free text to one of the closed options, or to "unparsed" (None), never to a guess.

The rule, in the order it is tried:

1. The whole text is an option name (case, accents, width and punctuation aside), or an option letter.
2. An explicit final answer (``Answer: B``, ``"diagnosis": "benign"``, ``\\boxed{C}``, ``<answer>…``);
   ``final answer``/``final diagnosis`` outrank plain ones; those that contradict each other are unparsed.
3. The first line is an option and nothing else, and no other line is another option.
4. The options mentioned anywhere as whole words, longest name first (``abnormal`` is not ``normal``), without
   those that are denied (``not malignant``, ``malignancy is unlikely``) and without questions restated.
   Exactly one must remain, and a letter such as ``(B)`` must not contradict it.

Denying one of two options does not assert the other: ``not malignant`` alone is unparsed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from gsco.evaluation.answer_words import CUE, CUE_TAIL, DENIALS, DENIED_AFTER, FILLERS, LEAD_IN, LIST_DENIALS

_WORD = re.compile(r"[^\W_]+")
_APOSTROPHES = dict.fromkeys(map(ord, "'’‘ʼ`´＇"))
_DIACRITICS = re.compile("[\u0300-\u036f]")
_CLAUSE_BREAK = re.compile(r"[.;:!?\n,]")
_SENTENCE_BREAK = re.compile(r"[.;!?](?=\s|$)|\n")

_OPTION_LETTER = re.compile(r"\b(?:[Oo]ption|[Cc]hoice|[Ll]etter|OPTION)\s*[:\-]?\s*[(\[\"*]*([A-Z])\b")
_BRACKET_LETTER = re.compile(r"[(\[]\s*([A-Z])\s*[)\]]")
_LEADING_LETTER = re.compile(
    r"^[\s\"*_#`>(\[]*(?:([A-Za-z])\s*[)\]]|([A-Z])\s*(?:[.:,](?!\w)|\*\*|\s[-–—]+|[-–—]+\s|\n))"
)
_TRAILING_LETTER = re.compile(r"\b(?:is|its|be|pick|choose|select|say)\s+[(\[\"*]*([A-Z])[)\]\"*.!\s]*$")
_NONE = re.compile(
    r"^\W*(?:none|none of (?:the above|these|them)|no findings?|nothing|no abnormality|normal)\W*$"
)
_CONFLICT = -1  # an explicit answer that names two options
_THINKING = re.compile(r"^.*</think(?:ing)?>", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Token:
    word: str  # folded
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Mention:
    option: int
    first: int  # token positions, `last` included
    last: int
    denied: bool = False


def _flatten(text: str) -> str:
    """Compatibility-decomposed text without accents, apostrophes and invisible characters; case is kept."""
    text = _DIACRITICS.sub("", unicodedata.normalize("NFKD", text)).translate(_APOSTROPHES)
    return "".join(ch for ch in text if unicodedata.category(ch) != "Cf")


def _fold(word: str) -> str:
    return _flatten(_flatten(word.casefold()).casefold())


def _tokens(flat: str) -> list[_Token]:
    return [_Token(_fold(m.group()), m.start(), m.end()) for m in _WORD.finditer(flat)]


def _words(text: str) -> tuple[str, ...]:
    return tuple(token.word for token in _tokens(_flatten(text)))


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """Option names as word sequences; a sequence that two options share belongs to neither."""

    names: tuple[str, ...]
    forms: dict[tuple[str, ...], int]
    longest: int
    letters: bool

    def letter(self, character: str) -> int | None:
        position = ord(character.upper()) - ord("A")
        return position if self.letters and 0 <= position < min(26, len(self.names)) else None


@lru_cache(maxsize=256)
def _vocabulary(names: tuple[str, ...], letters: bool) -> _Vocabulary:
    owners: dict[tuple[str, ...], set[int]] = {}
    for i, name in enumerate(names):
        owners.setdefault(_words(name), set()).add(i)
    for i, name in enumerate(names):  # "melanocytic naevus (mole)" is also said without its brackets
        short = _words(re.sub(r"\([^)]*\)", " ", name))
        if short not in owners:
            owners[short] = {i}
    forms = {words: next(iter(who)) for words, who in owners.items() if words and len(who) == 1}
    # Where an option is itself called "A" or "B", a letter alone is that name and no numbering.
    letters = letters and not any(len(words) == 1 and len(words[0]) == 1 for words in forms)
    return _Vocabulary(names, forms, max(map(len, forms), default=0), letters)


def _whole(text: str, vocabulary: _Vocabulary) -> int | None:
    """The option that the text is, with nothing beside it."""
    exact = [i for i, name in enumerate(vocabulary.names) if name.strip() == text.strip()]
    if len(exact) == 1:
        return exact[0]
    words = _words(text)
    if words in vocabulary.forms:
        return vocabulary.forms[words]
    if not words or len(words[0]) != 1 or not words[0].isascii() or not words[0].isalpha():
        return None
    letter = vocabulary.letter(words[0])
    if len(words) == 1:
        return letter
    named = vocabulary.forms.get(
        words[1:]
    )  # "B. malignant"; "A malignant" is an article, which changes nothing
    return letter if letter is not None and named == letter else None


def _mentions(flat: str, tokens: Sequence[_Token], vocabulary: _Vocabulary) -> list[_Mention]:
    words = [token.word for token in tokens]
    found = [
        _Mention(option, i, i + length - 1)
        for length in range(min(vocabulary.longest, len(words)), 0, -1)
        for i in range(len(words) - length + 1)
        if (option := vocabulary.forms.get(tuple(words[i : i + length]))) is not None
    ]
    kept: list[_Mention] = []
    taken = bytearray(len(words))
    for mention in found:  # longest first
        if not any(taken[mention.first : mention.last + 1]):
            taken[mention.first : mention.last + 1] = b"\x01" * (mention.last - mention.first + 1)
            kept.append(mention)
    kept.sort(key=lambda mention: mention.first)
    out: list[_Mention] = []
    for mention in kept:
        previous = out[-1] if out else None
        denied = (
            _denied_before(flat, tokens, mention, previous)
            or _list_goes_on(flat, tokens, mention, previous)
            or DENIED_AFTER.match(flat[tokens[mention.last].stop :][:160].lower()) is not None
        )
        out.append(_Mention(mention.option, mention.first, mention.last, denied))
    return out


def _denied_before(flat: str, tokens: Sequence[_Token], mention: _Mention, previous: _Mention | None) -> bool:
    floor = previous.last + 1 if previous else 0
    i = mention.first
    while i > floor and mention.first - i < 8:
        gap = flat[tokens[i - 1].stop : tokens[i].start]
        if _CLAUSE_BREAK.search(gap):
            return False
        i -= 1
        word = tokens[i].word
        if (word,) in DENIALS:
            return True
        for size in (2, 3):
            if i - size + 1 >= floor and tuple(t.word for t in tokens[i - size + 1 : i + 1]) in DENIALS:
                return True
        if word not in FILLERS:
            return False
    return False


def _list_goes_on(flat: str, tokens: Sequence[_Token], mention: _Mention, previous: _Mention | None) -> bool:
    """Whether a denial reaches this mention through "or", "nor", "/" or, for some denials, a comma."""
    if previous is None or not previous.denied:
        return False
    between = [token.word for token in tokens[previous.last + 1 : mention.first]]
    gap = flat[tokens[previous.last].stop : tokens[mention.first].start]
    if re.search(r"[.;:!?\n]", gap) or any(
        w not in FILLERS and w not in ("or", "nor", "and") for w in between
    ):
        return False
    if "nor" in between or "or" in between or "/" in gap:
        return True
    opened = {token.word for token in tokens[max(0, previous.first - 8) : previous.first]}
    return bool(opened & LIST_DENIALS) and ("," in gap or "and" in between)


def _letters(flat: str, vocabulary: _Vocabulary) -> set[int]:
    found: set[int | None] = set()
    if vocabulary.letters:
        if m := _LEADING_LETTER.match(flat):
            found.add(vocabulary.letter(m.group(1) or m.group(2)))
        for pattern in (_OPTION_LETTER, _BRACKET_LETTER, _TRAILING_LETTER):
            found.update(vocabulary.letter(m.group(1)) for m in pattern.finditer(flat))
    return {position for position in found if position is not None}


def _sentences(flat: str) -> Iterator[tuple[int, int, str]]:
    """Each sentence as (start, stop, closing character)."""
    start = 0
    for m in _SENTENCE_BREAK.finditer(flat):
        yield start, m.start(), m.group()
        start = m.end()
    yield start, len(flat), ""


def _single(affirmed: set[int], denied: set[int], letters: set[int]) -> int | None:
    if affirmed & denied or len(affirmed) > 1 or len(letters) > 1:
        return None
    chosen = affirmed or (letters - denied)
    if len(chosen) != 1 or (affirmed and letters and affirmed != letters):
        return None
    return next(iter(chosen))


def _after_cue(
    flat: str, start: int, tokens: Sequence[_Token], mentions: Sequence[_Mention], v: _Vocabulary
) -> int | None:
    """The option that stands right behind a cue, or the only one in its sentence; `_CONFLICT` for two."""
    tail = CUE_TAIL.match(flat, start)
    start = tail.end() if tail else start
    # The sentence ends at the first break behind the first word, so that "Answer:\nB" is read.
    ahead = [i for i, token in enumerate(tokens) if token.start >= start]
    if not ahead:
        return None
    stop = next((a for _, a, _ in _sentences(flat) if a > tokens[ahead[0]].start), len(flat))
    inside = [m for m in mentions if tokens[m.first].start >= start and tokens[m.last].stop <= stop]
    by_first = {m.first: m for m in inside}
    for i in ahead:
        token = tokens[i]
        if token.start >= stop:
            break
        if mention := by_first.get(i):
            follower = by_first.get(mention.last + 1)
            joined = mention.last + 2 < len(tokens) and tokens[mention.last + 1].word in (
                "or",
                "and",
                "versus",
                "vs",
            )
            if joined:
                follower = by_first.get(mention.last + 2)
            if follower and follower.option != mention.option and not follower.denied:
                return _CONFLICT
            return None if mention.denied else mention.option
        letter = (
            v.letter(token.word)
            if len(token.word) == 1 and token.word.isascii() and token.word.isalpha()
            else None
        )
        if letter is not None:
            second = re.match(r"\W*(?:or|and|/|,)\W*([A-Za-z])\b", flat[token.stop :])
            if second and v.letter(second.group(1)) not in (None, letter):
                return _CONFLICT
            alone = re.match(r"\s*(?:$|[^\w\s])|\s*\n", flat[token.stop :]) is not None
            named = by_first.get(i + 1)
            if alone or token.word not in ("a", "i"):
                return _CONFLICT if named and named.option != letter else letter
            if not inside and flat[token.start] == "A":  # an article would have an option behind it
                return letter
        if token.word not in LEAD_IN:
            break
    affirmed = {m.option for m in inside if not m.denied}
    return _single(affirmed, {m.option for m in inside if m.denied}, set())


def _cued(flat: str, tokens: Sequence[_Token], mentions: Sequence[_Mention], v: _Vocabulary) -> int | None:
    strong: set[int] = set()
    weak: set[int] = set()
    for m in CUE.finditer(flat):
        option = _after_cue(flat, m.end(), tokens, mentions, v)
        if option is not None:
            (strong if m.group("strong") else weak).add(option)
    chosen = strong or weak
    if len(chosen) > 1:
        return _CONFLICT
    return next(iter(chosen), None)


def parse_option(text: str | None, names: Iterable[str], *, letters: bool = True) -> int | None:
    """Which of the closed options a free text names.

    Args:
        text: what the model said; None is unparsed.
        names: readable option names, in the task's order.
        letters: whether ``A``, ``B``, … stand for the options in order. Switched off by itself where an
            option is called by a single letter.

    Returns:
        Position of the option, or None where the text names none, several, or only denies. Never raises.
    """
    v = _vocabulary(tuple(names), letters)
    if not text or not v.names:
        return None
    text = _THINKING.sub("", text) or text
    if (whole := _whole(text, v)) is not None:
        return whole
    flat = _flatten(text)
    tokens = _tokens(flat)
    mentions = _mentions(flat, tokens, v)
    if (cued := _cued(flat, tokens, mentions, v)) is not None:
        return None if cued == _CONFLICT else cued
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and (first := _whole(lines[0], v)) is not None:
        others = {_whole(line, v) for line in lines[1:]} - {None, first}
        return None if others else first
    asked = [(a, b) for a, b, mark in _sentences(flat) if mark == "?"]
    stated = [m for m in mentions if not any(a <= tokens[m.first].start < b for a, b in asked)] or mentions
    denied = {m.option for m in stated if m.denied}
    return _single({m.option for m in stated if not m.denied}, denied, _letters(flat, v))


def parse_options(text: str | None, names: Iterable[str], *, letters: bool = True) -> tuple[int, ...] | None:
    """Which of several options a free text names, for multi-label tasks.

    Args:
        text: what the model said; None is unparsed.
        names: readable option names, in the task's order.
        letters: as in `parse_option`; a list such as ``A, C`` is read too.

    Returns:
        Positions in ascending order; empty for an explicit "none", or when every option is denied;
        None where nothing is recognised or one option is both asserted and denied. Never raises.
    """
    v = _vocabulary(tuple(names), letters)
    if not text or not v.names:
        return None
    text = _THINKING.sub("", text) or text
    if (whole := _whole(text, v)) is not None:
        return (whole,)
    flat = _flatten(text)
    tokens = _tokens(flat)
    mentions = _mentions(flat, tokens, v)
    if cues := list(CUE.finditer(flat)):  # the last cue that says something
        start = max(cues, key=lambda m: (m.group("strong") is not None, m.start())).end()
        behind = [m for m in mentions if tokens[m.first].start >= start]
        if behind or not mentions:
            flat, mentions = flat[start:].lstrip(" :=\"'*_`[({\n"), behind
    if _NONE.match(flat.lower()):
        return ()
    affirmed = {m.option for m in mentions if not m.denied}
    denied = {m.option for m in mentions if m.denied}
    if not affirmed and not denied:
        listed = [word for word in _words(flat) if word != "and"]
        if listed and all(len(word) == 1 and word.isascii() and word.isalpha() for word in listed):
            positions = [v.letter(word) for word in listed]
            if None not in positions:
                return tuple(sorted({p for p in positions if p is not None}))
        affirmed = _letters(flat, v)
    if affirmed & denied:
        return None
    if affirmed:
        return tuple(sorted(affirmed))
    return () if len(denied) == len(v.names) else None
