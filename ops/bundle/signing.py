"""The bundle's signing key: one OpenPGP key (Ed25519) for the manifest and the apt repositories.

apt knows no other kind of signature, and gpgv, which checks it, is on every Debian and Ubuntu: so
one fingerprint is all that a person carries to the closed site, and nothing has to be installed
there before the first check.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.errors import InputError
from ops.lab.commands import run
from ops.lab.locks import locked
from ops.lab.paths import write_atomically

IDENTITY = "Rackhand bundle"
KEY_FILE = "bundle_signing_key.asc"  # below the inventory's secrets, 0600


@dataclass(frozen=True)
class Signer:
    """A key in a home of gpg's that lives for one command."""

    home: Path
    fingerprint: str
    moment: int  # seconds since 1970 that signatures say, so that they are the same again

    def clear(self, file: Path, target: Path) -> None:
        """Sign a text in itself, as apt's InRelease is."""
        self._gpg("--output", target, "--clearsign", file)

    def apart(self, file: Path, target: Path) -> None:
        """Sign a file by another beside it."""
        self._gpg("--armor", "--output", target, "--detach-sign", file)

    def public(self) -> str:
        """The public key in ASCII armour."""
        return run(["gpg", "--homedir", self.home, "--batch", "--armor", "--export"]).stdout

    def at(self, moment: int) -> Signer:
        """The same key, signing as at another moment."""
        return Signer(self.home, self.fingerprint, moment)

    def _gpg(self, *words: str | Path) -> None:
        when = ["--faked-system-time", f"{self.moment}!", "--digest-algo", "SHA512"]
        local = ["--local-user", self.fingerprint, "--no-emit-version"]
        command: list[str | Path] = ["gpg", "--homedir", self.home, "--batch", "--yes", "--quiet"]
        run([*command, "--ignore-time-conflict", *when, *local, *words])


@contextmanager
def signer(secrets: Path) -> Iterator[Signer]:
    """Give the inventory's signing key, made where there is none.

    Args:
        secrets: The folder of the inventory's secrets (`INVENTORY/.secrets`).

    Raises:
        InputError: The key file is not a secret key.
    """
    file = secrets / KEY_FILE
    with tempfile.TemporaryDirectory(prefix="rackhand-gpg-") as folder:
        home = Path(folder)
        try:
            with locked(secrets / ".bundle.lock"):
                _ensure(home, file)
            listed = run(["gpg", "--homedir", home, "--batch", "--with-colons", "-K"]).stdout
            lines = [line.split(":") for line in listed.splitlines()]
            fingerprint = next((each[9] for each in lines if each[0] == "fpr"), "")
            if not fingerprint:
                raise InputError(
                    "This holds no secret OpenPGP key",
                    place=str(file),
                    cure="bring the key back, or remove the file: a new key is a new fingerprint",
                )
            made = next(int(each[5]) for each in lines if each[0] == "sec")
            yield Signer(home, fingerprint, made)
        finally:
            run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


def _ensure(home: Path, file: Path) -> None:
    gpg: list[str | Path] = ["gpg", "--homedir", home, "--batch", "--quiet", "--passphrase", ""]
    if file.exists():
        run([*gpg, "--import", file], check=False)
        return
    run([*gpg, "--quick-gen-key", IDENTITY, "ed25519", "sign", "never"])
    secret = run([*gpg, "--pinentry-mode", "loopback", "--armor", "--export-secret-keys"]).stdout
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(file, secret, 0o600)
