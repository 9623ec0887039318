# Copyright: the Rackhand founders
"""The signing key of an apt repository, known by its fingerprint."""

from __future__ import annotations

import base64
import textwrap
import urllib.request
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.rackhand.host.plugins.module_utils.driver_repository import fingerprint

DOCUMENTATION = r"""
name: nvidia_repository_key
short_description: The signing key of an apt repository, known by its fingerprint
description:
  - Reads an armored OpenPGP key from a file of the control machine. Without a file it fetches the
    key once from I(url) and keeps it in I(cache).
  - A key whose fingerprint is not the wanted one is refused either way.
options:
  _terms: {description: Path of the key; empty to fetch it., required: true}
  fingerprint: {description: The wanted fingerprint; empty for any., type: str, default: ""}
  url: {description: Where the key can be fetched., type: str, default: ""}
  cache: {description: Folder that keeps fetched keys., type: path, default: ""}
author: [The Rackhand founders]
"""

FETCH_SECONDS = 30


class LookupModule(LookupBase):
    """Read, fetch where that is allowed, and compare."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[str]:
        """Return the armored key of each term."""
        self.set_options(var_options=variables, direct=kwargs)
        wanted = str(self.get_option("fingerprint")).replace(" ", "").upper()
        return [self._key(str(term), wanted) for term in terms]

    def _key(self, file: str, wanted: str) -> str:
        path = Path(file) if file else self._fetched(wanted)
        try:
            text = path.read_text(encoding="ascii")
            found = fingerprint(text)
        except (OSError, ValueError) as error:
            raise AnsibleError(
                f"repository key {path}: {error}. Cure: name a file that holds the armored key."
            ) from error
        if wanted and found != wanted:
            raise AnsibleError(
                f"repository key {path} has fingerprint {found}, wanted is {wanted}. Cure: if the "
                "repository changed its key, compare with its owner's announcement and set the "
                "fingerprint variable."
            )
        return text

    def _fetched(self, wanted: str) -> Path:
        url, cache = str(self.get_option("url")), str(self.get_option("cache"))
        if not (url and cache and wanted):
            raise AnsibleError(
                "an apt repository's key is neither given as a file nor can it be fetched by a known "
                "fingerprint. Cure: set the repository's *_key_file to the armored key."
            )
        path = Path(cache) / f"{wanted}.asc"
        if not path.is_file():
            try:
                with urllib.request.urlopen(url, timeout=FETCH_SECONDS) as answer:
                    data: bytes = answer.read()
            except OSError as error:
                raise AnsibleError(
                    f"the key at {url} cannot be fetched: {error}. Cure: bring it to this machine "
                    "and set the repository's *_key_file to it."
                ) from error
            text = armored(data)
            if fingerprint(text) != wanted:
                raise AnsibleError(f"the key at {url} has not the fingerprint {wanted}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="ascii")
        return path


def armored(data: bytes) -> str:
    """An OpenPGP key in its armored form."""
    if data.startswith(b"-----BEGIN"):
        return data.decode("ascii")
    lines = textwrap.fill(base64.b64encode(data).decode("ascii"), 64)
    return (
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n"
        + lines
        + "\n-----END PGP PUBLIC KEY BLOCK-----\n"
    )
