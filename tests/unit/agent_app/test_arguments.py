"""Arguments are read within bounds, and the text a person sees is the one that runs."""

import json

import pytest

from agent_app.tools.arguments import InvalidArguments, read_arguments, write_arguments


@pytest.mark.parametrize(
    "text",
    [
        "[]", '"x"', "{", "nul", '{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}',
        '{"a": "\\u0000"}', '{"\\u0000": 1}', '{"a": "\\ud800"}', "[" * 100_000,
        '{"a":' * 40 + "1" + "}" * 40, '{"a": "' + "x" * 64_000 + '"}',
        '{"a": "' + "é" * 40_000 + '"}', '{"a": ' + "9" * 5_000 + "}",
    ],
)  # fmt: skip
def test_what_is_beyond_the_bounds_is_refused(text: str) -> None:
    with pytest.raises(InvalidArguments):
        read_arguments(text)


def test_the_canonical_text_says_the_same_and_hides_nothing() -> None:
    given = {
        "a": 'é "\u202e\u200b\ufeff\U000e0041\u2028',
        "n": 12345678901234567890,
        "l": [1.5, None],
    }
    text = write_arguments(read_arguments(json.dumps(given)))
    assert json.loads(text) == given
    for hidden in "\u202e\u200b\ufeff\U000e0041\u2028":
        assert hidden not in text
    assert "é" in text and "\\u202e" in text
    assert write_arguments(read_arguments('{"a": 1, "a": 2}')) == '{"a": 2}'
    assert read_arguments("") == {}
