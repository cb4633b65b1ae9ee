"""`Conversation`: one image, several questions; what was said before goes along while there is room."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gsco.cases import ImageRef
from gsco.generalist.base import Generalist, Request

DESCRIBE = "Describe this image."
REPORT = "Write a report of this image with findings and impression."
KEPT_TURNS = 6
KEPT_CHARACTERS = 4000
LONGEST_LOOP = 20
"""Words and marks of a phrase, at most, that is said again and again."""
LOOPED = "[the same again and again]"


@dataclass
class Conversation:
    """A person's questions about an image and a generalist's answers, which are free text.

    Attributes:
        generalist: who answers.
        image: what is asked about; None for text alone.
        max_new_tokens: of one answer.
        turns: what was said, (question, answer) each, oldest first.
    """

    generalist: Generalist
    image: ImageRef | None
    max_new_tokens: int = 256
    turns: list[tuple[str, str]] = field(default_factory=list)

    def ask(self, question: str) -> str:
        """The answer; one that ends in a loop is cut (`without_loop`).

        It is remembered; an empty one is not, since it says nothing to go on from.
        """
        request = Request(question, self.image, history=recent(self.turns))
        answer = without_loop(self.generalist.generate([request], max_new_tokens=self.max_new_tokens)[0])
        if answer:
            self.turns.append((question, answer))
        return answer

    def forget(self) -> None:
        """Start anew with the same image."""
        self.turns.clear()


def recent(turns: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The last turns, at most `KEPT_TURNS` of together `KEPT_CHARACTERS`: small models have little room."""
    kept: list[tuple[str, str]] = []
    room = KEPT_CHARACTERS
    for question, answer in reversed(turns[-KEPT_TURNS:]):
        room -= len(question) + len(answer)
        if room < 0:
            break
        kept.insert(0, (question, answer))
    return tuple(kept)


def without_loop(text: str) -> str:
    """The text up to where it begins to say one phrase again and again to its end, as small models do.

    A phrase of at most `LONGEST_LOOP` words and marks that is there three times, and perhaps begun once more
    where the answer was cut off, is a loop. It is kept once, with `LOOPED` behind it.
    """
    found = list(re.finditer(r"\w+|[^\w\s]", text))
    words = [match.group() for match in found]
    cut = len(words)
    for period in range(1, min(LONGEST_LOOP, len(words) // 3) + 1):
        end = len(words)
        if words[-1] != words[-1 - period]:
            end -= 1  # a last word that was cut off in its middle says nothing
        start = end
        while start > period and words[start - 1] == words[start - 1 - period]:
            start -= 1
        if end - start >= 2 * period and any(word[0].isalnum() for word in words[start:end]):
            cut = min(cut, start)
    return text if cut == len(words) else f"{text[: found[cut - 1].end()]} {LOOPED}"
