"""`Conversation`: one image, several questions; what was said before goes along while there is room."""

from __future__ import annotations

from dataclasses import dataclass, field

from gsco.cases import ImageRef
from gsco.generalist.base import Generalist, Request

DESCRIBE = "Describe this image."
REPORT = "Write a report of this image with findings and impression."
KEPT_TURNS = 6
KEPT_CHARACTERS = 4000


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
        """The answer, which is remembered; an empty one is not, since it says nothing to go on from."""
        request = Request(question, self.image, history=recent(self.turns))
        answer = self.generalist.generate([request], max_new_tokens=self.max_new_tokens)[0]
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
