"""Every command that a document names exists, with its options."""

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import typer

from ops.cli.main import COMMANDS
from ops.places import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAKE = re.compile(r"\bmake (?:[A-Z]+=\S+ )*([a-z][a-z-]+)")
QUOTED = re.compile(r"`((?:\.venv/bin/)?(?:ops|agent-app) [^`]+)`")


def commands(document: Path) -> Iterator[str]:
    """Lines of code blocks and inline code that begin with one of our commands."""
    fenced = False
    for line in document.read_text(encoding="utf-8").splitlines():
        if line.strip().startswith("```"):
            fenced = not fenced
        elif fenced and line.strip().startswith((".venv/bin/ops ", "ops ", "agent-app ")):
            yield line.strip()
        elif not fenced:
            yield from QUOTED.findall(line)


def every(program: str) -> list[tuple[str, list[str]]]:
    found = []
    for document in DOCUMENTS:
        for line in commands(document):
            words = shlex.split(line.replace("[", "").replace("]", ""), comments=True)
            if Path(words[0]).name == program:
                found.append((document.name, words[1:]))
    return found


def resolve(app: typer.Typer, words: list[str]) -> tuple[object, list[str]]:
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def assert_options(command: object, words: list[str]) -> None:
    known = {name for param in command.params for name in param.opts}
    until = words.index("--") if "--" in words else len(words)
    for word in words[:until]:
        if word.startswith("-"):
            assert word.split("=")[0] in {*known, "--help", "-h", "-"}, f"no option {word}"


@pytest.mark.parametrize(("document", "words"), every("ops"))
def test_each_ops_command_of_a_document_exists(document: str, words: list[str]) -> None:
    while words and words[0].startswith("--"):
        assert words.pop(0) in ("--debug", "--help", "--version", "--install-completion")
    if words:
        app = COMMANDS[words[0]].load()
        assert_options(*resolve(app, words[1:]))


@pytest.mark.parametrize(("document", "words"), every("agent-app"))
def test_each_agent_app_command_of_a_document_exists(document: str, words: list[str]) -> None:
    assert_options(*resolve(import_module("agent_app.cli.main").app, words))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_make_target_of_a_document_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = re.findall(r"```.*?```|`[^`\n]+`", document.read_text(encoding="utf-8"), re.DOTALL)
    named = {target for text in code for target in MAKE.findall(text)}
    assert named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_link_of_a_document_leads_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (document.parent / link).exists(), link


def test_requirements_yml_names_every_collection_in_use() -> None:
    import yaml

    wanted = {
        entry["name"]
        for entry in yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]
    }
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for pattern in ("roles/*/tasks/*.yml", "roles/*/handlers/*.yml", "playbooks/*.yml")
        for path in ROOT.glob(pattern)
    )
    used = set(re.findall(r"^\s+(?:- )?([a-z]+\.[a-z]+)\.[a-z_]+:", text, re.MULTILINE))
    assert used - {"ansible.builtin", "rackhand.host"} == wanted


def test_the_readme_is_one_screen() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 60


@pytest.mark.parametrize("name", ["test", "lint", "bench", "demo", "help"])
def test_the_makefile_has_the_targets_that_others_rely_on(name: str) -> None:
    assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
