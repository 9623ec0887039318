# Copyright: the Rackhand founders
"""Apt repositories as the files that `rackhand.host.tree` lays down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.rackhand.host.plugins.module_utils.driver_repository import (
    KEYS_FOLDER,
    key_path,
    sources_path,
    sources_text,
)

DOCUMENTATION = r"""
name: gpu_repository_files
short_description: Apt repositories as the files that rackhand.host.tree lays down
description: One deb822 file per repository, with its own key.
positional: _input
options:
  _input:
    description: Repositories with name, url, suites, components and key (armored).
    type: list
    elements: dict
    required: true
author: [The Rackhand founders]
"""


def gpu_repository_files(repositories: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entries for `rackhand.host.tree`: keys before the sources that name them."""
    entries: list[dict[str, Any]] = [{"path": KEYS_FOLDER, "state": "directory"}]
    for repository in repositories:
        name = str(repository["name"])
        entries.append({"path": key_path(name), "content": str(repository["key"])})
        entries.append({"path": sources_path(name), "content": sources_text(repository)})
    return entries


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"gpu_repository_files": gpu_repository_files}
