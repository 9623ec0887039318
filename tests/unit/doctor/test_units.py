"""Which lines of a unit's journal belong to the run that went wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ops.doctor.evidence import units
from ops.doctor.evidence.command import Done

UNIT = "engine@chat-blue.service"
SECOND = 1_790_000_000.5


def entry(message: Any, run: str = "", *, systemd: str = "") -> str:
    """A line of `journalctl -o json`, of the unit itself or of systemd."""
    own = {"_SYSTEMD_INVOCATION_ID": run} if run else {}
    about = {"_PID": "1", "_SYSTEMD_INVOCATION_ID": "of-init"} if systemd else {"_PID": "77"}
    named = {"INVOCATION_ID": systemd} if systemd not in ("", "none") else {}
    at = {"__REALTIME_TIMESTAMP": str(int(SECOND * 1e6))}
    return json.dumps({"MESSAGE": message, **own, **about, **named, **at})


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(units, "ask", lambda *_words, **_more: Done(0, "\n".join(lines)))
    return lines


def test_a_run_that_systemd_has_started_again_is_told_from_the_one_before(
    journal: list[str],
) -> None:
    journal += [
        entry("older", "one"),
        entry("ValueError: it broke", "two"),
        entry("Main process exited, status=1", systemd="two"),
        entry("Scheduled restart job", systemd="none"),
        entry("Started Engine", systemd="three"),
        entry("loading", "three"),
    ]
    now, before, began = units.logs(UNIT, "three")
    assert began == SECOND
    assert now == ["Started Engine", "loading"]
    assert before == [
        "ValueError: it broke", "Main process exited, status=1", "Scheduled restart job",
    ]  # fmt: skip


def test_the_last_run_of_a_unit_that_is_down_is_its_log(journal: list[str]) -> None:
    journal += [entry("first", "one"), entry(list(b"second"), "two")]
    assert units.logs(UNIT, "") == (["second"], ["first"], SECOND)


def test_a_unit_that_never_ran_has_no_log(journal: list[str]) -> None:
    assert units.logs(UNIT, "") == ([], [], 0.0)


def test_secrets_of_a_log_are_taken_out(journal: list[str]) -> None:
    journal.append(entry("HF_TOKEN=hf_AbCdEfGhIjKlMnOp", "one"))
    assert units.logs(UNIT, "one")[0] == ["HF_TOKEN=[redacted]"]
