"""A server that speaks OpenAI's chat completions by a script, faults included; for tests on loopback.

It plays each kind of server by what it offers: `Offers` says whether it tells log-probabilities and by which
field answers are held to choices. `faults` are taken one after the other, one for each chat request.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "tiny-vlm"
FAULTS = (
    "drop", "busy", "busy_date", "error", "malformed", "half_body", "empty", "half_stream", "huge", "list",
    "slow_trickle",
)  # fmt: skip
"""Each of them passes: the same request, sent again, is answered."""


@dataclass(frozen=True)
class Offers:
    """What the server can do beside writing text."""

    top: int = 0
    guide: str | None = None
    masked: bool = False
    strict: bool = False
    images: bool = True
    streams: bool = False


@dataclass
class Script:
    offers: Offers = field(default_factory=Offers)
    models: list[str] | None = field(default_factory=lambda: [MODEL])
    key: str | None = None
    fault: Callable[[int, dict[str, Any]], str | None] = lambda number, body: None
    answer: Callable[[dict[str, Any]], str] = lambda body: "A"
    likely: Callable[[dict[str, Any], str], float] = lambda body, token: -0.1
    redirect_to: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def prompt_of(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def held_to(offers: Offers, body: dict[str, Any]) -> list[str] | None:
    """The choices that the request holds the answer to, where the server understands that."""
    given = body.get(offers.guide) if offers.guide else None
    if given is None:
        return None
    if offers.guide == "structured_outputs":
        return list(given["choice"])
    if offers.guide == "guided_choice":
        return list(given)
    if offers.guide == "grammar":
        return [json.loads(part) for part in given.removeprefix("root ::= ").split(" | ")]
    if offers.guide == "regex":
        return [re.sub(r"\\(.)", r"\1", part) for part in given[1:-1].split("|")]
    return list(given["json_schema"]["schema"]["properties"]["answer"]["enum"])


def tokens_of(text: str) -> list[str]:
    """Three letters a token."""
    return [text[i : i + 3] for i in range(0, len(text), 3)] or [""]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.refused():
            return
        if self.script.models is None:
            self.reply(500, {"detail": "no list"})
        else:
            self.reply(200, {"object": "list", "data": [{"id": name} for name in self.script.models]})

    def do_POST(self) -> None:
        script = self.script
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.refused():
            return
        with script.lock:
            number = len(script.seen)
            script.seen.append(body)
            script.headers.append({name.lower(): value for name, value in self.headers.items()})
            script.under_way += 1
            script.most_under_way = max(script.most_under_way, script.under_way)
        try:
            fault = script.fault(number, body)
            if fault is None:
                self.complete(body)
            else:
                getattr(self, fault)(body)
        finally:
            with script.lock:
                script.under_way -= 1

    def refused(self) -> bool:
        script = self.script
        if script.redirect_to:
            self.send_response(307)
            self.send_header("location", script.redirect_to + self.path)
            self.send_header("content-length", "0")
            self.end_headers()
            return True
        if script.key is not None and self.headers.get("authorization") != f"Bearer {script.key}":
            told = self.headers.get("authorization", "")
            self.reply(401, {"error": {"message": f"Incorrect API key provided: {told}"}})
            return True
        return False

    def reply(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    def complete(self, body: dict[str, Any]) -> None:
        script = self.script
        if script.models is not None and body["model"] not in script.models:
            self.reply(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
            return
        known = {"model", "messages", "temperature", "seed", "stream", "max_tokens"}
        if script.offers.strict and set(body) - known:
            self.reply(422, {"detail": f"Unexpected fields in the request: {set(body) - known}"})
            return
        pictured = any(isinstance(m["content"], list) for m in body["messages"])
        choices = held_to(script.offers, body)
        text = script.answer(body) if choices is None else choices[0]
        tokens = tokens_of(text) if choices is not None else [text]
        if choices is not None and script.offers.guide == "response_format":
            text = json.dumps({"answer": text})
            tokens = tokens_of(text)
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
        }
        if body.get("logprobs") and script.offers.top:
            rows = []
            for i, token in enumerate(tokens):
                begun = "".join(tokens[:i])
                logprob = -5.0 if choices is not None else script.likely(body, token)
                if choices is not None:
                    logprob = 0.0 if script.offers.masked else piece(body, begun, token)
                top = [{"token": token, "logprob": logprob}]
                if choices is None:
                    top = [{"token": t, "logprob": script.likely(body, t)} for t in ("A", " B", "C", "The")]
                rows.append({"token": token, "logprob": logprob, "top_logprobs": top})
            choice["logprobs"] = {"content": rows}
        length = len(prompt_of(body)) + (16 if pictured and script.offers.images else 0)
        if script.offers.streams:
            self.stream(text, whole=True)
            return
        self.reply(200, {"choices": [choice], "usage": {"prompt_tokens": length}})

    def stream(self, text: str, *, whole: bool) -> None:
        events = [{"choices": [{"index": 0, "delta": {"content": c}, "finish_reason": None}]} for c in text]
        if whole:
            events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        content = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        content += "data: [DONE]\n\n" if whole else ""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(content.encode())))
        self.end_headers()
        self.wfile.write(content.encode())

    # faults ----------------------------------------------------------------------------------------

    def drop(self, _body: Any) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def busy(self, _body: Any) -> None:
        self.reply(429, {"error": {"message": "slow down"}}, {"retry-after": "0.05"})

    def busy_date(self, _body: Any) -> None:
        self.reply(503, {"error": "loading"}, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"})

    def error(self, _body: Any) -> None:
        self.reply(500, {"error": {"message": "out of memory"}})

    def malformed(self, _body: Any) -> None:
        self.reply(200, b'{"choices": [{"message": {"content": "A"')

    def list(self, _body: Any) -> None:
        self.reply(200, [1, 2])

    def empty(self, _body: Any) -> None:
        self.reply(200, {"choices": []})

    def half_body(self, _body: Any) -> None:
        self.send_response(200)
        self.send_header("content-length", "1000")
        self.end_headers()
        self.wfile.write(b'{"choices": [')
        self.drop(None)

    def half_stream(self, _body: Any) -> None:
        self.stream("A half", whole=False)

    def huge(self, _body: Any) -> None:
        with suppress(OSError):
            self.reply(200, b" " * 300_000 + b"{}")

    def slow_trickle(self, _body: Any) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            for _ in range(200):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.05)
        self.close_connection = True

    def bad_request(self, _body: Any) -> None:
        self.reply(400, {"error": {"message": "the image is too strange for sk-secret-key"}})

    def filtered(self, _body: Any) -> None:
        choice = {"message": {"role": "assistant", "content": None}, "finish_reason": "content_filter"}
        self.reply(200, {"choices": [choice]})


def piece(body: dict[str, Any], begun: str, token: str) -> float:
    """A made-up log-probability of a token after a prompt and a beginning: the same for the same."""
    digest = hashlib.sha256(f"{prompt_of(body)}\0{begun}\0{token}".encode()).digest()
    return math.log((digest[0] + 1) / 300)


@contextmanager
def serving(script: Script) -> Iterator[str]:
    """Serve on a free port of the loopback; gives ``http://127.0.0.1:port/v1``."""
    handler = type("Scripted", (Handler,), {"script": script})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
