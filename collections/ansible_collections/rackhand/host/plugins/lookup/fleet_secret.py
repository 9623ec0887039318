# Copyright: the Rackhand founders
"""A secret of the fleet's own, made once and kept encrypted on the control machine."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_secret
short_description: A secret of the fleet's own
description:
  - A random password in C(fleet.vault) of a folder of the control machine, which Ansible Vault encrypts.
    One that is missing is made. What older checkouts kept in clear in that folder is taken in.
  - The file is read once a process, and processes that come of one that read it have it for nothing.
options:
  _terms: {description: "The secret's name.", required: true}
  folder: {description: Folder of the control machine., type: path, required: true}
  length: {description: Letters and digits of a new one., type: int, default: 40}
  accepted:
    description:
      - Return a list of all values that hold now, the one in use first. Two while C(ops secrets rotate)
        is at work.
    type: bool
    default: false
"""

import secrets
import string
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.rackhand.host.plugins.plugin_utils.secret_store import (
    SecretStoreError,
    accepted,
    used,
)
from ansible_collections.rackhand.host.plugins.plugin_utils.vault_secrets import store_of

ALPHABET = string.ascii_letters + string.digits


def make_password(length: int) -> str:
    """Return random letters and digits."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


class LookupModule(LookupBase):
    """`lookup('rackhand.host.fleet_secret', 'database_owner', folder=…)`."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[Any]:
        """Return the secrets that the terms name."""
        self.set_options(var_options=variables, direct=kwargs)
        store = store_of(Path(str(self.get_option("folder"))), self._loader)
        length = int(self.get_option("length"))
        try:
            entries = [store.ensure(term, lambda: make_password(length)) for term in terms]
        except SecretStoreError as error:
            raise AnsibleLookupError(str(error)) from error
        return [
            accepted(entry) if self.get_option("accepted") else used(entry) for entry in entries
        ]
