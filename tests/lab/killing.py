"""Kill a unit in the middle of an answer, within milliseconds of its first piece."""

import json
import time
import uuid
from collections.abc import Callable

from stack import Event, Stack, shell, slow_engine

QUESTION = "How do I upgrade a model without downtime?"
MAIN_PIDS = "systemctl show --property MainPID --value {units} | xargs"
ATTEMPTS = 4
CUT_SECONDS = 10.0
"""Longer than a slowed engine is silent, and shorter than it takes to start."""
Told = tuple[str, list[Event]]


def wait_until_engine_answers(stack: Stack) -> None:
    """The app's own probe is up to ten seconds old: the engine is asked as well."""
    asked = "curl -sf http://127.0.0.1:8100/metrics >/dev/null"
    stack.lab.ssh("node1", f"timeout 200 sh -c 'until {asked}; do sleep 1; done'")
    stack.wait_until_ready()


def ask_and_kill(stack: Stack, units: str, cut: Callable[[set[str]], bool]) -> Told:
    """Ask, and kill units' main processes at the first piece of the answer.

    The tiny model may be through before the kill arrives: then it is asked anew, in another thread.
    """
    for _ in range(ATTEMPTS):
        wait_until_engine_answers(stack)
        thread, told = str(uuid.uuid4()), False
        pids = stack.lab.ssh("node1", MAIN_PIDS.format(units=units))

        def at_first_token(event: Event) -> None:
            nonlocal told
            if event[0] == "token" and not told:
                told = True
                opened.tell(f"kill -KILL {pids}")  # noqa: B023 (called within this round only)

        with shell(stack.lab, "node1") as opened, slow_engine(stack.lab, "node1"):
            heard = stack.chat({"message": QUESTION, "thread_id": thread}, at_first_token)
        assert told, heard
        if cut({name for name, _ in heard}):
            return thread, heard
    raise AssertionError(f"{ATTEMPTS} answers were faster than the kill")


def openai_stream_and_kill(stack: Stack, units: str) -> tuple[str, float]:
    """Stream from /v1 and kill at the first piece of text, until an answer was cut by that.

    Returns:
        The whole text, and the longest silence within it in seconds.
    """
    body = {"model": "demo", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    for _ in range(ATTEMPTS):
        wait_until_engine_answers(stack)
        pids = stack.lab.ssh("node1", MAIN_PIDS.format(units=units))
        text, silence, ended = "", 0.0, False
        with (
            shell(stack.lab, "node1") as opened,
            slow_engine(stack.lab, "node1"),
            stack.stream("/v1/chat/completions", body) as response,
        ):
            last = time.monotonic()
            for line in response.iter_lines():
                if line == "data: [DONE]":
                    ended = True
                if not line.startswith("data: {"):
                    continue
                (choice,) = json.loads(line[6:])["choices"]  # an error event has none
                if piece := choice["delta"].get("content"):
                    if not text:
                        opened.tell(f"kill -KILL {pids}")
                    else:
                        silence = max(silence, time.monotonic() - last)
                    text, last = text + piece, time.monotonic()
        assert ended, text
        if silence > CUT_SECONDS:
            return text, silence
    raise AssertionError(f"{ATTEMPTS} answers were faster than the kill")


def effects_of(stack: Stack, thread: str) -> int:
    """How many calls of tools the thread has on record."""
    return int(stack.sql(f"SELECT count(*) FROM app.tool_effects WHERE thread_id = '{thread}'"))
