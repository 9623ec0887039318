"""The encrypted store: made once, taken over from clear files, never made anew."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from ops.places import ROOT
from ops.secrets import store as module
from ops.secrets.store import SecretStore, SecretStoreError, accepted, used

PASSWORD = [("default", VaultSecret(b"a-vault-password"))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".secrets"


def opened(folder: Path, secrets: Any = PASSWORD) -> SecretStore:
    return SecretStore(folder, secrets)


def text_of(folder: Path) -> str:
    text: bytes = VaultLib(PASSWORD).decrypt((folder / "fleet.vault").read_bytes())
    return text.decode()


def test_a_secret_is_made_once_and_lies_encrypted_for_its_owner_alone(folder: Path) -> None:
    first = opened(folder).ensure("redis_agent_app", lambda: "the-first")
    again = opened(folder).ensure("redis_agent_app", lambda: "the-second")
    assert first["value"] == again["value"] == "the-first"
    content = (folder / "fleet.vault").read_bytes()
    assert content.startswith(b"$ANSIBLE_VAULT;1.1;AES256")
    assert b"the-first" not in content
    assert stat.S_IMODE((folder / "fleet.vault").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_ansible_vault_shows_it(folder: Path, tmp_path: Path) -> None:
    opened(folder).ensure("redis_agent_app", lambda: "the-first")
    password = tmp_path / "password"
    password.write_text("a-vault-password\n")
    words = ["ansible-vault", "view", "--vault-password-file", password, folder / "fleet.vault"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(shown.stdout)["redis_agent_app"]["value"] == "the-first"


def clear_files(folder: Path) -> dict[str, str]:
    found = {
        "database_owner": "owner-password",
        "remediator_ssh_key": "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n",
        "tls/ca.crt": "-----BEGIN CERTIFICATE-----\nca\n",
        "tls/ca.key": "-----BEGIN PRIVATE KEY-----\nca\n",
        "tls/node1.key": "-----BEGIN PRIVATE KEY-----\nnode1\n",
    }
    for name, text in found.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "database_owner").write_text("owner-password\n")  # as the password lookup does
    (folder / "tls/.lock").touch()
    return found


def test_clear_files_are_taken_in_and_go(folder: Path) -> None:
    found = clear_files(folder)
    assert {n: e["value"] for n, e in opened(folder).read().items()} == found  # before anything
    opened(folder).ensure("database_owner", lambda: pytest.fail("made anew"))
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "fleet.vault"]
    assert {n: e["value"] for n, e in opened(folder).read().items()} == found


@pytest.mark.parametrize("at", ["before the file", "after the file", "half way"])
def test_a_death_while_they_are_taken_in_loses_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    found = clear_files(folder)

    class DeathError(BaseException):
        pass

    gone: list[Path] = []

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if at == "after the file" or len(gone) == 2:
            raise DeathError
        gone.append(path)
        os.remove(path)  # noqa: PTH107 - Path.unlink is what is replaced

    def never(path: Path, content: bytes) -> None:
        raise DeathError

    with monkeypatch.context() as patch:
        if at == "before the file":
            patch.setattr(module, "_replace", never)
        else:
            patch.setattr(Path, "unlink", unlink)
        with pytest.raises(DeathError):
            opened(folder).ensure("database_owner", lambda: pytest.fail("made anew"))
    assert {n: e["value"] for n, e in opened(folder).read().items()} == found
    opened(folder).ensure("database_owner", lambda: pytest.fail("made anew"))
    assert {n: e["value"] for n, e in opened(folder).read().items()} == found
    assert not (folder / "database_owner").exists()


def test_two_values_of_one_secret_are_refused(folder: Path) -> None:
    opened(folder).ensure("database_owner", lambda: "encrypted-one")
    (folder / "database_owner").write_text("another\n")
    with pytest.raises(SecretStoreError, match="another value"):
        opened(folder).ensure("database_owner", lambda: "third")
    assert (folder / "database_owner").exists()


@pytest.mark.parametrize("secrets", [[], [("default", VaultSecret(b"wrong"))]])
def test_a_wrong_or_missing_vault_password_makes_nothing_anew(folder: Path, secrets: Any) -> None:
    opened(folder).ensure("database_owner", lambda: "the-first")
    before = (folder / "fleet.vault").read_bytes()
    module._READ.clear()  # another process
    for name in ("database_owner", "a_new_one"):
        with pytest.raises(SecretStoreError, match="Cure: use the vault password"):
            opened(folder, secrets).ensure(name, lambda: pytest.fail("made anew"))
    assert (folder / "fleet.vault").read_bytes() == before


def test_it_stays_under_the_password_that_it_was_written_with(folder: Path) -> None:
    opened(folder).ensure("database_owner", lambda: "the-first")
    both = [("default", VaultSecret(b"of another fleet")), *PASSWORD]
    opened(folder, both).ensure("redis_agent_app", lambda: "the-second")
    assert json.loads(text_of(folder)).keys() == {"database_owner", "redis_agent_app"}


MAKER = """
import sys
from pathlib import Path
from ansible.parsing.vault import VaultSecret
from ops.secrets.store import SecretStore
store = SecretStore(Path(sys.argv[1]), [("default", VaultSecret(b"a-vault-password"))])
for number in range(8):
    print(store.ensure(f"secret{number}", lambda: sys.argv[2] + str(number))["value"])
"""


def test_runs_at_the_same_time_agree(folder: Path) -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", MAKER, str(folder), word],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )
        for word in ("one", "two", "three")
    ]  # fmt: skip
    said = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(set(said)) == 1
    assert len(said[0].split()) == 8


def test_a_kill_at_any_moment_leaves_a_readable_file(folder: Path) -> None:
    opened(folder).ensure("kept", lambda: "kept")
    for pause in (0.05, 0.3, 0.5, 0.7):
        with subprocess.Popen(
            [sys.executable, "-c", MAKER, str(folder), str(pause)],
            cwd=ROOT, stdout=subprocess.PIPE,
        ) as run:  # fmt: skip
            try:
                run.wait(pause)
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
        assert opened(folder).read()["kept"]["value"] == "kept"


def test_values_in_use_and_accepted_by_stage() -> None:
    entry = {"value": "old", "made": ""}
    assert (used(entry), accepted(entry)) == ("old", ["old"])
    entry |= {"next": "new"}
    assert (used(entry), accepted(entry)) == ("old", ["old"])
    entry["stage"] = "both"
    assert (used(entry), accepted(entry)) == ("old", ["old", "new"])
    entry["stage"] = "switched"
    assert (used(entry), accepted(entry)) == ("new", ["new", "old"])


def test_the_password_program_makes_one_for_all_who_come_at_once(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    runs = [
        subprocess.Popen(
            [ROOT / "scripts/vault_password"], env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for _ in range(6)
    ]  # fmt: skip
    said = [run.communicate() for run in runs]
    passwords = {out.strip() for out, _ in said}
    assert len(passwords) == 1
    assert len(passwords.pop()) == 48
    told = [err for _, err in said if err]
    assert len(told) == 1
    assert "keep a copy of it" in told[0]
    made = tmp_path / "rackhand/vault_password"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert [path.name for path in made.parent.iterdir()] == ["vault_password"]
    again = subprocess.run(runs[0].args, env=environment, capture_output=True, text=True)
    assert (again.stdout, again.stderr) == (made.read_text(), "")
