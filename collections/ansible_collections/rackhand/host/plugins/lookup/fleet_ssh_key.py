# Copyright: the Rackhand founders
"""An SSH key of the fleet's own, made once and kept on the control machine."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_ssh_key
short_description: An SSH key of the fleet's own
description:
  - An Ed25519 key in a file of the control machine with mode 0600, made when it is missing. Delete the
    file to have another one with the next run.
options:
  _terms: {description: "One of private, public.", required: true}
  path: {description: The private key's file., type: path, required: true}
  comment: {description: Comment of the public key., type: str, default: rackhand}
"""

import fcntl
import os
from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def ensure(path: Path) -> Ed25519PrivateKey:
    """Return the key of a file, which is made when it is missing, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            text = Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.OpenSSH,
                serialization.NoEncryption(),
            )
            candidate = path.with_name(f".{path.name}.new")
            handle = os.open(candidate, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            candidate.replace(path)
        key = serialization.load_ssh_private_key(path.read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} is no Ed25519 key")
    return key


class LookupModule(LookupBase):
    """`lookup('rackhand.host.fleet_ssh_key', 'public', path=…, comment=…)`."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[str]:
        """Return the texts that the terms name."""
        self.set_options(var_options=variables, direct=kwargs)
        path = Path(str(self.get_option("path")))
        key = ensure(path)
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        texts = {
            "private": path.read_text(encoding="ascii"),
            "public": f"{public.decode()} {self.get_option('comment')}",
        }
        return [texts[term] for term in terms]
