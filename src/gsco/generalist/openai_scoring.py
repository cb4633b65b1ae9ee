"""Probabilities of closed options from what a server tells of its tokens.

Two ways, both of the model's own distribution before any sampling:

``first``: the first token of the answer with its likeliest alternatives. Enough for options that are letters.

``forced``: each option in turn is the only one that the server lets the model write (`GUIDES`), and the log
probability of each token of it is read on the way. The probability of an option is then that of constrained
decoding, as in `gsco.generalist.option_tree`: at each place where options part, the share of its token among
those that lead on to an option.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_END = ""
"""Stands for the end of an answer where another option goes on."""


@dataclass(frozen=True, slots=True)
class Step:
    """One token that was written.

    Attributes:
        token: its text.
        logprob: natural log of its probability.
        top: the likeliest tokens in its place with theirs, perhaps itself among them.
    """

    token: str
    logprob: float
    top: Mapping[str, float] = field(default_factory=dict)


def _choice(choices: Sequence[str]) -> dict[str, Any]:
    return {"structured_outputs": {"choice": list(choices)}}


def _old_choice(choices: Sequence[str]) -> dict[str, Any]:
    return {"guided_choice": list(choices)}


def _grammar(choices: Sequence[str]) -> dict[str, Any]:
    return {"grammar": "root ::= " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)}


def _regex(choices: Sequence[str]) -> dict[str, Any]:
    return {"regex": "(" + "|".join(re.escape(choice) for choice in choices) + ")"}


def _schema(choices: Sequence[str]) -> dict[str, Any]:
    answer = {"type": "string", "enum": list(choices)}
    schema = {
        "type": "object",
        "properties": {"answer": answer},
        "required": ["answer"],
        "additionalProperties": False,
    }
    return {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        }
    }


GUIDES: dict[str, Callable[[Sequence[str]], dict[str, Any]]] = {
    "structured_outputs": _choice,  # vLLM
    "guided_choice": _old_choice,  # vLLM before 0.12
    "grammar": _grammar,  # llama.cpp
    "regex": _regex,  # SGLang
    "response_format": _schema,  # OpenAI, LMDeploy and most others
}
"""By name, what to add to a request so that its answer is one of some choices."""


def guided_text(guide: str, text: str) -> str:
    """The choice in a guided answer; ValueError where a JSON answer is none."""
    if guide != "response_format":
        return text.strip()
    answer = json.loads(text)["answer"]
    if not isinstance(answer, str):
        raise ValueError("the answer is no string")
    return answer


def read_steps(completion: Mapping[str, Any]) -> tuple[Step, ...]:
    """The tokens of a chat completion, in today's form or in that of ``/completions``; () without any."""
    found = completion["choices"][0].get("logprobs") or {}
    if isinstance(found.get("content"), list):
        return tuple(
            Step(
                str(row["token"]),
                float(row["logprob"]),
                _likeliest((str(t["token"]), float(t["logprob"])) for t in row.get("top_logprobs") or ()),
            )
            for row in found["content"]
        )
    tokens = found.get("tokens") or []
    alternatives = found.get("top_logprobs") or [{}] * len(tokens)
    return tuple(
        Step(str(token), float(logprob), _likeliest((str(t), float(p)) for t, p in (top or {}).items()))
        for token, logprob, top in zip(tokens, found.get("token_logprobs") or [], alternatives, strict=True)
    )


def _likeliest(rows: Any) -> dict[str, float]:
    out: dict[str, float] = {}
    for token, logprob in rows:  # two tokens may read alike once they are text
        out[token] = float(_log_sum([out[token], logprob])) if token in out else logprob
    return out


def from_first(choices: Sequence[str], step: Step) -> tuple[float, ...]:
    """Log-probability of each choice from the likeliest first tokens; ``exp`` sums to 1.

    A token speaks for the choice that it begins, with or without a space before it. A choice that none of
    them speaks for gets the smallest probability that is listed, which it cannot exceed by much.

    Raises:
        ValueError: a token begins two choices, or no choice is begun at all.
    """
    likely = {step.token: step.logprob, **step.top}
    spoken: list[list[float]] = [[] for _ in choices]
    for token, logprob in likely.items():
        text = token.strip()
        meant = [i for i, choice in enumerate(choices) if text and choice.startswith(text)]
        if len(meant) > 1:
            raise ValueError(f"the first token ({text!r}) does not tell the options apart")
        if meant:
            spoken[meant[0]].append(logprob)
    if not any(spoken):
        raise ValueError(f"no option is among the {len(likely)} likeliest first tokens")
    least = min(likely.values())
    return _normal([_log_sum(found) if found else least for found in spoken])


def from_forced(paths: Sequence[Sequence[Step]]) -> tuple[float, ...]:
    """Log-probability of each choice from the tokens it was written in; ``exp`` sums to 1.

    Where one choice ends and another goes on, the end has what the others leave.

    Args:
        paths: of each choice its tokens; no two may read alike.

    Raises:
        ValueError: two paths are the same.
    """
    if len(paths) == 1:
        return (0.0,)
    spelt = [tuple(step.token for step in path) for path in paths]
    if len(set(spelt)) < len(spelt):
        raise ValueError("two options are written in the same tokens")
    following: dict[tuple[str, ...], dict[str, float]] = {}
    for tokens, path in zip(spelt, paths, strict=True):
        for i, step in enumerate(path):
            following.setdefault(tokens[:i], {})[step.token] = step.logprob
    for tokens in spelt:
        if tokens in following:
            going_on = min(math.exp(_log_sum(list(following[tokens].values()))), 1 - 1e-12)
            following[tokens][_END] = math.log1p(-going_on)
    out = []
    for tokens in spelt:
        total = 0.0
        for i in range(len(tokens) + 1):
            shares = following.get(tokens[:i], {})
            if len(shares) > 1:
                total += shares[tokens[i] if i < len(tokens) else _END] - _log_sum(list(shares.values()))
        out.append(total)
    return _normal(out)


def _normal(logs: Sequence[float]) -> tuple[float, ...]:
    total = _log_sum(logs)
    return tuple(log - total for log in logs)


def _log_sum(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(sum(math.exp(log - top) for log in logs)) if top > -math.inf else top
