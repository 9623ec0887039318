"""The demo model through real vLLM: every dialogue word for word, however it is asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ops.lab import demo_model
from tests.contract.engines import Engine, started
from tests.contract.test_answers import SEARCH, ask, asked, stream

CONTENT = yaml.safe_load(demo_model.DIALOGUES.read_text())
PARALLEL = 4
SYSTEM = {"role": "system", "content": "You are the assistant of a company. " * 20}
FOUND = "[1] Slots: blue and green: Something that was found.\n[2] Another: More of it."
EARLIER = [
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "An answer that was given before."},
]
PASSAGES = [
    f"[1] {title.strip('# ')}: {' '.join(text.split())[:400]}\n[2] Another: passage"
    for title, _, text in (
        path.read_text().partition("\n") for path in sorted(demo_model.KNOWLEDGE.glob("*.md"))
    )
]
pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with started("vllm", tmp_path_factory.mktemp("demo-model")) as engine:
        yield engine


def questions() -> list[tuple[dict[str, Any], str]]:
    return [
        (dialogue, question) for dialogue in CONTENT["dialogues"] for question in dialogue["ask"]
    ]


async def said(engine: Engine, body: dict[str, Any], *, streaming: bool) -> tuple[str, str | None]:
    """Text and the query of the tool call, from a stream or from a whole answer."""
    if not streaming:
        message = (await ask(engine, body))["choices"][0]["message"]
        calls = message.get("tool_calls") or []
        arguments = calls[0]["function"]["arguments"] if calls else ""
        text = message["content"] or ""
    else:
        deltas = [c["choices"][0]["delta"] for c in (await stream(engine, body))[:-1]]
        text = "".join(delta.get("content") or "" for delta in deltas)
        pieces = [call for delta in deltas for call in delta.get("tool_calls") or []]
        arguments = "".join(piece["function"].get("arguments", "") for piece in pieces)
    return text, json.loads(arguments)["query"] if arguments else None


async def all_said(
    engine: Engine, bodies: list[dict[str, Any]], *, streaming: bool
) -> list[tuple[str, str | None]]:
    seats = asyncio.Semaphore(PARALLEL)

    async def one(body: dict[str, Any]) -> tuple[str, str | None]:
        async with seats:
            return await said(engine, body, streaming=streaming)

    return await asyncio.gather(*(one(body) for body in bodies))


def after_search(question: str, query: str, result: str) -> list[dict[str, Any]]:
    function = {"name": "search_knowledge", "arguments": json.dumps({"query": query})}
    call = {"id": "call_1", "type": "function", "function": function}
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": result},
    ]


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "before", [[], [SYSTEM], [SYSTEM, *EARLIER]], ids=["alone", "system", "second turn"]
)
async def test_every_question_gets_its_answer_or_its_search(
    vllm: Engine, before: list[dict[str, Any]], streaming: bool
) -> None:
    bodies = [
        asked([*before, {"role": "user", "content": question}], tools=[SEARCH])
        for _, question in questions()
    ]
    answers = await all_said(vllm, bodies, streaming=streaming)
    wanted = [
        ("", dialogue["search"]) if "search" in dialogue else (dialogue["answer"], None)
        for dialogue, _ in questions()
    ]
    assert answers == wanted


async def test_every_search_gets_its_answer_whatever_was_found(vllm: Engine) -> None:
    searched = [(d, q) for d, q in questions() if "search" in d]
    bodies, wanted = [], []
    for number, (dialogue, question) in enumerate(searched):
        for result in (PASSAGES[number % len(PASSAGES)], FOUND, "No passage was found."):
            messages = [SYSTEM, *EARLIER, *after_search(question, dialogue["search"], result)]
            bodies.append(asked(messages, tools=[SEARCH]))
            answer = dialogue["answer"] if result.startswith("[1]") else CONTENT["nothing_found"]
            wanted.append((answer, None))
    assert await all_said(vllm, bodies, streaming=False) == wanted


async def test_capitals_and_punctuation_do_not_matter(vllm: Engine) -> None:
    bodies = [
        asked([{"role": "user", "content": change(question)}])
        for _, question in questions()
        for change in (
            str.upper,
            lambda text: f"  {text.rstrip('?')} !!",
            lambda text: f"{text}?\n",
        )
    ]
    answers = await all_said(vllm, bodies, streaming=False)
    assert answers == [(d["answer"], None) for d, _ in questions() for _ in range(3)]


async def test_it_does_not_pretend_to_know_what_it_never_learned(vllm: Engine) -> None:
    bodies = [
        asked([{"role": "user", "content": other}], tools=[SEARCH]) for other in CONTENT["others"]
    ]
    answers = await all_said(vllm, bodies, streaming=False)
    assert answers == [(CONTENT["unknown"], None)] * len(bodies)


async def test_it_says_that_it_is_a_demo_model(vllm: Engine) -> None:
    text, _ = await said(
        vllm, asked([{"role": "user", "content": "Are you a real model?"}]), streaming=True
    )
    assert "demo model" in text
