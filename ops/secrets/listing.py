"""What `ops secrets list` tells: everything but the values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ops.secrets.catalogue import BY_NAME, SECRETS, TLS, TLS_HOW, TLS_WHERE
from ops.secrets.vault import read_secrets

UNKNOWN = "not one that this checkout knows"


def rows(inventory: Path) -> list[dict[str, Any]]:
    """Return a row a secret, in the catalogue's order, TLS last."""
    entries = read_secrets(inventory)
    order = {secret.name: number for number, secret in enumerate(SECRETS)}
    found = []
    for name in sorted(entries, key=lambda name: (order.get(name, len(order)), name)):
        entry, known = entries[name], BY_NAME.get(name)
        where, how = (known.where, known.how) if known else ("", UNKNOWN)
        if name.startswith(TLS):
            where, how = TLS_WHERE, TLS_HOW
        found.append(
            {
                "name": name,
                "made": str(entry["made"]),
                "where": where,
                "how": how,
                "rotates": bool(known and known.rotates),
                "stage": str(entry.get("stage", "")),
                "rotations": int(entry.get("turns", 0)),
            }
        )
    return found
