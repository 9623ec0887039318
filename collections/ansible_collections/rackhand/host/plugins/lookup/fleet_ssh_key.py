# Copyright: the Rackhand founders
"""An SSH key of the fleet's own, made once and kept encrypted on the control machine."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_ssh_key
short_description: An SSH key of the fleet's own
description:
  - An Ed25519 key among the fleet's secrets, made when it is missing. C(ops secrets rotate) makes another.
options:
  _terms: {description: "One of private, public.", required: true}
  folder: {description: Folder of the fleet's secrets., type: path, required: true}
  name: {description: The secret's name., type: str, required: true}
  comment: {description: Comment of the public key., type: str, default: rackhand}
"""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.rackhand.host.plugins.plugin_utils.secret_store import (
    SecretStoreError,
    make_ssh_key,
    used,
)
from ansible_collections.rackhand.host.plugins.plugin_utils.vault_secrets import store_of
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def public_of(private: str) -> str:
    """Return the public key of a private one.

    Raises:
        ValueError: It is no Ed25519 key.
    """
    key = serialization.load_ssh_private_key(private.encode("ascii"), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("it is no Ed25519 key")
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return public.decode("ascii")


class LookupModule(LookupBase):
    """`lookup('rackhand.host.fleet_ssh_key', 'public', folder=…, name=…, comment=…)`."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[str]:
        """Return the texts that the terms name."""
        self.set_options(var_options=variables, direct=kwargs)
        name = str(self.get_option("name"))
        store = store_of(Path(str(self.get_option("folder"))), self._loader)
        try:
            private = used(store.ensure(name, make_ssh_key))
            texts = {
                "private": private,
                "public": f"{public_of(private)} {self.get_option('comment')}",
            }
        except (SecretStoreError, ValueError) as error:
            raise AnsibleLookupError(f"{name}: {error}") from error
        return [texts[term] for term in terms]
