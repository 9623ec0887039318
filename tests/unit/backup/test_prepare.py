"""What `backup prepare` makes of a stanza that another process of pgBackRest works on."""

from __future__ import annotations

import importlib.util
import json
from subprocess import CompletedProcess
from types import ModuleType
from typing import Any

import pytest

from ops.places import ROOT

BUSY, DONE = 50, 0


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("backup", ROOT / "roles/backup/files/backup.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    clock = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock) * 5)
    monkeypatch.setattr(module.time, "sleep", lambda _seconds: None)
    return module


def prepared(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, statuses: list[int], code: int
) -> int:
    """Have stanza-create end with one status after another, and `info` tell a stanza's code."""
    answers = iter(statuses)

    def run(words: list[str], **_more: Any) -> CompletedProcess[str]:
        if "info" in words:
            told = json.dumps([{"status": {"code": code}, "backup": [{}]}])
            return CompletedProcess(words, 0, told, "")
        return CompletedProcess(words, next(answers), "already exists", "")

    monkeypatch.setattr(program.subprocess, "run", lambda words, **more: run(list(words), **more))
    return int(program.prepare({"stanza": "rackhand"}))


def test_it_waits_for_a_segment_that_is_being_archived(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepared(program, monkeypatch, [BUSY, BUSY, DONE], code=0) == 0


def test_a_backup_that_takes_hours_is_no_failure(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepared(program, monkeypatch, [BUSY] * 50, code=2) == 0


def test_a_stanza_that_is_not_there_and_stays_locked_is_one(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepared(program, monkeypatch, [BUSY] * 50, code=1) == BUSY
