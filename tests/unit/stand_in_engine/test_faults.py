"""Faults on demand."""

from __future__ import annotations

from pathlib import Path

import pytest

from stand_in_engine.faults import Faults, UnknownFaultError, parse


def test_faults_are_words_with_or_without_a_number() -> None:
    assert parse("hang slow:2.5,error_rate:0.1\n") == {"hang": 1.0, "slow": 2.5, "error_rate": 0.1}


@pytest.mark.parametrize("wrong", ["explode", "slow", "hang:3", "slow:fast"])
def test_a_wrong_fault_is_named_with_what_there_is(wrong: str) -> None:
    with pytest.raises(UnknownFaultError, match=f"{wrong}.*crash_after_tokens:NUMBER"):
        parse(wrong)


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "faults"
    faults = Faults({"garbage": 1.0}, file)
    assert faults.now() == {"garbage": 1.0}
    file.write_text("hang")
    assert faults.now() == {"hang": 1.0}
    file.write_text("")
    assert faults.now() == {}


def test_a_wrong_word_in_the_file_changes_nothing_and_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "faults"
    file.write_text("hang")
    faults = Faults({}, file)
    assert faults.now() == {"hang": 1.0}
    file.write_text("explode now")
    assert faults.now() == {"hang": 1.0}
    assert "explode" in capfd.readouterr().err


def test_errors_are_spread_evenly() -> None:
    faults = Faults({"error_rate": 0.25})
    assert [faults.next_request_fails() for _ in range(8)] == [False, False, False, True] * 2
