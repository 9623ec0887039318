"""What backups promise: scheduled, encrypted, proven, and closed to others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host as Connection

from ops.fleet import Fleet, Host
from ops.verify.probes import ask, assert_access, assert_unit_runs

GROUPS = ("data",)
CONFIG = "/etc/rackhand/backup.json"
STREAM = "/etc/rackhand/wal_stream.json"


@pytest.fixture(scope="module")
def config(host: Connection) -> dict[str, Any]:
    """How backups are set up; where they are off there is nothing to prove."""
    if not host.file(CONFIG).exists:
        pytest.skip("backup_repository is off")
    found: dict[str, Any] = json.loads(ask(host, "cat %s", CONFIG))
    return found


@pytest.fixture(scope="module")
def stanza(host: Connection, config: dict[str, Any]) -> dict[str, Any]:
    """What the repository has, as the data host sees it."""
    command = f"runuser -u postgres -- pgbackrest --stanza={config['stanza']} info --output=json"
    found: list[dict[str, Any]] = json.loads(ask(host, command))
    assert found, "the repository has no stanza\ncure: ops provision --tags backup"
    return found[0]


def test_backups_are_scheduled(
    host: Connection, config: dict[str, Any], fleet: Fleet, target: Host
) -> None:
    timers = ["rackhand-backup-verify.timer", "rackhand-backup-files.timer"]
    for timer in timers + (["rackhand-backup.timer"] if config["repository_here"] else []):
        assert_unit_runs(host, timer)


def test_the_repository_is_encrypted(stanza: dict[str, Any]) -> None:
    assert stanza["cipher"] == "aes-256-cbc"


def test_the_repository_is_of_this_cluster(host: Connection, stanza: dict[str, Any]) -> None:
    query = "SELECT system_identifier FROM pg_control_system()"
    system = int(ask(host, "runuser -u postgres -- psql -XAtc %s", query))
    known = [entry["system-id"] for entry in stanza["db"]]
    assert system in known, "it has another cluster's backups\ncure: ops restore"


def test_wal_is_archived(host: Connection, stanza: dict[str, Any]) -> None:
    query = "SELECT current_setting('archive_mode') || ' ' || current_setting('archive_command')"
    said = ask(host, "runuser -u postgres -- psql -XAtc %s", query)
    assert said.startswith("on ") and "pgbackrest" in said, said
    # A single failure is tried again within a minute: as the alert WalArchivingFails has it.
    failing = (
        "SELECT count(*) FROM pg_stat_archiver WHERE last_failed_time > "
        "coalesce(last_archived_time, '-infinity') AND coalesce(last_archived_time, "
        "pg_postmaster_start_time()) < now() - interval '10 minutes'"
    )
    assert ask(host, "runuser -u postgres -- psql -XAtc %s", failing) == "0", (
        "WAL cannot be archived\ncure: ops backup list says why"
    )


def test_commits_wait_for_the_host_that_receives_wal(host: Connection) -> None:
    if not host.file(STREAM).exists:
        pytest.skip("wal_stream_enabled is off")
    assert_unit_runs(host, "rackhand-wal-guard.service")
    query = (
        "SELECT string_agg(sync_state, ' ') FROM pg_stat_replication "
        "WHERE application_name = 'rackhand_wal'"
    )
    assert ask(host, "runuser -u postgres -- psql -XAtc %s", query) == "sync", (
        "the host that receives WAL is away\ncure: docs/runbooks/WalStreamDown.md"
    )


def test_the_passphrase_is_for_those_who_need_it(host: Connection) -> None:
    path = "/etc/rackhand/credentials/backup/passphrase"
    assert_access(host, path, "root", "root", 0o600)
    assert_access(host, "/etc/pgbackrest/conf.d/rackhand-secrets.conf", "root", "postgres", 0o640)


def test_the_last_proof_was_good(host: Connection, config: dict[str, Any]) -> None:
    page = host.file(f"{config['state']}/backup_verify.prom")
    told = page.content_string if page.exists else ""
    if not told.strip():
        pytest.skip("no proof was due yet")
    assert "rackhand_backup_verify_success 1.0" in told, (
        "the newest backup failed its proof\ncure: journalctl -u rackhand-backup-verify"
    )
