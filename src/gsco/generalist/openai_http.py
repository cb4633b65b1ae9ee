"""Requests to an OpenAI-compatible server: bounded in number, size and time, and tried again.

Nothing that comes back is trusted: half a body, malformed JSON, an empty choice or a stream that ends early
are failed attempts like a dropped connection. Redirects are refused, so that neither images nor the key go
to a host that nobody named. The key stands in one header and in no message.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from gsco.errors import ModelError
from gsco.generalist.openai_address import Address, key_for

if TYPE_CHECKING:
    import httpx2

Json = dict[str, Any]
T = TypeVar("T")
_AGAIN = frozenset({408, 425, 429})
_MESSAGE = 200
_ALIVE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How much is asked at once, and how long for.

    Attributes:
        concurrency: requests under way at the same time.
        attempts: how often a request is sent at most.
        seconds: for one attempt, from connecting to the last byte.
        first_wait: seconds before the second attempt; doubled from then on, and shortened at random by up
            to a half, so that requests do not return in step.
        longest_wait: the most of that.
        longest_asked: the most seconds that a server's ``Retry-After`` is obeyed for.
        max_bytes: of one answer.
    """

    concurrency: int = 8
    attempts: int = 6
    seconds: float = 120.0
    first_wait: float = 0.5
    longest_wait: float = 30.0
    longest_asked: float = 120.0
    max_bytes: int = 4 << 20

    @classmethod
    def from_environment(cls) -> Patience:
        """Defaults, changed by ``GSCO_OPENAI_CONCURRENCY``, ``..._ATTEMPTS`` and ``..._SECONDS``.

        Raises:
            ModelError: one of them is not a number in its range.
        """
        return cls(
            concurrency=int(_number("GSCO_OPENAI_CONCURRENCY", 8, 256)),
            attempts=int(_number("GSCO_OPENAI_ATTEMPTS", 6, 100)),
            seconds=_number("GSCO_OPENAI_SECONDS", 120.0, 86_400),
        )


def _number(name: str, default: float, most: int) -> float:
    given = os.environ.get(name, "").strip()
    if not given:
        return default
    try:
        value = float(given)
    except ValueError:
        value = 0.0
    if not 1 <= value <= most:
        raise ModelError(
            f"{given!r} is not a number from 1 to {most}", where=name, remedy="Set another, or none."
        )
    return value


class RefusedError(Exception):
    """The server answered that it will not do this; asking again is of no use.

    Attributes:
        status: the HTTP status.
        reason: what it said, in few words.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class UnansweredError(Exception):
    """No usable answer after all attempts.

    Attributes:
        reason: how the last attempt ended.
        silent: whether it ended without any HTTP status (nothing there, dropped, too slow).
        is_passing: whether it says nothing about the request: silent, or the server was busy.
    """

    def __init__(self, reason: str, *, silent: bool = False, busy: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.silent = silent
        self.is_passing = silent or busy


class _AttemptError(Exception):
    """One attempt failed, and another may do better."""

    def __init__(
        self, reason: str, *, after: float | None = None, silent: bool = False, busy: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after
        self.silent = silent
        self.busy = busy


@dataclass
class Wire:
    """The way to one server.

    Attributes:
        address: where it is.
        patience: how much and how long.
    """

    address: Address
    patience: Patience = field(default_factory=Patience.from_environment)
    _key: str | None = field(init=False, repr=False)
    _pause_until: float = field(init=False, default=0.0, repr=False)

    def __post_init__(self) -> None:
        self._key = key_for(self.address)

    @property
    def has_key(self) -> bool:
        """Whether a key is sent."""
        return self._key is not None

    def models(self) -> list[str] | None:
        """Names that ``GET /models`` lists; None where the server keeps no such list.

        Raises:
            RefusedError: it wants a key, or redirects.
            UnansweredError: nobody answers.
        """

        def read(found: Json) -> list[str]:
            return [str(row["id"]) for row in found["data"]]

        async def ask() -> list[str] | None:
            async with self._client() as client:
                try:
                    return await self._insist(client, "GET", "/models", None, read)
                except RefusedError as error:
                    if error.status in (401, 403) or 300 <= error.status < 400:
                        raise
                    return None
                except UnansweredError as error:
                    if error.silent:
                        raise
                    return None  # a server without a model cache answers 500 here and works all the same

        return run_async(ask)

    def complete(
        self, payloads: Sequence[Mapping[str, Any]], read: Callable[[Json], T]
    ) -> list[T | RefusedError | UnansweredError]:
        """Post to ``/chat/completions``, as many at once as `patience` allows.

        Args:
            payloads: bodies, JSON values.
            read: takes what is wanted out of an answer; a KeyError, IndexError, TypeError or ValueError of
                it makes the attempt a failed one.

        Returns:
            In the order of `payloads`: what was read, or why there is nothing.
        """

        async def ask() -> list[T | RefusedError | UnansweredError]:
            gate = asyncio.Semaphore(self.patience.concurrency)
            async with self._client() as client:

                async def one(payload: Mapping[str, Any]) -> T | RefusedError | UnansweredError:
                    async with gate:
                        try:
                            return await self._insist(client, "POST", "/chat/completions", payload, read)
                        except (RefusedError, UnansweredError) as error:
                            return error

                return list(await asyncio.gather(*map(one, payloads)))

        return run_async(ask)

    def is_there(self) -> bool:
        """Whether anything answers, with whatever status."""

        async def ask() -> bool:
            import httpx2

            async with self._client() as client:
                try:
                    async with asyncio.timeout(_ALIVE_SECONDS):
                        await client.get(self.address.url + "/models")
                    return True
                except (TimeoutError, httpx2.TransportError):
                    return False

        return run_async(ask)

    def plain(self, text: str) -> str:
        """A server's words as a short line, without the key."""
        if self._key:
            text = text.replace(self._key, "***")
        text = " ".join(text.split())
        return text if len(text) <= _MESSAGE else text[:_MESSAGE] + "…"

    def _client(self) -> httpx2.AsyncClient:
        import httpx2

        headers = {"accept-encoding": "identity", "user-agent": "gsco"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        return httpx2.AsyncClient(
            headers=headers,
            follow_redirects=False,
            timeout=None,  # `asyncio.timeout` bounds the whole attempt, a slow trickle included
            limits=httpx2.Limits(max_connections=self.patience.concurrency),
            trust_env=not self.address.is_loopback,  # no proxy stands between a machine and itself
        )

    async def _insist(
        self,
        client: httpx2.AsyncClient,
        method: str,
        path: str,
        payload: Mapping[str, Any] | None,
        read: Callable[[Json], T],
    ) -> T:
        """Attempt until there is an answer, a refusal, or no attempt left."""
        wait = self.patience.first_wait
        for attempt in range(1, self.patience.attempts + 1):
            await asyncio.sleep(max(0.0, self._pause_until - asyncio.get_running_loop().time()))
            try:
                return await self._attempt(client, method, path, payload, read)
            except _AttemptError as error:
                if attempt == self.patience.attempts:
                    tries = "" if attempt == 1 else f" ({attempt} attempts)"
                    raise UnansweredError(
                        error.reason + tries, silent=error.silent, busy=error.busy
                    ) from None
                if error.after is not None:  # it is the server that is busy, so all requests wait
                    until = asyncio.get_running_loop().time() + min(error.after, self.patience.longest_asked)
                    self._pause_until = max(self._pause_until, until)
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(2 * wait, self.patience.longest_wait)
        raise AssertionError("there is at least one attempt")

    async def _attempt(
        self,
        client: httpx2.AsyncClient,
        method: str,
        path: str,
        payload: Mapping[str, Any] | None,
        read: Callable[[Json], T],
    ) -> T:
        import httpx2

        body = None if payload is None else json.dumps(payload).encode()
        headers = None if body is None else {"content-type": "application/json"}
        try:
            async with (
                asyncio.timeout(self.patience.seconds),
                client.stream(method, self.address.url + path, content=body, headers=headers) as response,
            ):
                content = await self._content(response)
        except TimeoutError:
            raise _AttemptError(f"no answer within {self.patience.seconds:g} s", silent=True) from None
        except httpx2.ConnectError as error:
            raise _AttemptError(f"cannot be reached ({self.plain(str(error))})", silent=True) from None
        except (httpx2.TransportError, httpx2.DecodingError):
            raise _AttemptError("the connection broke off", silent=True) from None
        self._check_status(response, content)
        try:
            streamed = "text/event-stream" in response.headers.get("content-type", "")
            found = join_stream(content) if streamed else json.loads(content)
            return read(found)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise _AttemptError("the answer is no chat completion (malformed, empty or cut off)") from None

    async def _content(self, response: httpx2.Response) -> bytes:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _AttemptError("the answer is compressed, which was not asked for")
        parts, size = [], 0
        async for part in response.aiter_raw():
            size += len(part)
            if size > self.patience.max_bytes:
                raise _AttemptError(f"the answer is longer than {self.patience.max_bytes} bytes")
            parts.append(part)
        return b"".join(parts)

    def _check_status(self, response: httpx2.Response, content: bytes) -> None:
        status = response.status_code
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            raise RefusedError(status, "redirects to another address, which is not followed")
        if status in (401, 403):  # such a message may repeat a part of the key
            raise RefusedError(status, "refuses the key" if self._key else "wants a key")
        said = self.plain(message_of(content))
        reason = f"HTTP {status}" + (f": {said}" if said else "")
        if status in _AGAIN or status >= 500:
            after = seconds_asked(response.headers.get("retry-after"))
            raise _AttemptError(reason, after=after, busy=status in (*_AGAIN, 503))
        raise RefusedError(status, reason)


def message_of(content: bytes) -> str:
    """What an error's body says: its ``error.message``, ``detail`` or ``message``; "" where it is no JSON."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    for name in ("error", "detail", "message"):
        said = found.get(name) if isinstance(found, dict) else None
        if isinstance(said, dict):
            said = said.get("message")
        if said:
            return said if isinstance(said, str) else json.dumps(said)
    return ""


def seconds_asked(header: str | None) -> float | None:
    """``Retry-After`` in seconds, from a number or a date; None where there is none that can be read."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            when = parsedate_to_datetime(header)
        except (ValueError, IndexError):
            return None
        seconds = (when.astimezone(UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if seconds == seconds else None


def join_stream(content: bytes) -> Json:
    """A whole stream of server-sent events as the completion that it spells.

    Raises:
        ValueError: it ends without a reason to end, or holds an error.
    """
    text, reason = "", None
    for line in content.decode("utf-8").splitlines():
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data == "[DONE]":
            continue
        event = json.loads(data)
        for choice in event["choices"]:
            text += (choice.get("delta") or {}).get("content") or ""
            reason = choice.get("finish_reason") or reason
    if reason is None:
        raise ValueError("the stream ended early")
    return {"choices": [{"message": {"content": text}, "finish_reason": reason}]}


def run_async(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end, also from where a loop runs already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    out: list[T] = []
    failed: list[BaseException] = []

    def aside() -> None:
        try:
            out.append(asyncio.run(work()))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=aside, daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return out[0]
