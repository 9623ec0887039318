"""Write what is wanted back into an inventory, with a person's comments and order kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ops.errors import InputError, OpsError

HEAD = re.compile(r"(?:#[^\n]*\n|\s*\n)*---[^\S\n]*\n")


def write_variables(inventory: Path, group: str, values: Mapping[str, Any]) -> list[Path]:
    """Set variables where the inventory defines them, else in the group's own file.

    Args:
        inventory: The inventory's folder.
        group: Group whose file takes variables that stand nowhere yet.
        values: What is wanted.

    Returns:
        The files that changed.

    Raises:
        InputError, OpsError: As `home`.
    """
    homes = {name: home(inventory, group, name) for name in values}
    changed = []
    for path in dict.fromkeys(homes.values()):
        wanted = {name: value for name, value in values.items() if homes[name] == path}
        if set_values(path, wanted):
            changed.append(path)
    return changed


def defined_variables(inventory: Path, group: str, names: Iterable[str]) -> dict[str, Any]:
    """The values of those variables that the inventory defines, where `write_variables` writes."""
    found = {name: read(home(inventory, group, name)) for name in names}
    return {name: content[name] for name, content in found.items() if name in content}


def restore_variables(
    inventory: Path, group: str, before: Mapping[str, Any], names: Iterable[str]
) -> None:
    """Bring variables back to what `defined_variables` found; those it did not find go."""
    write_variables(inventory, group, before)
    for name in set(names) - set(before):

        def remove(content: Any, name: str = name) -> None:
            content.pop(name, None)

        edit(home(inventory, group, name), remove)


def home(inventory: Path, group: str, name: str) -> Path:
    """The file that defines a variable, or the one that is to.

    Raises:
        InputError: The inventory is a single file.
        OpsError: The variable stands in several files.
    """
    if not inventory.is_dir():
        raise InputError(
            f"{inventory} is a single file, which ops does not rewrite",
            place=str(inventory),
            cure=f"make it a folder with group_vars/{group}.yml, as inventories/example is",
        )
    files = sorted(
        path
        for folder in ("group_vars", "host_vars")
        for path in (inventory / folder).rglob("*.y*ml")
    )
    found = [path for path in files if name in read(path)]
    if len(found) > 1:
        raise OpsError(
            f"{name} stands in several files; ops does not choose among them",
            place=", ".join(str(path) for path in found),
            cure="write the new value yourself",
        )
    return found[0] if found else inventory / "group_vars" / f"{group}.yml"


def read(path: Path) -> Any:
    """A YAML file's content; empty where it is no mapping (a vault file is text)."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads past Ansible's own tags, `!vault` among them."""

    Loader.add_multi_constructor("!", lambda _loader, _tag, _node: None)
    content = yaml.load(path.read_text(encoding="utf-8"), Loader) if path.exists() else {}  # noqa: S506 - a SafeLoader
    return content if isinstance(content, dict) else {}


def set_values(path: Path, values: Mapping[str, Any]) -> bool:
    """Set keys of a YAML file in place; whether that changed it."""
    return edit(path, lambda content: content.update(values))


def edit(path: Path, change: Callable[[Any], None]) -> bool:
    """Change a YAML file's content in place; whether that changed it."""
    import json
    from io import StringIO

    from ruamel.yaml import YAML

    from ops.lab.paths import write_atomically

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    before = path.read_text(encoding="utf-8") if path.exists() else "---\n"
    # ruamel drops comments before the document's start: they are kept as text.
    start = HEAD.match(before)
    head = start[0] if start else ""
    content = yaml.load(before[len(head) :]) or {}
    was = json.dumps(content, default=str)
    change(content)
    if json.dumps(content, default=str) == was:
        return False
    out = StringIO()
    yaml.dump(content, out)
    write_atomically(path, head + out.getvalue())
    return True
