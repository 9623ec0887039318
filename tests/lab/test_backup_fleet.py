"""The data host of a fleet is destroyed under load; a fresh one gets everything back."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from acknowledged import chatting
from operators import ops, ops_told
from results import add_to_result
from stack import Lab, Stack, run_site
from stand_in_stack import assert_site_changes_nothing, stand_in_stack
from test_backup import HEADINGS, listing

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(2400)]

NOTES = (
    "Labs of the stand-in engine. Acknowledged: the client saw the closing event. "
    "The recovery point is the last transaction that is back, as `ops restore` states it."
)


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Iterator[Stack]:
    with stand_in_stack(labs, hosts=3, purpose="backup") as made:
        yield made


def destroy(stack: Stack, host: str) -> None:
    """Cut its power, and give it the files of a fresh machine."""
    for words in (["kill", host], ["reset", host]):
        subprocess.run(
            ["ops", "lab", *words, "--name", stack.lab.name],
            check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=300,
        )  # fmt: skip


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
    deadline = time.monotonic() + 180
    while not listing(stack)["backups"]:
        assert time.monotonic() < deadline
        time.sleep(2)


def test_a_destroyed_data_host_comes_back_with_all_that_was_acknowledged(stack: Stack) -> None:
    keys = stack.sql("SELECT count(*) FROM app.api_keys")
    with chatting(stack) as clients:
        clients.wait_for(10)
        ops(stack, "backup", "run", "--yes")
        clients.wait_for(20)
        time.sleep(65)  # postgres_archive_timeout: what came before is archived by now
        clients.wait_for(10)
        destroyed = time.time()
        destroy(stack, "node3")
        began = time.monotonic()
    site = run_site(stack.lab)
    assert site.status == 0, site.output[-5000:]
    assert "backups of another PostgreSQL cluster" in site.output
    said = ops_told(stack, "restore", "--yes")
    end = said.events[-1]
    assert end["event"] == "restored"
    point = float(end["recovered_to"])
    present = clients.present()
    owed = {thread for thread, at in clients.threads.items() if at <= point}
    lost = set(clients.threads) - present
    assert owed <= present, f"{len(owed - present)} acknowledged before the recovery point are gone"
    assert destroyed - point <= 65, f"the recovery point is {destroyed - point:.0f} s old"
    assert stack.sql("SELECT count(*) FROM app.api_keys") == keys
    history = json.loads(ops(stack, "history", "--json").output)["operations"]
    assert {"backup run", "restore"} <= {found["verb"] for found in history}
    stack.wait_until_ready()
    took = time.monotonic() - began
    again = run_site(stack.lab)
    assert again.status == 0, again.output[-5000:]
    assert_site_changes_nothing(stack)
    add_to_result(
        "backup", "Backups and restores in the lab", HEADINGS,
        [
            ("three hosts: acknowledged until the destruction", str(len(clients.threads))),
            ("three hosts: of those up to the recovery point, missing", str(len(owed - present))),
            ("three hosts: acknowledged after it, lost with the host", str(len(lost))),
            ("three hosts: recovery point before the destruction", f"{destroyed - point:.1f} s"),
            ("three hosts: `ops restore`, whole operation", f"{said.took:.1f} s"),
            ("three hosts: of it the database restored and recovered", f"{end['seconds']:.1f} s"),
            ("three hosts: from fresh files to the app ready, site.yml included", f"{took:.0f} s"),
        ],
        NOTES,
    )  # fmt: skip
    wait_for_backup_of(stack)
