"""`ops keys`, `usage`, `kb` and `audit` against a converged stack, as an operator does."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from stack import Stack

pytestmark = pytest.mark.lab

FOLLOW_SECONDS = 6  # processes take up a changed key within 5
QUESTION = "How do I upgrade a model without downtime?"


@pytest.fixture(scope="module")
def stack(stacks: Any) -> Stack:
    converged: Stack = stacks(1, "bookworm")
    return converged


def ops(stack: Stack, *arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        ["ops", *arguments, "-i", str(stack.lab.inventory)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def ask_with(stack: Stack, key: str) -> Any:
    sni = {"sni_hostname": stack.fleet.domain}
    headers = {"Authorization": f"Bearer {key}", "X-Feature": "lab"}
    with stack.client() as client:
        body = {"message": QUESTION, "stream": False}
        return client.post("/chat", json=body, headers=headers, extensions=sni)


def test_a_key_is_made_used_counted_limited_and_revoked(stack: Stack) -> None:
    name = f"client-{uuid4().hex[:8]}"
    key = ops(stack, "keys", "create", name, "--expires", "1d").strip()
    assert key.startswith("rh_")
    answer = ask_with(stack, key)
    assert answer.status_code == 200, answer.text
    (used,) = json.loads(ops(stack, "usage", "--key", name, "--by", "feature", "--json"))["usage"]
    assert (used["feature"], used["requests"]) == ("lab", 1)
    assert used["total_tokens"] > 0
    ops(stack, "keys", "limit", name, "budget_hard=1")
    time.sleep(FOLLOW_SECONDS)
    assert ask_with(stack, key).status_code == 429
    ops(stack, "keys", "limit", name, "budget_hard=0")
    ops(stack, "keys", "revoke", name, "--yes")
    time.sleep(FOLLOW_SECONDS)
    assert ask_with(stack, key).status_code == 401
    (listed,) = [k for k in json.loads(ops(stack, "keys", "list", "--json"))["keys"]
                 if k["name"] == name]  # fmt: skip
    assert listed["revoked_at"]
    host = stack.fleet.first("agent").name
    journal = stack.lab.ssh(host, "journalctl --no-pager | cat")
    assert key not in journal


def test_documents_of_this_machine_are_found_by_the_agent_and_leave_no_copy(
    stack: Stack, tmp_path: Path
) -> None:
    (tmp_path / "pump.md").write_text("# Pump\n\nThe zirconium pump runs at 4711 rpm.\n")
    (tmp_path / "fan.html").write_text("<h1>Fan</h1><p>The fan is quiet.</p>")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    done = json.loads(
        ops(stack, "kb", "ingest", str(tmp_path), "--collection", "lab", "--json", status=1)
    )
    assert (done["new"], list(done["failed"])) == (2, ["bad.txt"])
    (found,) = json.loads(ops(stack, "kb", "search", "zirconium pump", "--json"))["passages"]
    assert (found["path"], found["collection"]) == ("pump.md", "lab")
    assert "full text serves" in ops(stack, "kb", "status")
    host = stack.fleet.first("agent").name
    left = "ls /var/tmp | grep -v ^systemd-private- | grep rackhand || true"
    assert stack.lab.ssh(host, left) == ""
    (tmp_path / "fan.html").unlink()
    (tmp_path / "bad.txt").unlink()
    told = ops(stack, "kb", "ingest", str(tmp_path), "--collection", "lab", "--prune", "--yes")
    assert told == "0 new or changed, 1 unchanged, 1 removed\n"
    ops(stack, "kb", "remove", "--all", "--collection", "lab", "--yes")
    ops(stack, "kb", "search", "zirconium", status=1)


def test_an_error_of_the_app_arrives_with_its_place_and_cure(stack: Stack) -> None:
    done = subprocess.run(
        ["ops", "keys", "revoke", "nobody", "--yes", "-i", str(stack.lab.inventory)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "where: node1: agent-app keys revoke nobody" in done.stderr
    assert "cure:" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_audit_is_exported_and_holds(stack: Stack, tmp_path: Path) -> None:
    verdict = json.loads(ops(stack, "audit", "verify", "--json"))
    assert verdict["ok"]
    file = tmp_path / "audit.jsonl"
    told = ops(stack, "audit", "export", "--to", str(file))
    assert "entries hold" in told
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(file.read_text().splitlines()) > 1
