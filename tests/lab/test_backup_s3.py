"""Backups in an S3 service of the site: of the database by pgBackRest, of files by restic.

The service is OpenStack Swift, over TLS with a CA that only the role gives the host.
"""

import json
from collections.abc import Callable, Iterator

import pytest
from object_store import BUCKET, ENDPOINT, KEY, REGION, kept_objects, serve_objects
from operators import ops, ops_told
from stack import Lab, Stack, run_site
from stand_in_stack import assert_site_changes_nothing, stand_in_stack
from test_backup import (
    back_up_unseen,
    destroy,
    listing,
    passphrase,
    prove,
    say,
    stored_inventory,
    threads,
    undo_a_delete,
    wait_for_backup,
    write,
)

from ops.lab import outside
from ops.lab.fleet_plan import require_plan

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(2400)]

SECRET = "the-secret-of-the-key-of-the-bucket"
MARKED = "the grebe that nobody may read"
RESTIC = "/usr/local/lib/rackhand/backup restic --quiet"


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Iterator[Stack]:
    purpose = "backup-s3"
    lab = labs(1, "bookworm", purpose=purpose)
    serve_objects(lab, SECRET)
    ca = require_plan(lab.name).paths.authority / outside.CA_FILE
    more = (
        f"backup_repository: s3\nbackup_s3_endpoint: {ENDPOINT}\nbackup_s3_bucket: {BUCKET}\n"
        f"backup_s3_region: {REGION}\nbackup_s3_key: {KEY}\nbackup_s3_key_secret: {SECRET}\n"
        f"backup_s3_ca_file: {ca}\nbackup_retention_full: 1\n"
    )
    with stand_in_stack(labs, more=more, purpose=purpose) as made:
        yield made


def stored(stack: Stack, folder: str) -> list[str]:
    """What pgBackRest has in a folder of the repository."""
    return stack.lab.ssh("node1", f"sudo -u postgres pgbackrest repo-ls {folder}").split()


def test_the_first_backup_is_in_the_bucket_and_the_second_run_changes_nothing(
    stack: Stack,
) -> None:
    wait_for_backup(stack)
    found = listing(stack)
    assert (found["repository"], found["ours"]) == ("the S3 repository", True)
    assert stored(stack, "archive/rackhand/15-1")
    assert_site_changes_nothing(stack)
    ops(stack, "verify", "backup", "postgres")


def test_a_wrong_delete_is_undone_out_of_s3(stack: Stack) -> None:
    undo_a_delete(stack, "one host, S3")


def test_a_backup_in_s3_is_proven(stack: Stack) -> None:
    prove(stack, "one host, S3")


def test_a_full_backup_ends_the_one_of_before(stack: Stack) -> None:
    (before,) = [one["label"] for one in listing(stack)["backups"]]
    ops(stack, "backup", "run", "--full", "--yes")
    (after,) = [one["label"] for one in listing(stack)["backups"]]
    kept = stored(stack, "backup/rackhand")
    assert after in kept
    assert before not in kept
    stack.lab.ssh("node1", f"{RESTIC} check")


def test_files_and_the_inventory_are_in_s3_too(stack: Stack) -> None:
    assert f"{stack.lab.inventory.name}/.secrets/fleet.vault" in stored_inventory(stack)
    found = json.loads(stack.lab.ssh("node1", f"{RESTIC} snapshots --json"))
    assert {one["hostname"] for one in found} == {"node1", "control"}


def test_nothing_in_the_bucket_can_be_read(stack: Stack) -> None:
    say(stack, MARKED)
    ops(stack, "backup", "run", "--full", "--yes")
    found = kept_objects(stack.lab, MARKED)
    assert found.pop("salted") > 0
    assert set(found.values()) == {0}, found


def test_no_one_sees_the_key_of_the_bucket_or_the_passphrase(stack: Stack) -> None:
    for secret in (SECRET, passphrase(stack)):
        back_up_unseen(stack, secret)
    files = "/etc/rackhand/credentials/backup/s3.json /etc/pgbackrest/conf.d/rackhand-secrets.conf"
    told = stack.lab.ssh("node1", f"stat -c '%a %U %G' {files}").splitlines()
    assert told == ["600 root root", "640 root postgres"]


def test_a_destroyed_host_comes_back_out_of_s3(stack: Stack) -> None:
    thread = say(stack, "before the fire")
    ops(stack, "backup", "run", "--yes")
    destroy(stack, "node1")
    site = run_site(stack.lab)
    assert site.status == 0, site.output[-5000:]
    assert "backups of another PostgreSQL cluster" in site.output
    said = ops_told(stack, "restore", "--yes")
    assert thread in threads(stack)
    assert run_site(stack.lab).status == 0
    stack.wait_until_ready()
    assert_site_changes_nothing(stack)
    write(("one host, S3: a fresh host restored, whole operation", f"{said.took:.1f} s"))
