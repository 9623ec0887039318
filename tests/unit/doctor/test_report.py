"""How hosts are asked, what is printed, and that no secret is."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ops.cli.doctor import show_cases
from ops.doctor import ask
from ops.doctor.drawing import draw
from ops.doctor.evidence.command import redact
from ops.doctor.evidence.units import text_lines
from ops.doctor.finding import CRITICAL, Case, HostReport, Report
from ops.errors import InputError, RemoteError
from ops.fleet.model import Fleet, Host
from ops.places import ROOT
from tests.unit.doctor.healthy import HEALTHY
from tests.unit.doctor.table import PAGE, tables

GROUPS = frozenset({"gpu", "agent", "data", "edge"})
FLEET = Fleet(Path("inventory"), "agent.example.com", tuple(
    Host(name, f"10.0.0.{number}", groups, f"10.0.0.{number}")
    for number, (name, groups) in enumerate((("one", GROUPS), ("two", frozenset({"gpu"}))))
))  # fmt: skip
CASE = Case("a-case", CRITICAL, "it is down " * 12, "because of {why}", "mend --host {host} " * 9)


def well(_fleet: Fleet, _host: Host) -> Mapping[str, Any]:
    found = copy.deepcopy(HEALTHY)
    del found["groups"], found["inventory"]
    found["machine"]["now"] = ask.time.time()
    found["certificate"]["expires"] += found["machine"]["now"]
    found["engines"]["fact"] = {}
    found["engines"]["slots"] = []
    return found


def test_a_host_that_cannot_be_reached_is_told_and_the_others_are_judged() -> None:
    def one_is_dead(fleet: Fleet, host: Host) -> Mapping[str, Any]:
        if host.name == "one":
            raise RemoteError("one cannot be reached over SSH: timed out", cure="check it")
        return well(fleet, host)

    report = ask.examine(FLEET, FLEET.hosts, one_is_dead)
    assert [(host.host, host.problem[:10]) for host in report.hosts] == [
        ("one", "one cannot"), ("two", ""),
    ]  # fmt: skip
    assert report.exit_code == 2


def test_what_is_critical_is_worse_than_what_could_not_be_told() -> None:
    found = HostReport("two", (CASE.found("two", "x"),))
    assert Report((HostReport("one", problem="dead"), found)).exit_code == 1
    assert Report((HostReport("one"),)).exit_code == 0


def test_a_drained_host_is_well_while_the_keeper_has_an_operation_at_work() -> None:
    held = {"id": "1", "plan": {"steps": []}, "entries": [], "held": True, "owner": {}}

    def asked(fleet: Fleet, host: Host) -> Mapping[str, Any]:
        traffic = {"drained": "ann", "drained_seconds": 1.0, "held": {}}
        return {**well(fleet, host), "traffic": traffic,
                "operation": held if host.name == "one" else None}  # fmt: skip

    assert ask.examine(FLEET, FLEET.hosts[1:], asked).findings == ()


def test_a_clock_is_compared_with_ours() -> None:
    def late(fleet: Fleet, host: Host) -> Mapping[str, Any]:
        found = dict(well(fleet, host))
        found["machine"] = {**found["machine"], "now": found["machine"]["now"] - 300}
        return found

    cases = [found.case for found in ask.examine(FLEET, FLEET.hosts[:1], late).findings]
    assert cases == ["clock-off"]


def test_the_program_runs_where_nothing_of_ours_is_installed(tmp_path: Path) -> None:
    """As on a host: a bare Python, the loader, and a line of input."""
    command = [sys.executable, "-I", "-S", "-c", ask.LOADER]
    done = subprocess.run(command, input=ask.job(FLEET, FLEET.hosts[0]), cwd=tmp_path,
                          capture_output=True, text=True, timeout=60, check=True)  # fmt: skip
    told = json.loads(done.stdout)
    assert told["complaints"] == []
    assert told["machine"]["memory"]["total"] > 0
    assert set(HEALTHY) - set(told) == {"groups", "domain", "inventory"}


def test_this_machine_is_examined_by_python_alone(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-S", "-m", "ops.doctor", "--json"], cwd=ROOT,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    report = json.loads(done.stdout)
    assert report["format"] == 1
    assert report["exit_code"] == done.returncode
    assert len(report["hosts"]) == 1


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    findings = (CASE.found("two", "engine@chat-blue.service", "x" * 300, why="y" * 90),)
    report = Report((HostReport("one", problem="p " * 90, cure="c"), HostReport("two", findings)))
    lines = ["".join(text for text, _ in line) for line in draw(report, width)]
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "Cause" in text
    assert "Evidence" in text
    assert text.index("one") < text.index("two")


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("HF_TOKEN=hf_AbCdEfGhIjKlMnOp", "AbCdEfGh"),
        ("Authorization: Bearer abc.def-ghi_jkl", "def-ghi"),
        ("--api-key s3cr3tvalue --port 1", "s3cr3tvalue"),
        ('"password": "hunter22"', "hunter22"),
        ("postgresql://app:hunter22@10.0.0.1/app", "hunter22"),
        ("redis password=hunter22, user=x", "hunter22"),
        ("sk-proj-0123456789abcdef", "0123456789"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "eyJzdWIi"),
        ("client_secret: abcdef123456", "abcdef123456"),
    ],
)
def test_secrets_leave_no_host(text: str, secret: str) -> None:
    assert secret not in redact(text)
    assert "[redacted]" in redact(text)


@pytest.mark.parametrize(
    "text",
    ["max_tokens=8192 exceeds", "tokenizer: /srv/models/demo", "prompt_tokens: 100000000",
     "password authentication failed for user", "KeyError: 'invalid tool call parser: qwen25'"],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_a_journal_message_with_colours_is_read() -> None:
    assert text_lines(list(b"\x1b[31mError\x1b[0m\nmore")) == ["\x1b[31mError\x1b[0m", "more"]
    assert text_lines(None) == []


def test_the_page_tells_every_case_as_the_catalogue_has_it() -> None:
    text = PAGE.read_text()
    assert tables() in text, "python -m tests.unit.doctor.table writes them anew"


def test_a_case_is_explained_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    show_cases("kv-cache-too-small", as_json=False)
    said = capsys.readouterr().out
    assert "engine_accept_restart=true" in said
    with pytest.raises(InputError, match="no case is named nope"):
        show_cases("nope", as_json=False)
