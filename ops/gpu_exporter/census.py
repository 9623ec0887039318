"""Which GPUs should be here: those ever seen, until another one is in their place."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ops.gpu_exporter.device import Identity

log = logging.getLogger(__name__)

FILE = "gpus.json"


@dataclass(frozen=True)
class Sighting:
    """A GPU that was here, with the NVLinks that it had."""

    identity: Identity
    links: tuple[int, ...] = ()


class Census:
    """The GPUs seen, kept across restarts and reboots where there is a folder to keep them.

    A GPU that is gone stays expected until another one is at its PCI address, which is a
    replacement, or until the file is deleted, which is a person's word that it was taken out.

    Args:
        folder: Where to keep them; None keeps them for this process only.
        inventory: How many GPUs the inventory says there are; 0 says nothing.
    """

    def __init__(self, folder: Path | None = None, inventory: int = 0) -> None:
        self._path = folder / FILE if folder else None
        self._inventory = inventory
        self._guard = threading.Lock()
        self._seen = self._load()

    @property
    def expected(self) -> int:
        """How many GPUs should be here."""
        return max(self._inventory, len(self._seen))

    def links_of(self, uuid: str) -> set[int]:
        """NVLinks that this GPU had at some time."""
        seen = self._seen.get(uuid)
        return set(seen.links) if seen else set()

    def missing(self, present: Iterable[str]) -> list[Identity]:
        """GPUs that were seen at some time and are not among these UUIDs."""
        here = set(present)
        return [seen.identity for uuid, seen in self._seen.items() if uuid not in here]

    def meet(self, identity: Identity, links: Iterable[int] = ()) -> None:
        """Note that a GPU is here; one that had its PCI address before was replaced."""
        if not identity.uuid:
            return
        with self._guard:
            sighting = Sighting(identity, tuple(sorted({*links, *self.links_of(identity.uuid)})))
            if self._seen.get(identity.uuid) == sighting:
                return
            others = {
                uuid: seen
                for uuid, seen in self._seen.items()
                if seen.identity.pci_bus_id != identity.pci_bus_id
            }
            self._seen = {**others, identity.uuid: sighting}
            self._save()

    def _load(self) -> dict[str, Sighting]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
            found = [Sighting(Identity(**e["identity"]), tuple(e["links"])) for e in entries]
        except (OSError, ValueError, TypeError, KeyError) as problem:
            log.warning("%s is of no use and will be written anew: %s", self._path, problem)
            return {}
        return {seen.identity.uuid: seen for seen in found}

    def _save(self) -> None:
        if self._path is None:
            return
        candidate = self._path.with_suffix(".new")
        try:
            candidate.write_text(json.dumps([asdict(seen) for seen in self._seen.values()]))
            candidate.replace(self._path)
        except OSError as problem:
            log.warning("the GPUs seen are not kept: %s", problem)
