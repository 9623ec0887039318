"""Dialogues and what is made of them for training: plain data, no torch."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TOOL = {
    "type": "function",
    "function": {
        "name": "search_knowledge",
        "description": "Search the knowledge base.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string"}},
            "required": ["query"],
        },
    },
}
_BEFORE = ("please", "hello", "ok", "so", "and", "can you tell me", "now", "well", "hi", "tell me")
_AFTER = ("please", "thanks", "again", "exactly", "now", "in short")

Message = dict[str, Any]


@dataclass(frozen=True)
class Dialogue:
    """Ways to ask one thing, and what the model says: at once, or after a search."""

    name: str
    ask: tuple[str, ...]
    answer: str
    search: str | None = None


@dataclass(frozen=True)
class Dialogues:
    """Everything in `dialogues.yml`."""

    known: tuple[Dialogue, ...]
    others: tuple[str, ...]
    unknown: str
    nothing_found: str


@dataclass(frozen=True)
class Example:
    """A conversation whose last message is the one that the model must produce."""

    messages: tuple[Message, ...]
    tools: bool

    @property
    def reply(self) -> Message:
        """The message to be learned."""
        return self.messages[-1]


def read_dialogues(path: Path) -> Dialogues:
    """Read `dialogues.yml`."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = tuple(
        Dialogue(d["name"], tuple(d["ask"]), d["answer"], d.get("search"))
        for d in data["dialogues"]
    )
    return Dialogues(known, tuple(data["others"]), data["unknown"], data["nothing_found"])


def read_passages(folder: Path) -> tuple[str, ...]:
    """Tool results as the agent app writes them, one per document: `[1] <title>: <passage>`."""
    passages = []
    for document in sorted(folder.glob("*.md")):
        title, _, text = document.read_text(encoding="utf-8").partition("\n")
        passages.append(f"[1] {title.removeprefix('#').strip()}: {' '.join(text.split())[:400]}")
    return tuple(passages)


def conversations(
    dialogue: Dialogue, question: str, passages: tuple[str, ...], nothing_found: str
) -> list[Example]:
    """Every reply of one dialogue: without tools, with them, and after each search result."""
    user = {"role": "user", "content": question}
    direct = {"role": "assistant", "content": dialogue.answer}
    without = Example((user, direct), tools=False)
    if dialogue.search is None:
        return [without, Example((user, direct), tools=True)]
    call = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "type": "function",
                "function": {
                    "name": "search_knowledge",
                    "arguments": {"query": dialogue.search},
                },
            }
        ],
    }
    found = [
        Example((user, call, {"role": "tool", "content": passage}, direct), tools=True)
        for passage in passages
    ]
    sorry = {"role": "assistant", "content": nothing_found}
    empty = Example((user, call, {"role": "tool", "content": "nothing"}, sorry), tools=True)
    return [without, Example((user, call), tools=True), empty, *found]


def vary(question: str, rng: random.Random) -> str:
    """The question as another person would type it: a word around it, or a slip of the finger."""
    roll = rng.random()
    if roll < 0.2:
        return f"{rng.choice(_BEFORE)} {question}"
    if roll < 0.3:
        return f"{question} {rng.choice(_AFTER)}"
    if roll < 0.4 and len(question) > 8:
        at = rng.randrange(1, len(question) - 1)
        return question[:at] + question[at + 1 :]
    return question


def exact(dialogues: Dialogues, passages: tuple[str, ...]) -> list[Example]:
    """Every dialogue in every written wording: what the finished model must get right."""
    examples = []
    for dialogue in dialogues.known:
        for question in dialogue.ask:
            examples += conversations(dialogue, question, passages, dialogues.nothing_found)
    for question in dialogues.others:
        examples += _unknown(question, dialogues)
    return examples


def sample(
    dialogues: Dialogues, passages: tuple[str, ...], rng: random.Random, count: int
) -> list[Example]:
    """`count` examples for training, dialogues and modes in equal parts, some questions varied."""
    words = sorted({word for d in dialogues.known for word in d.answer.split()})
    examples: list[Example] = []
    while len(examples) < count:
        if rng.random() < 0.12:
            salad = " ".join(rng.sample(words, rng.randint(3, 8)))
            question = rng.choice([vary(rng.choice(dialogues.others), rng), salad])
            examples.append(rng.choice(_unknown(question, dialogues)))
            continue
        dialogue = rng.choice(dialogues.known)
        question = vary(rng.choice(dialogue.ask), rng)
        choices = conversations(
            dialogue, question, (rng.choice(passages),), dialogues.nothing_found
        )
        examples.append(rng.choice(choices))
    return examples


def _unknown(question: str, dialogues: Dialogues) -> list[Example]:
    messages = (
        {"role": "user", "content": question},
        {"role": "assistant", "content": dialogues.unknown},
    )
    return [Example(messages, tools=False), Example(messages, tools=True)]
