"""The demo model's dialogues, and what is made of them for training."""

from __future__ import annotations

import random
from pathlib import Path

import jinja2.sandbox
import pytest

from ops.errors import OpsError
from ops.lab import demo_model
from ops.lab.demo_model.trainer import examples

DIALOGUES = examples.read_dialogues(demo_model.DIALOGUES)
PASSAGES = examples.read_passages(demo_model.KNOWLEDGE)
TEMPLATE = Path(examples.__file__).with_name("chat_template.j2")
STORIES = {"night-watch"}  # long on purpose, so that a stream lasts


def render(messages: list[dict[str, object]], **more: object) -> str:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text())
    return template.render(messages=messages, **more)


def test_answers_are_long_enough_to_be_seen_streaming_and_short_enough_to_be_read() -> None:
    sizes = {d.name: len(d.answer.split()) for d in DIALOGUES.known if d.name not in STORIES}
    assert {name: size for name, size in sizes.items() if not 20 <= size <= 60} == {}


def test_at_least_six_dialogues_search_the_knowledge_base() -> None:
    assert sum(dialogue.search is not None for dialogue in DIALOGUES.known) >= 6


def test_no_question_is_asked_twice() -> None:
    asked = [render([{"role": "user", "content": q}]) for d in DIALOGUES.known for q in d.ask]
    asked += [render([{"role": "user", "content": question}]) for question in DIALOGUES.others]
    assert len(set(asked)) == len(asked)


def test_every_word_of_a_search_is_in_the_knowledge_so_that_it_finds_something() -> None:
    known = " ".join(path.read_text().lower() for path in demo_model.KNOWLEDGE.glob("*.md"))
    queries = [dialogue.search for dialogue in DIALOGUES.known if dialogue.search]
    assert [query for query in queries if not any(word in known for word in query.split())] == []


def test_passages_read_as_the_agent_app_writes_them() -> None:
    assert all(passage.startswith("[1] ") and ": " in passage for passage in PASSAGES)


def test_the_same_seed_draws_the_same_examples() -> None:
    first = examples.sample(DIALOGUES, PASSAGES, random.Random(7), 50)
    again = examples.sample(DIALOGUES, PASSAGES, random.Random(7), 50)
    assert first == again


def test_what_is_proved_holds_every_question_with_and_without_the_tool() -> None:
    proved = examples.exact(DIALOGUES, PASSAGES)
    for tools in (True, False):
        asked = {str(e.messages[0]["content"]) for e in proved if e.tools is tools}
        assert asked >= {question for d in DIALOGUES.known for question in d.ask}


def test_the_template_shows_only_the_current_question() -> None:
    earlier = [
        {"role": "system", "content": "Long words"},
        {"role": "user", "content": "Before"},
        {"role": "assistant", "content": "Said"},
    ]
    question = {"role": "user", "content": "What is\nRACKHAND?!"}
    assert render([*earlier, question], add_generation_prompt=True) == (
        "<|im_start|>user\nwhat is rackhand<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_template_names_the_tool_and_cuts_what_it_found() -> None:
    found = {"role": "tool", "content": "[1] Ports: " + "word " * 100}
    text = render([{"role": "user", "content": "x"}, found], tools=[examples.TOOL])
    assert "<tools>search_knowledge</tools>" in text
    assert len(text) < 150
    empty = render([{"role": "user", "content": "x"}, {"role": "tool", "content": "No result."}])
    assert "<|im_start|>tool\nnothing<|im_end|>" in empty


def test_an_environment_that_is_not_complete_is_named_with_its_cure(tmp_path: Path) -> None:
    with pytest.raises(OpsError, match="ops lab environment"):
        demo_model.content_key(tmp_path)


def test_the_key_changes_with_the_engine_environment(tmp_path: Path) -> None:
    keys = set()
    for lock in ("one", "two"):
        (tmp_path / ".complete").write_text(lock)
        keys.add(demo_model.content_key(tmp_path))
    assert len(keys) == 2
