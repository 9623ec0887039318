"""Backups of a host that serves: a DELETE undone, a damaged backup found out, no secret shown."""

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from operators import ops, ops_told
from results import add_to_result
from stack import Lab, Stack, final_of
from stand_in_stack import assert_site_changes_nothing, stand_in_stack

from ops.secrets.store import used
from ops.secrets.vault import read_secrets

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(1500)]

UNITS = ("rackhand-backup@full", "rackhand-backup-verify", "rackhand-backup-files")
METRICS = "/var/lib/rackhand/metrics"
BACKUP_SECONDS = 180.0


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def stack(labs: Callable[..., Lab], request: pytest.FixtureRequest) -> Iterator[Stack]:
    with stand_in_stack(labs, image=request.param, purpose="backup") as made:
        yield made


def write(*rows: tuple[str, str]) -> None:
    add_to_result(
        "backup", "Backups and restores in the lab", ("what", "figure"), rows,
        "Labs of the stand-in engine. Acknowledged: the client saw the closing event. "
        "The recovery point is the last transaction that is back, as `ops restore` states it. "
        "Below 0 s: committed after the power was told to go, before it was gone.",
    )  # fmt: skip


def listing(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ops(stack, "backup", "list", "--json").output)
    return found


def say(stack: Stack, words: str) -> str:
    """Chat; return the thread once the answer is acknowledged."""
    thread = str(uuid.uuid4())
    final_of(stack.chat_when_back({"message": words, "thread_id": thread}))
    return thread


def threads(stack: Stack) -> set[str]:
    return set(stack.sql("SELECT id FROM app.threads").split())


def metric(stack: Stack, page: str, name: str) -> float:
    text = stack.lab.ssh("node1", f"cat {METRICS}/{page}.prom")
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(name + " ")))


def destroy(stack: Stack, host: str) -> None:
    """Cut its power, and give it the files of a fresh machine."""
    for words in (["kill", host], ["reset", host]):
        subprocess.run(
            ["ops", "lab", *words, "--name", stack.lab.name],
            check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=300,
        )  # fmt: skip


def wait_for_backup(stack: Stack, count: int = 1) -> None:
    """Wait until there are so many, and none is being made."""
    deadline = time.monotonic() + BACKUP_SECONDS
    busy = "systemctl list-units --no-legend --state=activating 'rackhand-backup@*'"
    while len(listing(stack)["backups"]) < count or stack.lab.ssh("node1", busy):
        assert time.monotonic() < deadline, ops(stack, "backup", "list").output
        time.sleep(1)


def test_the_first_backup_is_there_by_itself_and_the_second_run_changes_nothing(
    stack: Stack,
) -> None:
    wait_for_backup(stack)
    found = listing(stack)
    assert found["ours"]
    assert found["backups"][0]["kind"] == "full"
    assert_site_changes_nothing(stack)
    assert (
        time.time() - metric(stack, "backup", "rackhand_backup_last_success_timestamp_seconds")
        < 3600
    )


def test_a_wrong_delete_is_undone_by_going_back_to_the_moment_before(stack: Stack) -> None:
    undo_a_delete(stack, "one host")


def undo_a_delete(stack: Stack, where: str) -> None:
    before = {say(stack, "remember the heron"), say(stack, "and the crane")}
    time.sleep(1)
    moment = datetime.now(UTC)
    time.sleep(1)
    stack.sql("DELETE FROM app.threads")
    assert not threads(stack) & before
    said = ops_told(stack, "restore", "--to", moment.isoformat(), "--yes")
    assert before <= threads(stack)
    end = said.events[-1]
    assert end["event"] == "restored"
    assert float(end["recovered_to"]) <= moment.timestamp()
    assert end["aside"].startswith("/var/lib/postgresql/")
    stack.wait_until_ready()
    after = say(stack, "still there?")
    assert after in threads(stack)
    stack.lab.ssh("node1", f"rm -r {end['aside']}")
    wait_for_backup(stack, 2)
    assert_site_changes_nothing(stack)
    back = moment.timestamp() - float(end["recovered_to"])
    write(
        (f"{where}: a DELETE undone by --to, whole operation", f"{said.took:.1f} s"),
        (f"{where}: of it the database restored and recovered", f"{end['seconds']:.1f} s"),
        (f"{where}: last transaction back, before the moment asked for", f"{back:.1f} s"),
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--to", "2001-01-01 00:00Z"), "before the end of the oldest backup"),
        (("--to", "2099-01-01 00:00Z"), "lies in the future"),
        (("--backup", "20010101-000000F"), "there is no backup"),
    ],
)
def test_what_cannot_be_restored_is_refused_before_anything_stops(
    stack: Stack, words: tuple[str, ...], why: str
) -> None:
    said = ops(stack, "restore", *words, "--yes", status=2)
    assert why in said.output
    assert "cure:" in said.output


def test_a_restore_that_fails_brings_the_old_cluster_back(stack: Stack) -> None:
    thread = say(stack, "before the failure")
    ops(stack, "backup", "run", "--full", "--yes")
    label = listing(stack)["backups"][-1]["label"]
    folder = f"/var/lib/pgbackrest/backup/rackhand/{label}"
    with damaged(stack, folder):
        said = ops(stack, "restore", "--yes", status=None)
    assert said.status == 1, said.output
    assert "everything was brought back" in said.output
    assert thread in threads(stack)
    stack.wait_until_ready()
    assert say(stack, "after the failure") in threads(stack)


class damaged:
    """While it is entered a file of a backup has bytes that are not its own."""

    def __init__(self, stack: Stack, folder: str) -> None:
        self._stack = stack
        find = f"find {folder} -type f -size +2k ! -name 'backup.manifest*' | sort | head -1"
        self._file = stack.lab.ssh("node1", find)
        assert self._file, folder

    def __enter__(self) -> str:
        flip = f"printf WRONG | dd of={self._file} bs=1 seek=1500 conv=notrunc"
        self._stack.lab.ssh("node1", f"cp -a {self._file} /root/kept; {flip}")
        return self._file

    def __exit__(self, *_: object) -> None:
        self._stack.lab.ssh("node1", f"cp -a /root/kept {self._file}")


def test_the_proof_restores_and_reads_the_newest_backup(stack: Stack) -> None:
    prove(stack, "one host")


def prove(stack: Stack, where: str) -> None:
    ops(stack, "backup", "run", "--full", "--yes")
    said = ops(stack, "backup", "verify", "--json")
    proof = json.loads(said.output)["hosts"][0]
    assert proof["good"], proof
    assert "rows read" in proof["said"]
    assert metric(stack, "backup_verify", "rackhand_backup_verify_success") == 1
    scratch = "/var/lib/rackhand-backup/proof/scratch"
    assert stack.lab.ssh("node1", f"ls -d {scratch} 2>/dev/null || true") == ""
    write((f"{where}: a backup restored, read row by row, removed", f"{proof['seconds']:.1f} s"))


def test_a_damaged_backup_fails_its_proof_and_the_metric_says_so(stack: Stack) -> None:
    label = listing(stack)["backups"][-1]["label"]
    with damaged(stack, f"/var/lib/pgbackrest/backup/rackhand/{label}"):
        said = ops(stack, "backup", "verify", status=1)
        assert "FAILED" in said.output
        assert metric(stack, "backup_verify", "rackhand_backup_verify_success") == 0
        doctor = ops(stack, "doctor", "--json", status=None)
        assert "backup-unproven" in doctor.output
    ops(stack, "backup", "verify")
    assert metric(stack, "backup_verify", "rackhand_backup_verify_success") == 1


def test_the_inventory_comes_back_out_of_the_repository(stack: Stack, tmp_path: Path) -> None:
    ops(stack, "backup", "run", "--yes")
    assert f"{stack.lab.inventory.name}/.secrets/fleet.vault" in stored_inventory(stack)


def stored_inventory(stack: Stack) -> list[str]:
    """Names of files in it."""
    command = (
        "/usr/local/lib/rackhand/backup restic --quiet dump --tag inventory latest inventory.tar"
    )
    return stack.lab.ssh("node1", f"{command} | tar -tf -").splitlines()


def test_no_one_sees_the_passphrase(stack: Stack) -> None:
    back_up_unseen(stack, passphrase(stack))


def passphrase(stack: Stack) -> str:
    return used(read_secrets(stack.lab.inventory)["backup_passphrase"])


def back_up_unseen(stack: Stack, secret: str) -> None:
    """Back up while arguments are watched; no one sees the secret, then or in what is left."""
    look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"
    watch = f"for i in $(seq 200); do {look}; sleep 0.05; done"
    stack.lab.ssh("node1", f"({watch}) > /root/seen 2>&1 & true")
    ops(stack, "backup", "run", "--full", "--yes")
    time.sleep(2)
    for place in (
        "/root/seen", "/var/log", "/var/lib/rackhand", "/etc/rackhand/backup.json", "/etc/systemd",
    ):  # fmt: skip
        found = stack.lab.ssh("node1", f"grep -rlF {secret} {place} 2>/dev/null || true")
        assert found == "", found
    journal = stack.lab.ssh("node1", f"journalctl --no-pager | grep -cF {secret} || true")
    assert journal == "0"
    assert "pgbackrest" in stack.lab.ssh("node1", "cat /root/seen")


def test_its_units_are_sandboxed(stack: Stack) -> None:
    for unit in UNITS:
        told = stack.lab.ssh(
            "node1", f"systemd-analyze security {unit}.service --no-pager | tail -1"
        )
        assert float(told.split("service:")[1].split()[0]) <= 2.0, told


def test_the_checks_of_backups_pass(stack: Stack) -> None:
    ops(stack, "verify", "backup", "postgres")
