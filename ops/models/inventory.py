"""The inventory's entry of a model, read and written with a person's comments and order kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.errors import InputError, OpsError
from ops.fleet.desired import edit, home, read
from ops.operations.plan import Step
from ops.operations.work import Context


def wanted_entry(inventory: Path, name: str) -> dict[str, Any]:
    """Return a model's entry as the inventory has it.

    Raises:
        InputError: It has none, or has `models` somewhere that ops cannot write.
    """
    entries = read(home(inventory, "all", "models")).get("models") or []
    for entry in entries:
        if isinstance(entry, Mapping) and entry.get("name") == name:
            return dict(entry)
    raise InputError(
        f"models has no entry named {name}",
        place=str(home(inventory, "all", "models")),
        cure="one of: " + ", ".join(str(entry.get("name")) for entry in entries),
    )


def write_entry(inventory: Path, name: str, entry: Mapping[str, Any]) -> Path | None:
    """Make the inventory want an entry; return the file if that changed it.

    Raises:
        OpsError: There is no such entry to change.
    """
    path = home(inventory, "all", "models")

    def change(content: Any) -> None:
        for found in content.get("models") or ():
            if found.get("name") == name:
                for key in [key for key in found if key not in entry]:
                    del found[key]
                for key, value in entry.items():
                    if found.get(key) != value:
                        found[key] = value
                return
        raise OpsError(f"models has no entry named {name} any more", place=str(path))

    return path if edit(path, change) else None


class WriteModel:
    """The inventory wants what now serves, so that site.yml leaves it alone."""

    def __init__(self, context: Context, step: Step, detail: Mapping[str, Any]) -> None:
        self._context = context
        self._values = step.values
        self._before: Mapping[str, Any] = detail.get("before") or {}

    def do(self) -> None:
        inventory, name = self._context.fleet.inventory, self._values["model"]
        if not self._before:
            self._context.note({"before": wanted_entry(inventory, name)})
        if path := write_entry(inventory, name, self._values["entry"]):
            self._context.say(f"wrote {path.name}")

    def holds(self) -> bool:
        """Another checkout's inventory may not have it: write it there too."""
        return False

    def undo(self) -> None:
        if self._before:
            write_entry(self._context.fleet.inventory, self._values["model"], self._before)


KINDS = {"inventory.model": WriteModel}
