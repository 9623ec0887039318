"""The vault password as Ansible has it, for whatever of `ops` reads an inventory or its secrets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ops.errors import InputError
from ops.places import ROOT
from ops.secrets.store import Entries, SecretStore, SecretStoreError

FOLDER = ".secrets"
PROMPTS = ("prompt", "prompt_ask_vault_pass")


def open_vault() -> Any:
    """Return a DataLoader of Ansible that has the vault passwords.

    They come from where `ansible-playbook` in this checkout takes them:
    `ANSIBLE_VAULT_PASSWORD_FILE`, `ANSIBLE_VAULT_IDENTITY_LIST`, `ansible.cfg`.

    Raises:
        InputError: A file of them is missing or empty.
    """
    _read_our_configuration()
    from ansible.parsing.dataloader import DataLoader  # 0.3 s of import
    from ansible.parsing.vault import VaultSecretsContext

    loader = DataLoader()
    context = VaultSecretsContext.current(optional=True)
    if context is None:
        context = VaultSecretsContext(list(_passwords(loader)))
        VaultSecretsContext.initialize(context)
    loader.set_vault_secrets(context.secrets)
    return loader


def _read_our_configuration() -> None:
    """Have Ansible read this checkout's ansible.cfg wherever we are called; it does so once."""
    named = os.environ.get("ANSIBLE_CONFIG")
    os.environ["ANSIBLE_CONFIG"] = named or str(ROOT / "ansible.cfg")
    import ansible.constants  # noqa: F401

    if named is None:  # what we start is another checkout's, maybe
        del os.environ["ANSIBLE_CONFIG"]


def _passwords(loader: Any) -> Iterator[tuple[str, Any]]:
    from ansible import constants
    from ansible.errors import AnsibleError
    from ansible.parsing.vault import get_file_vault_secret

    named = [slug.partition("@") for slug in constants.DEFAULT_VAULT_IDENTITY_LIST]
    files = [(name, file) if at else ("", name) for name, at, file in named]
    if constants.DEFAULT_VAULT_PASSWORD_FILE:
        files.append(("", constants.DEFAULT_VAULT_PASSWORD_FILE))
    for given, file in files:
        if file in PROMPTS:
            continue
        name = given or constants.DEFAULT_VAULT_IDENTITY
        try:
            secret = get_file_vault_secret(filename=file, vault_id=name, loader=loader)
            secret.load()
        except AnsibleError as error:
            raise InputError(
                f"there is no vault password: {error}",
                place=str(file),
                cure="docs/secrets.md tells where it is kept and how a colleague gets it",
            ) from error
        yield name, secret


def store_of(inventory: Path) -> SecretStore:
    """Return the store of an inventory's generated secrets.

    Raises:
        InputError: As `open_vault`.
    """
    folder = inventory if inventory.is_dir() else inventory.parent
    return SecretStore(folder / FOLDER, open_vault()._vault.secrets)


def read_secrets(inventory: Path) -> Entries:
    """Return an inventory's generated secrets.

    Raises:
        InputError: They cannot be decrypted.
    """
    with told():
        return store_of(inventory).read()


@contextmanager
def told() -> Iterator[None]:
    """Turn the store's errors into those that `ops` shows.

    Raises:
        InputError: The store's own words.
    """
    try:
        yield
    except SecretStoreError as error:
        message, _, cure = str(error).partition(". Cure: ")
        raise InputError(message, cure=cure) from error
