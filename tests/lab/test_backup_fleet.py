"""The data host of a fleet is destroyed under load; a fresh one gets everything back."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from acknowledged import Acknowledged, chatting
from operators import ops, ops_told
from stack import Lab, Stack, run_site, until
from stand_in_stack import assert_site_changes_nothing, stand_in_stack
from test_backup import destroy, listing, write

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Iterator[Stack]:
    with stand_in_stack(labs, hosts=3, purpose="backup") as made:
        yield made


def test_the_repository_is_on_another_host_and_the_second_run_changes_nothing(
    stack: Stack,
) -> None:
    wait_for_backup_of(stack)
    assert listing(stack)["repository"] == "node2:/var/lib/pgbackrest"
    assert_site_changes_nothing(stack)
    said = ops(stack, "backup", "verify", "--json")
    assert {proof["host"] for proof in json.loads(said.output)["hosts"]} == {"node2", "node3"}
    ops(stack, "verify", "backup")


def wait_for_backup_of(stack: Stack) -> None:
    until(lambda: bool(listing(stack)["backups"]), 180)


@dataclass(frozen=True)
class Return:
    """A data host that was destroyed, and came back.

    Attributes:
        clients: Who chatted until then.
        destroyed: When (Unix time).
        end: What `ops restore` said last.
        operation_s: How long it took.
        ready_s: From fresh files to the app ready, site.yml included.
    """

    clients: Acknowledged
    destroyed: float
    end: dict[str, Any]
    operation_s: float
    ready_s: float

    @property
    def point(self) -> float:
        """The moment of the last transaction that is back."""
        return float(self.end["recovered_to"])


def destroy_and_restore(stack: Stack, under_load: Callable[[Acknowledged], None]) -> Return:
    with chatting(stack) as clients:
        clients.wait_for(10)
        under_load(clients)
        destroyed = time.time()
        destroy(stack, "node3")
        began = time.monotonic()
    site = run_site(stack.lab)
    assert site.status == 0, site.output[-5000:]
    assert "backups of another PostgreSQL cluster" in site.output
    said = ops_told(stack, "restore", "--yes")
    end = said.events[-1]
    assert end["event"] == "restored"
    stack.wait_until_ready()
    return Return(clients, destroyed, end, said.took, time.monotonic() - began)


def test_a_destroyed_data_host_comes_back_with_all_that_was_archived(stack: Stack) -> None:
    keys = stack.sql("SELECT count(*) FROM app.api_keys")

    def archive(clients: Acknowledged) -> None:
        ops(stack, "backup", "run", "--yes")
        clients.wait_for(20)
        time.sleep(65)  # postgres_archive_timeout: what came before is archived by now
        clients.wait_for(10)

    found = destroy_and_restore(stack, archive)
    acknowledged, present = found.clients.threads, found.clients.present()
    owed = {thread for thread, at in acknowledged.items() if at <= found.point}
    assert owed <= present, f"{len(owed - present)} acknowledged before the recovery point are gone"
    age = found.destroyed - found.point
    assert age <= 65, f"the recovery point is {age:.0f} s old"
    assert stack.sql("SELECT count(*) FROM app.api_keys") == keys
    history = json.loads(ops(stack, "history", "--json").output)["operations"]
    assert {"backup run", "restore"} <= {found["verb"] for found in history}
    again = run_site(stack.lab)
    assert again.status == 0, again.output[-5000:]
    assert_site_changes_nothing(stack)
    write(
        ("three hosts: acknowledged until the destruction", str(len(acknowledged))),
        ("three hosts: of those up to the recovery point, missing", str(len(owed - present))),
        ("three hosts: acknowledged after it, lost with the host",
         str(len(set(acknowledged) - present))),
        ("three hosts: recovery point before the destruction", f"{age:.1f} s"),
        ("three hosts: `ops restore`, whole operation", f"{found.operation_s:.1f} s"),
        ("three hosts: of it the database restored and recovered",
         f"{found.end['seconds']:.1f} s"),
        ("three hosts: from fresh files to the app ready, site.yml included",
         f"{found.ready_s:.0f} s"),
    )  # fmt: skip
    wait_for_backup_of(stack)


COMMIT = "SELECT pg_logical_emit_message(true, 'test', 'a commit that writes')"


def synchronous(stack: Stack) -> bool:
    found = stack.sql(
        "SELECT count(*) FROM pg_stat_replication "
        "WHERE application_name = 'rackhand_wal' AND sync_state = 'sync'"
    )
    return found.strip() == "1"


def test_commits_wait_for_the_second_host_and_go_on_without_it_when_it_falls_silent(
    stack: Stack,
) -> None:
    all_vars = stack.lab.inventory / "group_vars/all.yml"
    all_vars.write_text(all_vars.read_text() + "wal_stream_enabled: true\n")
    site = run_site(stack.lab)
    assert site.status == 0, site.output[-5000:]
    assert_site_changes_nothing(stack)
    until(lambda: synchronous(stack), 30)
    ops(stack, "verify", "backup")
    receiver = "rackhand-wal-receiver.service"
    with chatting(stack) as clients:
        clients.wait_for(10)
        stack.lab.ssh("node2", f"systemctl kill -s STOP {receiver}")
        began = time.monotonic()
        stack.sql(COMMIT)
        held = time.monotonic() - began
        assert held < 15, f"a commit was held up for {held:.1f} s"
        clients.wait_for(10)
        page = stack.lab.ssh("node3", "cat /var/lib/rackhand/metrics/wal_stream.prom")
        assert "rackhand_wal_stream_synchronous 0.0" in page
        stack.lab.ssh("node2", f"systemctl kill -s CONT {receiver}")
        until(lambda: synchronous(stack), 30)
        clients.wait_for(10)
    write(
        ("three hosts, streamed: a commit held up when the receiver falls silent", f"{held:.1f} s")
    )


def test_a_destroyed_data_host_whose_commits_waited_loses_nothing(stack: Stack) -> None:
    until(lambda: synchronous(stack), 30)
    found = destroy_and_restore(stack, lambda clients: clients.wait_for(40))
    acknowledged, present = found.clients.threads, found.clients.present()
    missing = set(acknowledged) - present
    assert not missing, f"{len(missing)} of {len(acknowledged)} acknowledged are gone"
    until(lambda: synchronous(stack), 60)
    again = run_site(stack.lab)
    assert again.status == 0, again.output[-5000:]
    assert_site_changes_nothing(stack)
    write(
        ("three hosts, streamed: acknowledged until the destruction", str(len(acknowledged))),
        ("three hosts, streamed: of those missing", str(len(missing))),
        ("three hosts, streamed: recovery point before the destruction",
         f"{found.destroyed - found.point:.1f} s"),
        ("three hosts, streamed: `ops restore`, whole operation", f"{found.operation_s:.1f} s"),
        ("three hosts, streamed: from fresh files to the app ready, site.yml included",
         f"{found.ready_s:.0f} s"),
    )  # fmt: skip
