"""A cure is a command that exists, with options that it has."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from ops.cli.main import app
from ops.doctor.drawing import filled
from ops.doctor.finding import Case
from ops.doctor.judge import catalogue
from ops.doctor.rules import app as app_rules
from ops.doctor.rules import data, gpu, host

CASES = [case for cases in catalogue().values() for case in cases]
MORE = [*(how for *_, how in gpu.ACTIONS.values()), *gpu.RECOVERIES.values(), *host.CURES.values(),
        *(how for *_, how in app_rules.CAUSES), *(how for *_, how in data.ANSWERS)]  # fmt: skip
COMMAND = re.compile(r"\bops ((?:(?![;()?,]| names| says| then| fetches).)+)")


def options(words: list[str]) -> None:
    """Follow the words to a command; its flags must be among its options."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("ops", [], resilient_parsing=True)
    while words and hasattr(command, "resolve_command"):
        if words[0].startswith("-"):
            break
        assert words[0] in command.list_commands(context), f"no command {words[0]}"
        _, command, words = command.resolve_command(context, words)
        context = command.make_context("ops", [], resilient_parsing=True)
    known = {name for parameter in command.params for name in parameter.opts}
    unknown = [word for word in words if word.startswith("-") and word not in known]
    assert not unknown, f"{command.name} has no {unknown}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_ops_command_of_a_cure_exists_with_its_options(case: Case) -> None:
    for words in COMMAND.findall(filled(case.cure)):
        options(words.split())


@pytest.mark.parametrize("text", MORE)
def test_and_those_that_rules_put_together(text: str) -> None:
    for words in COMMAND.findall(filled(text)):
        options(words.split())


@pytest.mark.parametrize("words", ["restart engine --nope", "no-such", "model stage X --limits"])
def test_a_command_that_is_not_there_would_be_noticed(words: str) -> None:
    with pytest.raises(AssertionError):
        options(words.split())
