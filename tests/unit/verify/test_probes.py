from dataclasses import dataclass
from typing import Any

import pytest

from ops.verify import probes
from ops.verify.report import Report, Result


@dataclass
class Answer:
    stdout: str = ""
    stderr: str = ""
    rc: int = 0


class Scripted:
    """A host that answers commands by their first words."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers

    def run(self, command: str, *arguments: Any) -> Answer:
        return Answer(self.answers.get(command.split()[0], ""))


def test_a_stopped_unit_fails_with_its_journal() -> None:
    host = Scripted(
        systemctl="ActiveState=failed\nSubState=failed\nUnitFileState=enabled",
        journalctl="out of memory",
    )
    with pytest.raises(AssertionError, match=r"(?s)x is failed \(failed\).*out of memory"):
        probes.assert_unit_runs(host, "x")


def test_a_unit_that_would_not_come_back_fails_with_the_cure() -> None:
    host = Scripted(systemctl="ActiveState=active\nSubState=running\nUnitFileState=disabled")
    with pytest.raises(AssertionError, match="cure: systemctl enable x"):
        probes.assert_unit_runs(host, "x")


def test_a_port_that_is_open_to_the_world_fails() -> None:
    host = Scripted(ss="LISTEN 0 128 *:6379 *:*")
    with pytest.raises(AssertionError, match=r"listens on 0\.0\.0\.0, not on 127\.0\.0\.1"):
        probes.assert_listens_only_at(host, 6379, {"127.0.0.1"})


def test_addresses_of_both_families_are_read() -> None:
    text = "LISTEN 0 1 127.0.0.53%lo:53 0.0.0.0:*\nLISTEN 0 1 [::]:22 [::]:*\nLISTEN 0 1 [::1]:9 *"
    assert probes.listeners(Scripted(ss=text)) == {
        ("127.0.0.53", 53),
        ("0.0.0.0", 22),
        ("::1", 9),
    }


def test_a_loose_mode_fails() -> None:
    with pytest.raises(AssertionError, match="is root root 644, not root root 600"):
        probes.assert_access(Scripted(stat="root root 644"), "/x", "root", "root", 0o600)


def test_nothing_checked_is_no_pass() -> None:
    assert not Report(()).passed
    assert Report((Result("one", "redis", "runs", "passed"),)).passed
    assert not Report((Result("one", "redis", "runs", "failed"),)).passed
