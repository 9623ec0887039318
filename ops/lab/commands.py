"""Run programs of the control machine, and say which one is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ops.errors import MissingToolError, OpsError

PACKAGE_OF = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "apt-config": "apt",
}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TAIL = 2000  # characters of a failed program's words that a person sees


def require_lab_tools() -> None:
    """Stop unless this machine can run a lab.

    Raises:
        MissingToolError: Not root, or a package is not installed; names all of them at once.
    """
    if os.geteuid() != 0:
        raise MissingToolError(
            "The lab needs root: it makes network bridges and boots hosts", cure="sudo -E ops lab …"
        )
    missing = {package for tool, package in PACKAGE_OF.items() if shutil.which(tool) is None}
    if not KEYRING.exists():
        missing.add("debian-archive-keyring")
    packages = sorted(missing)
    if packages:
        raise MissingToolError(
            f"Not installed: {', '.join(packages)}",
            cure=f"apt-get install -y --no-install-recommends {' '.join(packages)}",
        )


def run(
    command: Sequence[str | Path], *, stdin: str | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and keep its words.

    Raises:
        OpsError: It failed and `check` is set; the message carries its last words.
    """
    words = [str(word) for word in command]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-TAIL:]
        raise OpsError(f"`{words[0]}` failed: {said}", place=" ".join(words))
    return done
