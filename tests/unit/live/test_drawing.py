import io

import pytest
from answers import SICK, answer, look, looked_twice
from rich.console import Console, RenderableType

from ops.live.drawing import Cropped, live_view, overview
from ops.live.words import number, seconds, span

LONG = "meta-llama-3-3-70b-instruct"


def printed(drawn: RenderableType, width: int, **settings: object) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False, **settings).print(drawn)  # type: ignore[arg-type]
    return stream.getvalue()


def line_with(text: str, *words: str) -> str:
    return next(line for line in text.splitlines() if all(word in line for word in words))


@pytest.mark.parametrize("width", [130, 80])
@pytest.mark.parametrize("changes", [{}, SICK], ids=["well", "sick"])
def test_every_line_fits_and_no_word_is_cut(width: int, changes: dict[str, object]) -> None:
    found, history = looked_twice(**changes)
    for text in (
        printed(overview(found, width), width),
        printed(live_view(found, history, width, "head"), width),
    ):
        assert all(len(line) <= width for line in text.splitlines())
        for words in (
            "9f1c2e7",
            "● blue",
            "model upgrade assistant",
            "step 3 of 5",
            "61.0/256 GiB",
        ):
            assert words in text
        assert "…" not in text


def test_status_tells_both_slots_and_until_when_one_is_kept() -> None:
    text = printed(overview(look(), 80), 80)
    assert line_with(text, "gpu1", "blue").split()[-3:] == ["90", "%", "active"]
    assert "taking over" in line_with(text, "gpu1", "c04be11")
    assert "standby until 22:42 UTC" in line_with(text, "gpu2", "77aa001")
    assert "0.33.0-cuda" in line_with(text, "c04be11")


def test_a_host_that_does_not_answer_is_a_row_and_says_why_below() -> None:
    text = printed(overview(look(**SICK), 130), 130)
    assert "no answer" in line_with(text, "gpu2", "198.51.100.12")
    assert "cannot be reached over SSH: timed out" in line_with(text, "gpu2", "SSH")
    assert "engine@assistant-green.service is failed" in text
    assert "drained: ops driver upgrade to 595 by ada@desk" in text
    assert "/ is 93 % full" in text
    assert "the certificate ends in 5 days" in text
    assert "left unfinished" in text
    assert "ops resume" in text


def test_top_tells_how_each_slot_and_each_instance_does() -> None:
    found, history = looked_twice()
    text = printed(live_view(found, history, 80), 80)
    assert line_with(text, "gpu1", "blue").split() == [
        "assistant", "gpu1", "●", "blue", "90", "%", "9.0", "4", "0", "1890", "438", "ms",
        "2.2", "%", "9f1c2e7",
    ]  # fmt: skip
    assert line_with(text, "8201").split() == [
        "edge1",
        "8201",
        "active",
        "7",
        "2",
        "6.2",
        "0.0",
        "%",
    ]


def test_an_engine_that_does_not_answer_is_called_silent() -> None:
    models = answer("gpu1")["models"]
    models["assistant"]["slots"]["blue"]["metrics"] = None
    found, history = looked_twice(gpu1={"models": models})
    assert "silent" in line_with(printed(live_view(found, history, 80), 80), "gpu1", "blue")


def test_names_give_way_in_a_narrow_terminal_and_figures_do_not() -> None:
    models = {LONG: answer("gpu1")["models"]["assistant"]}
    found, history = looked_twice(gpu1={"models": models}, gpu2="timed out")
    text = printed(live_view(found, history, 80), 80)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "90 %" in text
    assert "c04be11" in text


def test_no_colour_is_printed_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed(overview(look(**SICK), 80), 80, force_terminal=True)
    assert "\x1b[31m" not in text
    assert "\x1b[1;31m" not in text
    assert "no answer" in text


def test_what_a_host_tells_is_never_taken_for_markup() -> None:
    changes = {"gpu1": {"drained": "[red]by [/oops] me"}}
    assert "[red]by [/oops] me" in printed(overview(look(**changes), 130), 130)


def test_a_picture_higher_than_the_terminal_says_so() -> None:
    found, history = looked_twice()
    console = Console(file=io.StringIO(), width=80, height=12, force_terminal=True)
    console.begin_capture()
    console.print(Cropped(live_view(found, history, 80)), height=12)
    lines = console.end_capture().splitlines()
    assert len(lines) == 12
    assert "more lines: a taller terminal, or --once" in lines[-1]


def test_figures_are_as_long_as_they_need_be() -> None:
    assert [number(v) for v in (None, 0.0, 0.26, 9.94, 1234.5)] == ["-", "0", "0.3", "9.9", "1234"]
    assert [seconds(v) for v in (None, 0.0123, 2.51)] == ["-", "12 ms", "2.5 s"]
    assert [span(v) for v in (0, 59, 60, 3700, 90000)] == ["0 s", "59 s", "1 min", "1 h 1 min",
                                                           "1 d 1 h"]  # fmt: skip
