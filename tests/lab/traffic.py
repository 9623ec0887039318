"""A steady load of mixed requests through the edge, and what became of each.

The clients speak HTTP/1.1 and do what its specification asks of them (RFC 9112, 9.3.1): where a
connection that lay idle closes as they take it up, before a byte of an answer, they ask anew on
another. nginx closes idle ones whenever it reloads. How often it happened is told beside the rest.
"""

import asyncio
import contextlib
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
from stack import Stack

CUT = "the stream was cut"
QUESTION = {"model": "demo", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 24}


@dataclass(frozen=True)
class Answer:
    """One request: when it began, seconds to its first token and in all, and why it failed."""

    began: float
    first: float
    whole: float
    why: str = ""
    stream: bool = False


@dataclass(frozen=True)
class Figures:
    """Requests in numbers; the first token's times are those of streams, in seconds."""

    requests: int
    streams: int
    failed: int
    cut: int
    aborted: int
    median: float
    p99: float


def figures(answers: Sequence[Answer]) -> Figures:
    """Count requests and what became of them."""
    first = sorted(answer.first for answer in answers if answer.stream and not answer.why)
    whys = [answer.why for answer in answers if answer.why]
    return Figures(
        requests=len(answers),
        streams=sum(answer.stream for answer in answers),
        failed=len(whys),
        cut=sum(CUT in why or "Error(" in why for why in whys),
        aborted=sum("'abort'" in why for why in whys),
        median=first[len(first) // 2] if first else 0.0,
        p99=first[min(len(first) - 1, int(0.99 * len(first)))] if first else 0.0,
    )


@dataclass
class Traffic:
    """Clients that ask one request after another until they are told to end.

    `door` is the address that they ask at; empty for the edge.
    """

    stack: Stack
    clients: int
    pause: float
    door: str = ""
    answers: list[Answer] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    reconnects: int = 0

    def mark(self, what: str) -> None:
        """Remember a moment, so that what came after it can be told apart."""
        self.marks.append((time.monotonic(), what))

    @property
    def failures(self) -> list[str]:
        return [answer.why for answer in self.answers if answer.why]

    def after(self, what: str) -> list[Answer]:
        """Answers to requests between a mark and the next."""
        moments = [moment for moment, name in self.marks if name == what]
        start = moments[-1]
        end = min((m for m, _ in self.marks if m > start), default=float("inf"))
        return [answer for answer in self.answers if start <= answer.began < end]

    def wait_for(self, count: int, seconds: float = 600.0) -> None:
        """Wait until so many requests have ended since the last mark, or since the start."""
        start = self.marks[-1][0] if self.marks else 0.0
        deadline = time.monotonic() + seconds
        while sum(answer.began >= start for answer in self.answers) < count:
            assert time.monotonic() < deadline, f"not {count} requests in {seconds} s"
            time.sleep(0.2)

    def told(self) -> str:
        """Requests, failures and the first token's 99th percentile, stage by stage."""
        lines = [
            f"{len(self.answers)} requests, {len(self.failures)} failed, "
            f"{self.reconnects} asked anew as their idle connection closed"
        ]
        for _, what in self.marks:
            found = self.after(what)
            first = sorted(answer.first for answer in found if not answer.why)
            if first:
                p99 = first[min(len(first) - 1, int(0.99 * len(first)))]
                middle = first[len(first) // 2]
                lines.append(
                    f"{what}: {len(found)} requests, first token {middle * 1000:.0f} ms median, "
                    f"{p99 * 1000:.0f} ms p99"
                )
        lines += [f"{count}x {why}" for why, count in Counter(self.failures).most_common(5)]
        return "\n".join(lines)

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        fleet = self.stack.fleet
        async with httpx2.AsyncClient(
            base_url=self.door or f"https://{fleet.first('edge').address}",
            verify=ssl.create_default_context(cadata=self.stack.roots),
            headers={"Host": fleet.domain, "Authorization": f"Bearer {self.stack.key}"},
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=100),
            timeout=300,
        ) as client:
            sni = {"sni_hostname": fleet.domain}
            await asyncio.gather(*(self._client(client, sni, n) for n in range(self.clients)))

    async def _client(self, client: httpx2.AsyncClient, sni: dict[str, Any], number: int) -> None:
        turn = number
        while not self.over.is_set():
            turn += 1
            began, stream = time.monotonic(), turn % 2 == 0
            try:
                first, why = await self._ask_until_heard(client, sni, stream=stream)
            except (httpx2.HTTPError, _IdleClosedError) as problem:
                first, why = 0.0, repr(problem)
            now = time.monotonic()
            self.answers.append(Answer(began, (first or now) - began, now - began, why, stream))
            await asyncio.sleep(self.pause)

    async def _ask_until_heard(
        self, client: httpx2.AsyncClient, sni: dict[str, Any], *, stream: bool
    ) -> tuple[float, str]:
        # A reload closes every idle connection, and each may be the pool's next one. More of them
        # than clients there never are: after that many it is no idle connection's end.
        for _ in range(self.clients):
            try:
                return await _ask(client, sni, stream=stream)
            except _IdleClosedError:
                self.reconnects += 1
        return await _ask(client, sni, stream=stream)


class _IdleClosedError(Exception):
    """A connection that had lain idle closed before a byte of an answer."""


@contextlib.asynccontextmanager
async def _answer(
    client: httpx2.AsyncClient, sni: dict[str, Any], body: dict[str, Any]
) -> AsyncIterator[httpx2.Response]:
    """Open an answer.

    Raises:
        _IdleClosedError: No byte of it came, on a connection that was not made for it.
    """
    fresh = False

    async def trace(event: str, _: dict[str, Any]) -> None:
        nonlocal fresh
        fresh = fresh or event.startswith("connection.connect_tcp")

    answer = client.stream(
        "POST", "/v1/chat/completions", json=body, extensions={**sni, "trace": trace}
    )
    async with contextlib.AsyncExitStack() as stack:
        try:
            response = await stack.enter_async_context(answer)
        except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError) as problem:
            if fresh:
                raise
            raise _IdleClosedError(repr(problem)) from problem
        yield response


async def _ask(
    client: httpx2.AsyncClient, sni: dict[str, Any], *, stream: bool
) -> tuple[float, str]:
    """Ask once; return when the first token came, and why it failed, empty if it did not."""
    async with _answer(client, sni, {**QUESTION, "stream": stream}) as response:
        if response.status_code != 200:
            return 0.0, f"{response.status_code} {(await response.aread())[:200]!r}"
        if not stream:
            choice = json.loads(await response.aread())["choices"][0]
            return time.monotonic(), _judge(choice["message"]["content"], choice["finish_reason"])
        first, text, reason, done = 0.0, "", "", False
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                done = True
                continue
            event = json.loads(line[6:])
            if "error" in event:
                return first, f"error event {line[:200]}"
            for choice in event["choices"]:
                text += choice["delta"].get("content") or ""
                reason = choice["finish_reason"] or reason
                first = first or (time.monotonic() if text else 0.0)
        return first, _judge(text, reason) if done else CUT


def _judge(text: str, reason: str) -> str:
    if reason not in ("stop", "length"):
        return f"finish_reason {reason!r}"
    return "" if text else "no text"


@contextlib.contextmanager
def at_work(
    work: Callable[[], None],
    over: threading.Event,
    clients: int = 1,
    patience: float | None = None,
) -> Iterator[None]:
    """Keep clients busy meanwhile, each in a thread of its own; then tell them that it is over.

    Args:
        work: What each does until `over` is set.
        over: Set at the end.
        clients: How many.
        patience: Seconds to wait for each at the end; None for as long as it takes.
    """
    threads = [threading.Thread(target=work, daemon=patience is not None) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(patience)


@contextlib.contextmanager
def traffic(
    stack: Stack, *, clients: int = 8, pause: float = 0.1, door: str = ""
) -> Iterator[Traffic]:
    """Keep clients busy meanwhile."""
    running = Traffic(stack, clients, pause, door)
    with at_work(running.run, running.over):
        yield running
