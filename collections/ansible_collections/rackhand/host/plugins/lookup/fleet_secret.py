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
  give:
    description:
      - C(used), the value to show. C(accepted), a list of those that hold now, the used one first; two
        while C(ops secrets rotate) is at work. C(other), the second of them or an empty text.
        C(other_or_retired), the same, and otherwise the value before the last rotation.
      - C(turn) is which of two logins, 0 or 1, has the used value, and C(by_turn) the list of both logins'
        values, empty for one that nobody may use.
    type: str
    choices: [used, accepted, other, other_or_retired, turn, by_turn]
    default: used
"""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.rackhand.host.plugins.plugin_utils.secret_store import (
    SecretStoreError,
    accepted,
    by_turn,
    make_password,
    other,
    turn,
    used,
)
from ansible_collections.rackhand.host.plugins.plugin_utils.vault_secrets import store_of

GIVE = {
    "used": used,
    "accepted": accepted,
    "other": other,
    "turn": turn,
    "by_turn": by_turn,
    "other_or_retired": lambda entry: other(entry) or entry.get("retired", ""),
}


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
        give = GIVE[str(self.get_option("give"))]
        # A list within the list, or Ansible would join several values into one text.
        return [give(entry) for entry in entries]
