"""Clients that chat and write down what was acknowledged, and what the database has of it."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx2
from stack import Stack
from traffic import at_work


@dataclass
class Acknowledged:
    """Threads whose answer a client saw to its closing event, with the moment of that."""

    stack: Stack
    threads: dict[str, float] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def client(self) -> None:
        """Chat, thread after thread; what fails meanwhile was not acknowledged."""
        while not self.over.is_set():
            thread = str(uuid.uuid4())
            try:
                heard = self.stack.chat({"message": "say a word", "thread_id": thread})
            except (AssertionError, httpx2.HTTPError):
                time.sleep(0.2)
                continue
            if heard and heard[-1][0] == "done":
                self.threads[thread] = time.time()

    def present(self) -> set[str]:
        """Those of them whose messages the database has."""
        found = self.stack.sql("SELECT DISTINCT thread_id FROM checkpoints.checkpoints")
        return set(self.threads) & set(found.split())

    def wait_for(self, count: int, seconds: float = 120.0) -> None:
        """Wait until so many more were acknowledged."""
        aim, deadline = len(self.threads) + count, time.monotonic() + seconds
        while len(self.threads) < aim:
            assert time.monotonic() < deadline, f"{len(self.threads)} of {aim} in {seconds} s"
            time.sleep(0.1)


@contextlib.contextmanager
def chatting(stack: Stack, clients: int = 4) -> Iterator[Acknowledged]:
    """Keep clients busy meanwhile."""
    found = Acknowledged(stack)
    with at_work(found.client, found.over, clients):
        yield found
