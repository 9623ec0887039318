from __future__ import annotations

import configparser
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rendering import BOOKWORM, JAMMY, TRIXIE, Role

SECRET = "a-passphrase"
FLEET = {
    "inventory_hostname": "data",
    "backup_passphrase": SECRET,
    "backup_repository_host": "watch",
    "backup_repository_address": "10.0.0.14",
    "backup_postgres_host": "data",
    "backup_postgres_address": "10.0.0.13",
    "backup_listen_address": "10.0.0.13",
    "backup_ssh_key": "a-private-key",
    "backup_files_paths": ["/var/lib/rackhand/operations"],
}
S3 = {
    "backup_repository": "s3",
    "backup_postgres_here": True,
    "backup_s3_endpoint": "s3.example.com:9000",
    "backup_s3_bucket": "bucket",
    "backup_s3_key": "access",
    "backup_s3_key_secret": "a-secret-key",
    "backup_s3_region": "eu-1",
}


def backup(facts: dict[str, str] = BOOKWORM, **variables: Any) -> Role:
    return Role("backup", facts, **{**FLEET, "backup_repository": "posix", **variables})


def conf(role: Role) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(delimiters=("=",), strict=True)
    parser.read_string(role.render("pgbackrest.conf.j2"))
    return parser


def data_host(**variables: Any) -> Role:
    return backup(backup_repository="host", backup_postgres_here=True, **variables)


def repository_host(**variables: Any) -> Role:
    return backup(backup_repository="host", backup_repository_here=True, **variables)


def test_a_folder_of_the_data_host_is_encrypted_pruned_and_needs_no_server() -> None:
    found = conf(backup(backup_postgres_here=True, backup_retention_full=3))
    assert found["global"]["repo1-cipher-type"] == "aes-256-cbc"
    assert found["global"]["repo1-retention-full"] == "3"
    assert found["rackhand"]["pg1-path"] == "/var/lib/postgresql/15/main"
    assert "tls-server-address" not in found["global"]


def test_the_version_is_the_one_that_the_distribution_packages() -> None:
    found = conf(backup(TRIXIE, backup_postgres_here=True))
    assert found["rackhand"]["pg1-path"] == "/var/lib/postgresql/17/main"


def test_an_old_release_gets_no_option_that_it_refuses() -> None:
    found = conf(backup(JAMMY, backup_postgres_here=True))
    assert found["rackhand"]["pg1-path"] == "/var/lib/postgresql/14/main"
    assert "repo1-bundle" not in found["global"]
    assert "repo1-bundle" in conf(backup(backup_postgres_here=True))["global"]


def test_the_data_host_reaches_the_repository_over_tls_and_lets_only_it_in() -> None:
    found = conf(data_host())["global"]
    assert (found["repo1-host"], found["repo1-host-type"]) == ("watch", "tls")
    assert found["tls-server-auth"] == "watch=rackhand"
    assert "repo1-cipher-type" not in found


def test_the_host_of_the_repository_lets_only_the_data_host_in() -> None:
    found = conf(repository_host())
    assert found["global"]["tls-server-auth"] == "data=rackhand"
    assert "repo1-host" not in found["global"]
    assert (found["rackhand"]["pg1-host"], found["rackhand"]["pg1-host-type"]) == ("data", "tls")


def test_an_s3_repository_has_its_endpoint_and_its_own_ca() -> None:
    found = conf(backup(**S3))["global"]
    assert found["repo1-type"] == "s3"
    assert found["repo1-s3-endpoint"] == "s3.example.com:9000"
    assert found["repo1-s3-region"] == "eu-1"
    assert "repo1-storage-ca-file" not in found


def test_an_s3_repository_trusts_the_ca_that_the_role_lays_down(tmp_path: Path) -> None:
    (tmp_path / "own.pem").write_text("a CA\n")
    role = backup(**S3, backup_s3_ca_file=str(tmp_path / "own.pem"))
    (entry,) = [one for one in role.value("__backup_files_every") if "a CA" in str(one)]
    assert conf(role)["global"]["repo1-storage-ca-file"] == entry["path"]
    assert role.value("__backup_files_options")[-2:] == ["--cacert", entry["path"]]


@pytest.mark.parametrize(("style", "lookup"), [("path", "path"), ("host", "dns")])
def test_files_go_to_the_same_region_and_address_of_s3_as_the_database(
    style: str, lookup: str
) -> None:
    role = backup(**S3, backup_s3_uri_style=style)
    assert role.value("__backup_files_options") == [
        "-o", "s3.region=eu-1", "-o", f"s3.bucket-lookup={lookup}",
    ]  # fmt: skip
    assert conf(role)["global"]["repo1-s3-uri-style"] == style


@pytest.mark.parametrize("role", [backup(backup_postgres_here=True), repository_host()])
def test_the_passphrase_is_in_the_file_of_secrets_and_in_no_other(role: Role) -> None:
    assert SECRET not in role.render("pgbackrest.conf.j2")
    assert SECRET not in str(role.value("__backup_config"))
    assert f"repo1-cipher-pass={SECRET}" in role.render("secrets.conf.j2")


def test_the_data_host_of_a_repository_elsewhere_has_no_key_to_it() -> None:
    assert SECRET not in data_host().render("secrets.conf.j2")


def test_s3_keys_are_secrets() -> None:
    role = backup(**S3)
    assert "a-secret-key" not in role.render("pgbackrest.conf.j2")
    assert "repo1-s3-key-secret=a-secret-key" in role.render("secrets.conf.j2")
    names = [one["name"] for one in role.value("__backup_credentials") if one["wanted"]]
    assert names == ["s3.json"]


def test_a_passphrase_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    here = "/etc/rackhand/credentials/backup/passphrase"
    (entry,) = [one for one in backup().value("__backup_files_every") if one["path"] == here]
    there = tmp_path / "passphrase"
    words = shlex.split(entry["validate"].replace(here, str(there)))
    assert subprocess.run(words, check=False).returncode == 0, "the first one is taken"
    there.write_text("the one that opens them")
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "bring back the .secrets/fleet.vault" in done.stdout


def timers(role: Role) -> list[str]:
    return [unit["name"] for unit in role.value("__backup_units")]


def test_each_host_has_the_timers_of_what_it_does() -> None:
    every = ["rackhand-backup.timer", "rackhand-backup-verify.timer", "rackhand-backup-files.timer"]
    assert timers(backup(backup_postgres_here=True)) == every
    server = "rackhand-backup-server.service"
    assert timers(data_host()) == [server, *every[1:]]
    assert timers(repository_host(backup_files_paths=[])) == [server, *every[:2]]
    assert timers(backup(backup_repository="host")) == [every[2]]


def test_files_go_over_sftp_with_a_key_of_their_own_to_the_repositorys_host() -> None:
    found = data_host(backup_repository_ssh_port=2222).value("__backup_config")
    assert found["files"]["repository"] == "sftp:watch:/var/lib/backup_files/files"
    command = found["files"]["options"][1]
    assert "backup_files@10.0.0.14 -s sftp" in command
    assert "-p 2222" in command and "StrictHostKeyChecking=yes" in command
    assert found["repository_host"] == "watch"


def test_the_lock_of_operations_is_not_backed_up() -> None:
    found = backup(backup_postgres_here=True).value("__backup_config")["files"]["exclude"]
    assert "/var/lib/rackhand/operations/open.json" in found


def test_commands_of_the_last_task_are_those_of_the_host() -> None:
    words = backup(backup_postgres_here=True).value("__backup_begin")
    assert "backup prepare" in words and "rackhand-backup-files.service" in words
    assert "prepare" not in data_host().value("__backup_begin")


def test_accounts_exist_where_they_are_needed() -> None:
    assert [one["name"] for one in repository_host().value("__backup_users")] == [
        "postgres", "backup_files",
    ]  # fmt: skip
    assert backup(backup_postgres_here=True).value("__backup_users") == []


@pytest.mark.parametrize(
    "unit",
    ["rackhand-backup@.service", "rackhand-backup-verify.service", "rackhand-backup-files.service",
     "rackhand-backup-server.service"],
)  # fmt: skip
def test_units_are_hardened_and_get_no_secret_by_argument(unit: str) -> None:
    text = data_host().render(f"host/etc/systemd/system/{unit}.j2")
    assert "NoNewPrivileges=true" in text
    assert SECRET not in text
    start = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    assert start.startswith(("ExecStart=/usr/local/lib/rackhand/backup ", "ExecStart=/usr/bin/"))


LISTS = (
    "__backup_files_every", "__backup_files_cluster", "__backup_files_server",
    "__backup_files_store", "__backup_files_pages", "__backup_files_of_hosts",
)  # fmt: skip


@pytest.mark.parametrize(
    "role", [backup(backup_postgres_here=True), data_host(), repository_host(), backup(**S3)]
)
def test_what_is_laid_down_has_a_source_and_a_mode_that_hides_secrets(role: Role) -> None:
    for name in LISTS:
        for entry in role.value(name):
            known = {"content", "copy", "link", "state"} & set(entry)
            template = entry.get("template") or f"host{entry['path']}.j2"
            there = (role.folder / "templates" / template).exists()
            assert known or there, entry
            if entry.get("sensitive"):
                assert entry["mode"] in ("0600", "0640")


def test_no_unit_of_the_account_postgres_takes_its_shared_memory_away() -> None:
    for path in (data_host().folder / "templates/host/etc/systemd/system").glob("*.service.j2"):
        text = data_host().render(f"host/etc/systemd/system/{path.name}")
        if "User=postgres" in text:
            said = [line for line in text.splitlines() if line.startswith("RemoveIPC=")]
            assert said[-1] == "RemoveIPC=false", path.name


def test_the_key_of_the_repositorys_host_is_known_by_its_address() -> None:
    from base64 import b64encode

    key = {"content": b64encode(b"ssh-ed25519 AAAA root@watch\n").decode()}
    role = data_host(__backup_host_key=key)
    assert role.value("__backup_known_host") == "10.0.0.14 ssh-ed25519 AAAA"
    other = data_host(__backup_host_key=key, backup_repository_ssh_port=2222)
    assert other.value("__backup_known_host") == "[10.0.0.14]:2222 ssh-ed25519 AAAA"
