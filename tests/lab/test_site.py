"""site.yml on booted hosts: fresh, converged, and what it leaves to its users."""

import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from stack import Lab, Stack, final_of, text_of

pytestmark = pytest.mark.lab

QUESTION = "How do I upgrade a model without downtime?"
SLOW = pytest.mark.long


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((1, "bookworm"), id="one host, Debian 12"),
        pytest.param((3, "trixie"), id="three hosts, Debian 13"),
        pytest.param((1, "trixie"), id="one host, Debian 13", marks=SLOW),
        pytest.param((3, "bookworm"), id="three hosts, Debian 12", marks=SLOW),
    ],
)
def stack(request: pytest.FixtureRequest, stacks) -> Stack:
    return stacks(*request.param)


def test_a_check_of_a_fresh_host_succeeds_and_foretells_changes(stack: Stack) -> None:
    run = stack.runs["check of a fresh host"]
    assert run.total("failed") == 0
    assert run.total("changed") > 10


def test_a_second_run_changes_nothing(stack: Stack) -> None:
    assert stack.runs["second run"].total("changed") == 0, stack.runs["second run"].output


def test_a_check_of_a_converged_host_shows_no_change(stack: Stack) -> None:
    run = stack.runs["check of a converged host"]
    assert run.total("changed") == 0, run.output
    assert run.total("failed") == 0


def test_a_question_is_answered_with_a_tool_through_verified_tls(stack: Stack) -> None:
    heard = stack.chat({"message": QUESTION})
    names = [name for name, _ in heard]
    assert names.count("tool") == 2, heard
    assert names.count("token") > 5
    assert text_of(heard) == final_of(heard)
    assert "other slot" in final_of(heard)


def test_the_correlation_id_travels_from_the_edge_to_the_engine(stack: Stack) -> None:
    body = {"message": QUESTION, "stream": False}
    with stack.client() as client:
        answer = client.post(
            "/chat",
            json=body,
            headers={"X-Request-ID": "lab-test-correlation-1"},
            extensions={"sni_hostname": stack.fleet.domain},
        )
    assert answer.headers["x-request-id"] == "lab-test-correlation-1"
    edge, engine = stack.fleet.first("edge").name, stack.fleet.first("gpu").name
    assert "lab-test-correlation-1" in stack.lab.ssh(edge, "tail -n 20 /var/log/nginx/*.log")
    log = "journalctl -u 'engine@*' -u nginx --since -5min --no-pager; cat /var/log/nginx/*.log"
    assert "lab-test-correlation-1.1" in stack.lab.ssh(engine, log)


def test_verify_finds_the_fleet_as_its_inventory_says(stack: Stack, tmp_path: Path) -> None:
    done = verify(stack.lab, "--junit", str(tmp_path / "verify.xml"))
    assert done.returncode == 0, done.stdout + done.stderr
    cases = ElementTree.parse(tmp_path / "verify.xml").findall(".//testcase")
    assert len(cases) > 20
    assert not [c for c in cases if c.find("failure") is not None]


def test_verify_fails_and_shows_the_journal_when_a_unit_is_down(stack: Stack) -> None:
    host = stack.fleet.first("data").name
    stack.lab.ssh(host, "systemctl stop redis-server@cache")
    try:
        done = verify(stack.lab)
    finally:
        stack.lab.ssh(host, "systemctl start redis-server@cache")
    assert done.returncode == 1, done.stdout
    assert "redis-server@cache" in done.stdout
    assert "Stopped" in done.stdout or "Stopping" in done.stdout, done.stdout


def verify(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["ops", "verify", "-i", str(lab.inventory), *arguments]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
    )
