"""The fleet's secrets: encrypted where they lie, replaced under load, whoever dies meanwhile."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkouts import another_checkout, hand_over
from operators import ops, ops_until
from stack import Lab, Stack, run_site
from stand_in_stack import assert_site_changes_nothing, stand_in_stack
from traffic import Traffic, traffic

from ops.secrets.store import used
from ops.secrets.vault import read_secrets, store_of, told

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(1200)]

ROTATED = ("database_agent_app", "database_owner", "redis_agent_app", "redis_reloader")
PING = (
    "REDISCLI_AUTH={password} redis-cli --no-auth-warning --user agent_app -h {address} -p 6379 "
    "{tls} exists x"
)
LOGIN = (
    "PGPASSWORD={password} psql 'host={address} user={user} dbname=rackhand sslmode={mode} "
    "connect_timeout=5' -XAtc 'SELECT session_user, current_user'"
)


@pytest.fixture(scope="module", params=[1, 3], ids=["one host", "three hosts"])
def stack(request: pytest.FixtureRequest, labs: Callable[..., Lab]) -> Iterator[Stack]:
    with stand_in_stack(labs, hosts=request.param) as made:
        yield made


def values(stack: Stack) -> dict[str, str]:
    return {name: used(entry) for name, entry in read_secrets(stack.lab.inventory).items()}


def assert_nothing_was_lost(running: Traffic, least: int) -> None:
    assert running.failures == [], running.told()
    assert len(running.answers) >= least, running.told()
    print(running.told())


def redis(stack: Stack, password: str) -> str:
    host = stack.fleet.first("data")
    tls = "" if stack.fleet.single else "--tls --cacert /etc/rackhand/tls/ca.crt"
    address = stack.fleet.listen_address(host)
    return stack.lab.ssh(
        host.name, PING.format(password=password, address=address, tls=tls) + " 2>&1"
    )


def login(stack: Stack, user: str, password: str) -> str:
    host = stack.fleet.first("data")
    address, mode = stack.fleet.listen_address(host), "disable" if stack.fleet.single else "require"
    command = LOGIN.format(password=password, address=address, user=user, mode=mode)
    return stack.lab.ssh(host.name, command + " 2>&1", check=False)


def test_they_lie_encrypted_and_nothing_is_made_anew_without_the_password(
    stack: Stack, tmp_path: Path
) -> None:
    folder = stack.lab.inventory / ".secrets"
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "fleet.vault"]
    before = (folder / "fleet.vault").read_bytes()
    wrong = tmp_path / "wrong"
    wrong.write_text("another password\n")
    command = ["ansible-playbook", "-i", str(stack.lab.inventory), "playbooks/site.yml"]
    done = subprocess.run(
        command, cwd=stack.lab.checkout, capture_output=True, text=True, timeout=300,
        env={**stack.lab.environment, "ANSIBLE_VAULT_PASSWORD_FILE": str(wrong)},
    )  # fmt: skip
    assert done.returncode != 0
    assert "no vault password that is given opens" in done.stdout + done.stderr
    assert (folder / "fleet.vault").read_bytes() == before
    for words in (["secrets", "list"], ["status"]):
        told = subprocess.run(
            ["ops", *words, "-i", str(stack.lab.inventory)],
            capture_output=True, text=True, timeout=120, cwd=stack.lab.checkout,
            env={**os.environ, "ANSIBLE_VAULT_PASSWORD_FILE": str(wrong)},
        )  # fmt: skip
        if words == ["secrets", "list"]:
            assert told.returncode == 2
            assert "docs/secrets.md" in told.stderr


def test_clear_files_of_an_older_checkout_are_taken_in_and_the_hosts_stay_as_they_are(
    stack: Stack,
) -> None:
    folder, before = stack.lab.inventory / ".secrets", values(stack)
    with told(), store_of(stack.lab.inventory).changing() as entries:
        for name in before:
            if not name.startswith("backup_"):  # an older checkout knew no backups
                del entries[name]
    for name, value in before.items():
        if name not in entries and name != "redis_reloader":
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(value if name.startswith(("tls/", "remediator_ssh")) else f"{value}\n")
    again = run_site(stack.lab, "--diff")
    assert again.status == 0, again.output[-5000:]
    after = values(stack)
    assert {n: v for n, v in after.items() if n != "redis_reloader"} == {
        n: v for n, v in before.items() if n != "redis_reloader"
    }
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "fleet.vault"]
    assert_site_changes_nothing(stack)


def test_a_run_with_another_passphrase_of_backups_leaves_the_one_that_opens_them(
    stack: Stack,
) -> None:
    host, show = stack.fleet.first("data").name, "cat /etc/rackhand/credentials/backup/passphrase"
    before = stack.lab.ssh(host, show)
    done = run_site(stack.lab, "-e", "backup_passphrase=another-one", "--tags", "backup")
    assert done.status != 0
    assert "and open with no other" in done.output.replace("\n", " ")
    assert stack.lab.ssh(host, show) == before
    assert before not in done.output


def test_all_are_replaced_under_load_and_no_request_fails(stack: Stack) -> None:
    before = values(stack)
    key = stack.key
    with traffic(stack) as running:
        running.wait_for(20)
        said = ops(stack, "secrets", "rotate", "--yes")
        running.mark("afterwards")
        running.wait_for(20)
    assert_nothing_was_lost(running, least=100)
    after = values(stack)
    assert not [name for name in ROTATED if before[name] == after[name]]
    assert before["audit_secret"] == after["audit_secret"]
    assert not [v for v in (*before.values(), *after.values()) if v in said.output]
    assert redis(stack, after["redis_agent_app"]) == "0"
    assert "WRONGPASS" in redis(stack, before["redis_agent_app"])
    logins = {user: login(stack, user, after["database_agent_app"])
              for user in ("agent_app", "agent_app_b")}  # fmt: skip
    (open_one,) = [user for user, said in logins.items() if said == f"{user}|agent_app"]
    for user in logins:
        assert "failed" in login(stack, user, before["database_agent_app"])
    print(f"the app logs in as {open_one}")
    stack.key = key  # hashed anew while it was used
    stack.wait_until_ready()
    assert_site_changes_nothing(stack)
    assert ops(stack, "verify").status == 0


SHOWS = (
    "openssl s_client {start} -connect {address} -CAfile /etc/rackhand/tls/ca.crt "
    "-verify_return_error </dev/null 2>&1 | grep 'Verify return code'"
)


def assert_all_trust_and_show(stack: Stack, ca: str) -> None:
    """This CA is the only one that hosts trust, and what they show is of it."""
    for host in stack.fleet.hosts:
        assert stack.lab.ssh(host.name, "cat /etc/rackhand/tls/ca.crt") == ca.strip()
        stack.lab.ssh(
            host.name,
            "openssl verify -CAfile /etc/rackhand/tls/ca.crt /etc/rackhand/tls/host.crt",
        )
    data = stack.fleet.listen_address(stack.fleet.first("data"))
    engine = stack.fleet.listen_address(stack.fleet.first("gpu"))
    for start, address in (
        ("-starttls postgres", f"{data}:5432"), ("", f"{data}:6379"), ("", f"{data}:6380"),
        ("", f"{engine}:8000"),
    ):  # fmt: skip
        said = stack.lab.ssh("node1", SHOWS.format(start=start, address=address))
        assert "0 (ok)" in said, (address, said)


def test_the_ca_and_all_certificates_are_replaced_under_load_and_no_request_fails(
    stack: Stack,
) -> None:
    if stack.fleet.single:
        said = ops(stack, "secrets", "rotate", "tls", "--yes", status=2)
        assert "no secret tls" in said.output
        return
    before = values(stack)
    with traffic(stack) as running:
        running.wait_for(20)
        ops(stack, "secrets", "rotate", "tls", "--yes")
        running.mark("afterwards")
        running.wait_for(20)
    assert_nothing_was_lost(running, least=50)
    after = values(stack)
    assert not [n for n in before if n.startswith("tls/") and before[n] == after[n]]
    assert_all_trust_and_show(stack, after["tls/ca.crt"])
    assert_site_changes_nothing(stack)
    ops(stack, "backup", "run", "--yes")  # the hosts of backups trust each other
    assert ops(stack, "verify").status == 0


def die_and_be_followed(
    stack: Stack, folder: Path, how: str, *names: str, dies: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Die under load in a rotation, have another checkout go on or back; return values by name.

    Args:
        stack: The stack.
        folder: Of the other checkout.
        how: `resume` or `abort`.
        names: The secrets; none means all.
        dies: After the first step of this kind that is done once the next values are shown.
    """
    before, stages = values(stack), 0

    def now(event: dict[str, Any]) -> bool:
        nonlocal stages
        done = event["event"] == "done"
        stages += done and event["kind"] == "secrets.stage"
        return stages == 2 and done and event["kind"] == dies

    with traffic(stack, clients=4) as running:
        died = ops_until(stack, "secrets", "rotate", *names, "--yes", dies=now)
        assert died.status == -9
        other = another_checkout(stack, folder)
        ops(other, how, *(("--yes",) if how == "abort" else ()))
    assert_nothing_was_lost(running, least=20)
    hand_over(other, stack)
    return before, values(stack)


@pytest.mark.parametrize("how", ["abort", "resume"])
def test_an_operator_who_dies_with_two_cas_is_followed_by_another(
    stack: Stack, tmp_path: Path, how: str
) -> None:
    if stack.fleet.single:
        pytest.skip("one host: nothing crosses hosts")
    before, after = die_and_be_followed(stack, tmp_path, how, "tls", dies="secrets.stage")
    assert (before["tls/ca.crt"] == after["tls/ca.crt"]) == (how == "abort")
    assert_all_trust_and_show(stack, after["tls/ca.crt"])
    assert_site_changes_nothing(stack)


@pytest.mark.parametrize("how", ["resume", "abort"])
def test_an_operator_who_dies_is_followed_by_another_and_no_request_fails(
    stack: Stack, tmp_path: Path, how: str
) -> None:
    before, after = die_and_be_followed(stack, tmp_path, how, dies="app.cycle")
    changed = [name for name in ROTATED if before[name] != after[name]]
    assert changed == (list(ROTATED) if how == "resume" else [])
    assert_site_changes_nothing(stack)
