"""Where an OpenAI-compatible server is, which model is meant, and which key goes there."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from gsco.errors import ModelError

PREFIX = "openai:"
OWN_KEY, COMMON_KEY = "GSCO_OPENAI_API_KEY", "OPENAI_API_KEY"
_FORM = "Write openai:http://HOST:PORT/v1#MODEL."


@dataclass(frozen=True, slots=True)
class Address:
    """A server's base URL and a model there.

    Attributes:
        url: base URL without a trailing slash, a user, a query or a fragment.
        model: the model's name; None where the server is to say it.
    """

    url: str
    model: str | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    @property
    def is_private(self) -> bool:
        """Whether nobody between here and the server can read along."""
        return self.url.startswith("https:") or self.is_loopback


def parse_address(spec: str) -> Address:
    """Read ``openai:http://host:port/v1#model``.

    Raises:
        ModelError: no such URL, or one that holds a user, a password or a query. The message does not
            repeat them; a run's ``config.yaml`` would.
    """
    url, _, model = spec.removeprefix(PREFIX).partition("#")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ModelError("is not the address of a server", where=_safe(url), remedy=_FORM) from None
    if parts.scheme not in ("http", "https") or not host:
        raise ModelError("is not the address of a server", where=_safe(url), remedy=_FORM)
    named = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"
    if parts.username is not None or parts.query:
        raise ModelError(
            "the address holds a user or a query, which would end in files",
            where=named,
            remedy=f"{_FORM} A key goes into the environment: {OWN_KEY}.",
        )
    return Address(named + parts.path.rstrip("/"), model.strip() or None)


def _safe(url: str) -> str:
    """What of a broken URL may be repeated: nothing before an @ or behind a question mark."""
    return PREFIX + url.split("?")[0].rpartition("@")[2]


def key_for(address: Address) -> str | None:
    """The key from the environment that may go to this server, or None.

    ``GSCO_OPENAI_API_KEY`` goes wherever the user points; ``OPENAI_API_KEY``, which is often meant for
    somebody else, never in clear text over a network.

    Raises:
        ModelError: a key that cannot stand in a header.
    """
    for name, allowed in ((OWN_KEY, True), (COMMON_KEY, address.is_private)):
        key = os.environ.get(name, "").strip()
        if key and allowed:
            if not key.isascii() or not key.isprintable() or " " in key:
                raise ModelError(
                    "is no key (spaces or other characters in it)", where=name, remedy="Set it again."
                )
            return key
    return None
