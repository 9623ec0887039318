"""The mirror's signing keys, made once per cache, and signatures with them."""

from __future__ import annotations

from pathlib import Path

from ops.lab.commands import run
from ops.lab.locks import locked
from ops.lab.paths import CACHE, write_atomically

OWNERS = {
    "ubuntu": "Simulated Ubuntu archive",
    "debian": "Simulated Debian archive",
    "cuda": "Simulated NVIDIA CUDA repository",
    "container": "Simulated NVIDIA container toolkit repository",
}


def _home() -> Path:
    return CACHE / "mirror" / "signing"


def public_key(owner: str) -> Path:
    """The public key of a repository's owner, in ASCII armour."""
    return CACHE / "mirror" / "keys" / f"{owner}.asc"


def keyring(owner: str) -> Path:
    """The same key as a keyring, which apt and gpgv take."""
    return public_key(owner).with_suffix(".gpg")


def fingerprint(owner: str) -> str:
    """The key's fingerprint, 40 hexadecimal digits."""
    listed = _gpg("--show-keys", "--with-colons", str(public_key(owner)))
    line = next(line for line in listed.splitlines() if line.startswith("fpr:"))
    return line.split(":")[9]


def ensure_keys() -> None:
    """Make the keys that are missing.

    Raises:
        OpsError: gpg failed; the message carries its words.
    """
    if all(public_key(owner).exists() for owner in OWNERS):
        return
    with locked(CACHE / "mirror" / ".signing.lock"):
        _home().mkdir(mode=0o700, parents=True, exist_ok=True)
        for owner, name in OWNERS.items():
            if public_key(owner).exists():
                continue
            identity = f"{name} <{owner}@rackhand.test>"
            if not _knows(identity):
                _gpg("--passphrase", "", "--quick-gen-key", identity, "ed25519", "sign", "never")
            write_atomically(keyring(owner), _export(identity))
            armoured = _gpg("--armor", "--export", f"={identity}")
            write_atomically(public_key(owner), armoured)
        stop_agent()


def sign(release: Path, owner: str) -> None:
    """Put `InRelease` and `Release.gpg` beside a Release file."""
    by = ["--yes", "--local-user", f"{owner}@rackhand.test"]
    clear, apart = release.with_name("InRelease"), release.with_name("Release.gpg")
    _gpg(*by, "--output", str(clear), "--clearsign", str(release))
    _gpg(*by, "--armor", "--output", str(apart), "--detach-sign", str(release))


def stop_agent() -> None:
    """End the agent that gpg left behind."""
    run(["gpgconf", "--homedir", _home(), "--kill", "gpg-agent"])


def _knows(identity: str) -> bool:
    command = ["gpg", "--homedir", str(_home()), "--batch", "--list-secret-keys", f"={identity}"]
    return run(command, check=False).returncode == 0


def _export(identity: str) -> bytes:
    target = _home() / "exported.gpg"
    _gpg("--yes", "--output", str(target), "--export", f"={identity}")
    return target.read_bytes()


def _gpg(*words: str) -> str:
    return run(["gpg", "--homedir", str(_home()), "--batch", "--quiet", *words]).stdout
