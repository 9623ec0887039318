"""What rotating means for the store: values that follow, and the stages between. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from ops.errors import InputError, OpsError
from ops.secrets.fleet_ca import CA_CERTIFICATE, CA_KEY, make_ca
from ops.secrets.store import Entries, Entry, make_password, make_ssh_key, new_entry

NONE, BOTH, SWITCHED, FINAL = "", "both", "switched", "final"
"""Where a secret stands: before, both taken, the next one used, the next one alone."""
SHOWN = 16
"""Characters of a fingerprint: enough to tell two values apart, and nothing to guess one from."""


def fingerprint(value: str) -> str:
    """Name a random value so that plans and journals can tell it from another."""
    return hashlib.sha256(value.encode()).hexdigest()[:SHOWN]


def prepare(entries: Entries, names: Sequence[str]) -> dict[str, str]:
    """Add the value that is to follow to each secret; return their fingerprints.

    Raises:
        InputError: A rotation of one is under way.
    """
    for name in names:
        entry = entries[name]
        if entry.get("stage"):
            raise InputError(
                f"a rotation of {name} is under way",
                place=name,
                cure="ops history names it; ops resume or ops abort ends it",
            )
    for name, value in make([name for name in names if "next" not in entries[name]]).items():
        entries[name]["next"] = value
    return {name: fingerprint(entries[name]["next"]) for name in names}


def make(names: Sequence[str]) -> dict[str, str]:
    """Return new values for secrets; a CA's certificate and key are made for each other."""
    pair = dict(zip((CA_CERTIFICATE, CA_KEY), make_ca(), strict=True)) if CA_KEY in names else {}
    made = {"remediator_ssh_key": make_ssh_key}
    return {name: pair.get(name) or made.get(name, make_password)() for name in names}


def move(entries: Entries, fingerprints: Mapping[str, str], to: str) -> None:
    """Bring secrets to a stage, from whatever stage they have.

    Args:
        entries: The store's; changed in place.
        fingerprints: By name: of the value that follows, or already did.
        to: The stage.

    Raises:
        OpsError: This inventory has not the values that the operation began with.
    """
    for name, mark in fingerprints.items():
        entry = entries.get(name, {})
        _take_back_final(entry, mark)
        if "next" not in entry and to == NONE:
            continue  # it was brought back before
        if fingerprint(str(entry.get("next", ""))) != mark:
            raise OpsError(
                f"this inventory's secrets have not the {name} that the operation began with",
                place=name,
                cure="bring .secrets/fleet.vault of whoever began it here, then ops resume",
            )
        entries[name] = _moved(entry, to)


def _take_back_final(entry: Entry, mark: str) -> None:
    """Where the next value is in place already, tell it as the stage before that."""
    if entry and "next" not in entry and fingerprint(str(entry["value"])) == mark:
        entry["next"], entry["value"] = entry["value"], entry.pop("retired")
        entry["made"], entry["next_made"] = entry.pop("retired_made", entry["made"]), entry["made"]
        entry["turns"] = int(entry.get("turns", 0)) - 1
        entry["stage"] = SWITCHED


def _moved(entry: Entry, to: str) -> Entry:
    if to in (BOTH, SWITCHED):
        return {**entry, "stage": to}
    left = {k: v for k, v in entry.items() if k not in ("next", "next_made", "stage")}
    if to == NONE:  # what was hashed with it meanwhile stays known
        return {**left, "retired": entry["next"]} if entry.get("stage") else left
    made = {"made": entry["next_made"]} if "next_made" in entry else {}
    return {
        **left,
        **new_entry(str(entry["next"])),
        **made,
        "retired": entry["value"],
        "retired_made": entry["made"],
        "turns": int(entry.get("turns", 0)) + 1,
    }
