# Copyright: the Rackhand founders
"""The fleet's generated secrets: one file of the control machine, encrypted by Ansible Vault.

One file, not one a secret: to derive the key of a vault takes tens of milliseconds, and a run reads
a dozen secrets in each of its processes. `ops` uses this module too, by a link.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PASSWORD_LENGTH = 40
ALPHABET = string.ascii_letters + string.digits
FILE = "fleet.vault"
LOCK = ".lock"
#: What checkouts before the encrypted file kept in clear: passwords by name, the rest by suffix.
CLEAR_PASSWORDS = (
    *("database_owner", "database_agent_app", "redis_agent_app", "redis_monitor"),
    *("api_key_secret", "webhook_secret", "audit_secret", "grafana_admin", "remediator_token"),
)
CLEAR_KEYS = ("remediator_ssh_key",)
CLEAR_TLS = ("tls/*.crt", "tls/*.key")
OPENED_BY = (
    "use the vault password of whoever set the fleet up: docs/secrets.md tells where it lies; "
    "nothing was changed or made anew"
)

Entry = dict[str, Any]
"""`value`; `made` (RFC 3339); `next`, which is to follow it, and the `stage` of that: nothing,
`both` (whoever checks it takes both), `switched` (whoever shows it shows the next); `retired`,
which was before it; `turns`, how often it was replaced."""
Entries = dict[str, Entry]

_READ: dict[Path, tuple[tuple[int, int, int], Entries]] = {}
"""By file: which state of it was decrypted. Processes forked later have it for nothing."""


class SecretStoreError(Exception):
    """The secrets cannot be had; the message names the file and the cure."""


def used(entry: Entry) -> str:
    """Return the value that whoever shows a secret shows now."""
    return str(entry["next"] if entry.get("stage") == "switched" else entry["value"])


def other(entry: Entry) -> str:
    """Return the value beside the used one that holds while it is rotated, empty otherwise."""
    if not entry.get("stage"):
        return ""
    return str(entry["value"] if entry["stage"] == "switched" else entry["next"])


def accepted(entry: Entry) -> list[str]:
    """Return all values that whoever checks a secret takes now, the used one first."""
    return [value for value in (used(entry), other(entry)) if value]


def turn(entry: Entry) -> int:
    """Return which of two logins, 0 or 1, shows the used value: they take turns."""
    return (int(entry.get("turns", 0)) + (entry.get("stage") == "switched")) % 2


def by_turn(entry: Entry) -> list[str]:
    """Return the values of both logins, empty for one that nobody may use."""
    found = [used(entry), other(entry)]
    return found if turn(entry) == 0 else found[::-1]


def make_password(length: int = PASSWORD_LENGTH) -> str:
    """Return random letters and digits."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def make_ssh_key() -> str:
    """Return a new private Ed25519 key in OpenSSH's format."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return (
        Ed25519PrivateKey.generate()
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        .decode("ascii")
    )


def new_entry(value: str) -> Entry:
    """Return a secret that was made now."""
    return {"value": value, "made": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}


class SecretStore:
    """The secrets in one folder.

    Args:
        folder: `<inventory>/.secrets`.
        vault_secrets: Ansible's, by vault id: what `--vault-password-file` and the like gave.
    """

    def __init__(self, folder: Path, vault_secrets: Sequence[tuple[str, Any]]) -> None:
        self.folder = folder
        self.path = folder / FILE
        self._secrets = list(vault_secrets or ())

    @property
    def holds_clear(self) -> bool:
        """Whether an older checkout's files are still to be taken in."""
        return bool(self._clear_files())

    def read(self) -> Entries:
        """Return all secrets; one that is still in clear is among them.

        Raises:
            SecretStoreError: The file cannot be decrypted.
        """
        return self._decrypted() | self._clear()

    def ensure(self, name: str, make: Callable[[], str]) -> Entry:
        """Return a secret, made once whoever asks first.

        Raises:
            SecretStoreError: The file cannot be decrypted or written.
        """
        entries = self._decrypted()
        if name in entries and not self.holds_clear:
            return entries[name]
        with self.changing() as changed:
            if name not in changed:
                changed[name] = new_entry(make())
            return changed[name]

    @contextlib.contextmanager
    def changing(self) -> Iterator[Entries]:
        """Hold the store, yield all secrets to be changed, and write them if they were.

        Secrets in clear are taken in: the encrypted file is on the disk before they go.

        Raises:
            SecretStoreError: The file cannot be decrypted or written.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self.folder / LOCK).open("a")
        except OSError as error:
            raise SecretStoreError(f"{self.folder} cannot be written: {error}") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self._decrypted()
            clear = self._clear()
            self._refuse_two_values(before, clear)
            entries = json.loads(json.dumps(before | clear))
            yield entries
            if entries != before:
                self._write(entries)
            for path in self._clear_files():
                path.unlink()
            self._tidy(clear)

    def _decrypted(self) -> Entries:
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return {}
        state = (there.st_mtime_ns, there.st_size, there.st_ino)
        known = _READ.get(self.path)
        if known is None or known[0] != state:
            known = (state, json.loads(self._open()[0]))
            _READ[self.path] = known
        return known[1]

    def _open(self) -> tuple[bytes, str, Any]:
        """Decrypt; return the text, the vault id and the password that fitted."""
        from ansible.errors import AnsibleError
        from ansible.parsing.vault import VaultLib

        if not self._secrets:
            raise SecretStoreError(
                f"{self.path} is encrypted and no vault password is given. Cure: {OPENED_BY}"
            )
        try:
            opened: tuple[bytes, str, Any] = VaultLib(self._secrets).decrypt_and_get_vault_id(
                self.path.read_bytes()
            )
        except AnsibleError as error:
            raise SecretStoreError(
                f"no vault password that is given opens {self.path}. Cure: {OPENED_BY}"
            ) from error
        return opened

    def _write(self, entries: Entries) -> None:
        from ansible.parsing.vault import VaultLib

        if self.path.exists():
            _, vault_id, secret = self._open()  # under whose password it was, it stays
        elif self._secrets:
            vault_id, secret = self._secrets[0]
        else:
            raise SecretStoreError(
                f"no vault password is given, and {self.path} is written with one. Cure: run it "
                "with this repository's ansible.cfg, or with --vault-password-file"
            )
        text = json.dumps(entries, indent=2, sort_keys=True) + "\n"
        named = None if vault_id == "default" else vault_id
        _replace(self.path, VaultLib().encrypt(text, secret=secret, vault_id=named))

    def _clear_files(self) -> list[Path]:
        found: Iterable[Path] = [
            *(self.folder / name for name in (*CLEAR_PASSWORDS, *CLEAR_KEYS)),
            *(path for pattern in CLEAR_TLS for path in self.folder.glob(pattern)),
        ]
        return [path for path in found if path.is_file()]

    def _clear(self) -> Entries:
        found = {}
        for path in self._clear_files():
            text = path.read_text(encoding="utf-8")
            if path.name in CLEAR_PASSWORDS:
                text = text.split(" salt=")[0].strip()
            if not text:
                continue  # of a run that died while it made it
            made = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            name = path.relative_to(self.folder).as_posix()
            found[name] = {"value": text, "made": f"{made:%Y-%m-%dT%H:%M:%SZ}"}
        return found

    def _refuse_two_values(self, before: Entries, clear: Entries) -> None:
        for name in before.keys() & clear.keys():
            if before[name]["value"] == clear[name]["value"]:
                clear[name] = before[name]
                continue
            raise SecretStoreError(
                f"{self.folder / name} holds another value than {self.path}: an older checkout "
                "made it. Cure: delete it, and then run site.yml; the hosts take up the encrypted "
                "one"
            )

    def _tidy(self, clear: Entries) -> None:
        if not clear:
            return
        for name in ("tls/.lock", ".remediator_ssh_key.lock"):
            (self.folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (self.folder / "tls").rmdir()


def _replace(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads, whole or not at all, down to the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
