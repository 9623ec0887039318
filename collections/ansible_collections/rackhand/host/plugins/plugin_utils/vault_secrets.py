# Copyright: the Rackhand founders
"""The vault passwords that Ansible was given, for the store of the fleet's secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.parsing.vault import VaultSecretsContext
from ansible_collections.rackhand.host.plugins.plugin_utils.secret_store import SecretStore


def store_of(folder: Path, loader: Any = None) -> SecretStore:
    """Return the store of a folder, opened with what this process was given.

    Args:
        folder: `<inventory>/.secrets`.
        loader: Ansible's DataLoader, asked where no playbook runs.
    """
    context = VaultSecretsContext.current(optional=True)
    found = context.secrets if context is not None else []
    if not found and loader is not None:
        found = loader._vault.secrets
    return SecretStore(folder, found or [])
