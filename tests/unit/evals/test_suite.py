from pathlib import Path

import pytest

from ops.errors import InputError
from ops.evals.suite import load, shipped_names

GOOD = "name: mine\ncases:\n  - id: one\n    prompt: Hi\n    graders: [{contains: [hello]}]\n"


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_suite_can_be_read_and_says_what_it_is_about(name: str) -> None:
    suite = load(name)
    assert suite.name == name
    assert suite.description


def test_a_suite_of_ones_own_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    path.write_text(GOOD)
    assert load(str(path)).cases[0].conversation("Be kind.") == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("prompt: Hi", "prompt: Hi\n    mesages: []"), "mesages"),
        (("    prompt: Hi\n", ""), "give prompt, or messages"),
        (("contains: [hello]", "contains: []"), "contains"),
        (("contains: [hello]", "regex: '('"), "no regular expression"),
        (("contains: [hello]", "json_schema: {type: 7}"), "no JSON schema"),
        (("contains: [hello]", "sounds_like: hello"), "no such grader; there are exact"),
        (("cases:", "pass_share: 2\ncases:"), "pass_share"),
        (("cases:", "cases: ["), "not YAML"),
        ((GOOD, GOOD + GOOD.partition("cases:\n")[2]), "several cases are called one"),
    ],
)
def test_a_wrong_suite_is_refused_with_the_place(
    tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    path = tmp_path / "mine.yml"
    path.write_text(GOOD.replace(*change))
    with pytest.raises(InputError) as raised:
        load(str(path))
    assert words in raised.value.message
    assert raised.value.place == str(path)


def test_a_suite_that_is_nowhere_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match="no eval suite nowhere") as raised:
        load("nowhere")
    assert "chat" in raised.value.cure
