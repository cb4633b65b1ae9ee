"""A generalist without weights, for tests of everything around it: it follows a written rule.

Not a model of anything. Its name says so wherever it appears in a log.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from gsco.errors import UserError
from gsco.generalist.base import OptionScores, Request

RULES = ("first", "hash", "percent")


class ScriptedGeneralist:
    """Answers by rule.

    Rules: ``first`` always takes the first choice; ``hash`` takes one by a hash of prompt and image;
    ``percent`` takes the choice that leads the last ranked line of the prompt (templates ``evidence`` and
    ``letters``: the mean probability, else the similar cases), else the first.
    """

    takes_examples = True

    def __init__(self, rule: str = "hash") -> None:
        if rule not in RULES:
            raise UserError(f"no scripted generalist {rule!r}", remedy=f"Choose one of: {', '.join(RULES)}")
        self.rule = rule
        self.name = f"scripted:{rule}"
        self.fingerprint = self.name

    def _choose(self, request: Request) -> int:
        if not request.choices:
            raise ValueError("a request without choices cannot be scored")
        if self.rule == "hash":
            text = request.prompt + "".join(map(str, request.images))
            return int(hashlib.sha256(text.encode()).hexdigest(), 16) % len(request.choices)
        if self.rule == "percent":
            ranked = re.findall(r"^(?:Specialists' mean|Most similar).*?: (.*)", request.prompt, re.MULTILINE)
            for i, choice in enumerate(request.choices):
                if ranked and re.match(rf"{re.escape(choice)} \d+%", ranked[-1]):
                    return i
        return 0

    def generate(self, requests: Sequence[Request], *, max_new_tokens: int = 64) -> list[str]:
        """The chosen answer, as a sentence."""
        return [f"Answer: {request.choices[self._choose(request)]}" for request in requests]

    def score_options(self, requests: Sequence[Request]) -> list[OptionScores]:
        """0.8 on the chosen choice, the rest shared evenly."""
        out = []
        for request in requests:
            n = len(request.choices)
            chosen = self._choose(request)
            p = np.full(n, 0.2 / max(n - 1, 1))
            p[chosen] = 0.8 if n > 1 else 1.0
            out.append(OptionScores(tuple(np.log(p).tolist())))
        return out
