"""Secrets that stand in clear in an inventory's files, where ansible-vault should hold them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ops.places import ROOT

FOLDERS = ("group_vars", "host_vars")
VAULT_HEADER = "$ANSIBLE_VAULT;"
CURE = "ansible-vault encrypt_string, or a vaulted file: docs/secrets.md"


@dataclass(frozen=True)
class InClear:
    """A secret that anybody with the inventory reads: its variable and the file."""

    name: str
    path: Path


def in_clear(inventory: Path) -> list[InClear]:
    """Find variables that hold secrets (`no_log` in a role's argument specs) written in clear.

    A value that is a template is none; what cannot be read as YAML is left to Ansible to tell.
    """
    folder = inventory if inventory.is_dir() else inventory.parent
    names = secret_variables()
    files = [path for path in folder.glob("*") if path.suffix in ("", ".yml", ".yaml")]
    for name in FOLDERS:
        files += (folder / name).rglob("*")
    found = []
    for path in sorted(path for path in files if path.is_file()):
        found += [InClear(name, path) for name in _names(_read(path), names)]
    return found


@functools.cache
def secret_variables() -> frozenset[str]:
    """Name the roles' variables that hold secrets."""
    found = set()
    for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"):
        specs = yaml.load(path.read_text(encoding="utf-8"), _Loader)["argument_specs"]  # noqa: S506
        for options in (spec.get("options") or {} for spec in specs.values()):
            found |= {name for name, option in options.items() if option.get("no_log")}
    return frozenset(found)


class _Loader(yaml.CSafeLoader):
    """Reads `!vault` and other tags as nothing, which is not in clear."""


_Loader.add_multi_constructor("!", lambda _loader, _suffix, _node: None)


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith(VAULT_HEADER):
            return None
        return yaml.load(text, _Loader)  # noqa: S506 - of the safe ones
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def _names(document: Any, names: frozenset[str]) -> Iterator[str]:
    """Walk a file: `vars:` of an inventory's groups may be at any depth."""
    if not isinstance(document, Mapping):
        return
    for key, value in document.items():
        if key in names:
            if _is_clear(value):
                yield str(key)
        else:
            yield from _names(value, names)


def _is_clear(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_is_clear(one) for one in value.values())
    return isinstance(value, str) and bool(value) and "{{" not in value
