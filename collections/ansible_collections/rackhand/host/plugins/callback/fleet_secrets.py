# Copyright: the Rackhand founders
"""Decrypts the fleet's secrets before Ansible forks, so that its many processes need not."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_secrets
type: aggregate
short_description: The fleet's secrets are decrypted once a run
description:
  - Reads C(fleet.vault) of each inventory before a play begins. The processes of its tasks come of this
    one and have what it read, instead of deriving the vault's key again, each of them.
  - Says nothing and changes nothing; a file that cannot be decrypted is told by whoever needs it.
requirements: [enabled in ansible.cfg]
"""

import contextlib
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase
from ansible_collections.rackhand.host.plugins.plugin_utils.secret_store import SecretStoreError
from ansible_collections.rackhand.host.plugins.plugin_utils.vault_secrets import store_of


class CallbackModule(CallbackBase):
    """Listens to the beginning of plays."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "rackhand.host.fleet_secrets"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Read what there is."""
        for source in context.CLIARGS.get("inventory") or ():
            path = Path(str(source))
            folder = (path if path.is_dir() else path.parent) / ".secrets"
            with contextlib.suppress(SecretStoreError, OSError):
                store_of(folder, play.get_loader()).read()
