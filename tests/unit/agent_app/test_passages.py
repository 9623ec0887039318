from pathlib import Path

import pytest

from agent_app.access.keys import Digester, make_key
from agent_app.api.middleware import is_correlation_id
from agent_app.errors import ConfigError
from agent_app.state.knowledge import PASSAGE_CHARACTERS, split

DEMO = Path(__file__).parents[3] / "ops/lab/demo_model/knowledge"


def test_a_short_document_is_one_passage_under_its_heading() -> None:
    title, passages = split("# Ports #\n\nThe proxy\nlistens.\n\nOn 8000.\n", fallback="x")
    assert title == "Ports"
    assert passages == ["The proxy listens. On 8000."]


def test_without_a_heading_the_file_names_the_document() -> None:
    assert split("Just text.", fallback="ports") == ("ports", ["Just text."])


def test_later_headings_become_sentences() -> None:
    assert split("# A\n\n## Why\n\nBecause.", fallback="x")[1] == ["Why. Because."]


def test_no_passage_is_longer_than_what_is_shown_and_nothing_is_lost() -> None:
    words = [f"word{n}" for n in range(400)]
    text = "# T\n\n" + " ".join(words[:200]) + ". " + " ".join(words[200:]) + "."
    _, passages = split(text, fallback="x")
    assert max(map(len, passages)) <= PASSAGE_CHARACTERS
    joined = "".join(passages).replace(" ", "")
    assert joined == ("".join(words[:200]) + "." + "".join(words[200:]) + ".")


def test_an_empty_document_has_no_passage() -> None:
    assert split("", fallback="x") == ("x", [])


@pytest.mark.parametrize("path", sorted(DEMO.glob("*.md")), ids=lambda path: path.stem)
def test_the_demo_documents_are_split_as_their_model_learned_them(path: Path) -> None:
    heading, _, text = path.read_text().partition("\n")
    title, passages = split(path.read_text(), fallback="x")
    assert title == heading.removeprefix("#").strip()
    assert " ".join(text.split()).startswith(passages[0])


def test_keys_are_random_and_digests_depend_on_the_secret() -> None:
    key = make_key()
    assert key.startswith("rh_")
    assert key != make_key()
    one, other = Digester("a" * 16), Digester("b" * 16)
    assert one.digest(key) == one.digest(key) != other.digest(key)
    with pytest.raises(ConfigError, match="key_secret"):
        Digester("short")


@pytest.mark.parametrize(
    ("text", "good"),
    [("0123456789abcdef", True), ("edge-1.2_3", True), ("short", False), ("a" * 65, False),
     ("bad id with spaces", False), ("new\nline-here", False), ("ünïcödé-id", False)],
)  # fmt: skip
def test_request_ids_are_checked(text: str, good: bool) -> None:
    assert is_correlation_id(text) is good
