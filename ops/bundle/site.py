"""A closed site that uses a bundle: what its inventory says then, and the server of the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ops.bundle.verification import KEY, MANIFEST, Verified, verify
from ops.errors import InputError, OpsError
from ops.fleet.model import Fleet
from ops.lab.paths import write_atomically
from ops.models.inventory import wanted_entry, write_entry
from ops.places import ROOT

FILE = "closed_site.yml"
HEADER = """\
# Written by `ops bundle install`: this site has nothing but its bundle. Variables of hosts win over
# group_vars. Run it again for a new bundle; remove the file, and group_vars rules.
---
"""
SERVED = ("apt", "wheels", "mirror", "keys")  # hosts fetch these; weights go over SSH


def require_good(bundle: Path, key: str) -> Verified:
    """Verify a bundle, whole.

    Raises:
        InputError: It is packed.
        OpsError: Something in it is wrong; the first faults are named.
    """
    if bundle.is_file():
        raise InputError(
            "The bundle is still packed",
            place=str(bundle),
            cure=f"mkdir DIR; tar -xf {bundle} -C DIR",
        )
    proved = verify(bundle, key)
    if proved.faults:
        shown = "\n  ".join(proved.faults[:5])
        more = len(proved.faults) - 5
        raise OpsError(
            f"The bundle is not what its manifest says:\n  {shown}"
            + (f"\n  and {more} more" if more > 0 else ""),
            place=str(bundle),
            cure="bring it again; ops bundle verify lists all",
        )
    return proved


def install(bundle: Path, key: str, fleet: Fleet, address: str) -> list[Path]:
    """Make an inventory use a bundle.

    Args:
        bundle: The unpacked bundle, on the control machine for good.
        key: Fingerprint or file of the key that must have signed it.
        fleet: The inventory, a folder.
        address: Where hosts find it, `http://10.0.0.1:8480`: `ops bundle serve` or any web server.

    Returns:
        The files that changed.

    Raises:
        InputError: The inventory is a single file, or has hosts that the bundle does not know.
        OpsError: The bundle is not good.
    """
    proved = require_good(bundle, key)
    inventory = fleet.inventory
    if not inventory.is_dir():
        raise InputError(
            "The inventory is a single file", place=str(inventory), cure="make it a folder"
        )
    known = proved.manifest["hosts"]
    if strangers := sorted(host.name for host in fleet.hosts if host.name not in known):
        raise InputError(
            f"The bundle was not made for {', '.join(strangers)}",
            place=str(bundle / MANIFEST),
            cure="make it from this inventory: ops bundle create",
        )
    changed = [
        path
        for model in proved.manifest["models"]
        if (path := use_weights(bundle, inventory, model)) is not None
    ]
    content = HEADER + yaml.safe_dump(
        variables(bundle, proved, fleet, address.rstrip("/")), width=100
    )
    target = inventory / FILE
    if not target.exists() or target.read_text() != content:
        write_atomically(target, content)
        changed.append(target)
    return list(dict.fromkeys(changed))


def use_weights(bundle: Path, inventory: Path, model: Mapping[str, Any]) -> Path | None:
    """Let a model's entry name the bundle's weights, if the bundle has them."""
    folder = (bundle / "models" / model["name"] / model["revision"]).resolve()
    if not folder.is_dir():
        return None
    entry = wanted_entry(inventory, model["name"])
    if entry.get("revision") != model["revision"]:
        return None
    return write_entry(inventory, model["name"], {**entry, "source": f"file://{folder}"})


def variables(bundle: Path, proved: Verified, fleet: Fleet, address: str) -> dict[str, Any]:
    """The inventory file: everything that hosts fetch comes from the bundle."""
    links = f"{address}/wheels/index.html"
    common: dict[str, Any] = {}
    for role in roles_with_environments():
        common |= {f"{role}_find_links": [links], f"{role}_offline": True}
    common |= drivers(bundle, proved.manifest, address)
    hosts = {}
    for host in fleet.hosts:
        distribution = proved.manifest["hosts"][host.name]
        repository = {
            "name": "rackhand-bundle",
            "url": f"{address}/apt/{distribution}",
            "suites": "/",
            "key_file": str((bundle / KEY).resolve()),
            "fingerprint": proved.fingerprint,
            "version": release_of(proved.manifest, distribution),
        }
        sources = {"base_apt_repositories": [repository], "base_apt_exclusive": True}
        hosts[host.name] = sources | common
    return {"all": {"hosts": hosts}}


def release_of(manifest: Mapping[str, Any], distribution: str) -> str:
    """What tells one state of a repository from another."""
    path = f"apt/{distribution}/InRelease"
    found = next((each["sha256"] for each in manifest["files"] if each["path"] == path), "")
    return str(found)[:16]


def roles_with_environments() -> list[str]:
    """Roles that install wheels, by their own specification."""
    found = []
    for path in sorted((ROOT / "roles").glob("*/meta/argument_specs.yml")):
        options = yaml.safe_load(path.read_text())["argument_specs"]["main"].get("options") or {}
        role = path.parent.parent.name
        if f"{role}_offline" in options and f"{role}_find_links" in options:
            found.append(role)
    return found


def drivers(bundle: Path, manifest: Mapping[str, Any], address: str) -> dict[str, str]:
    """Variables of the GPU layer's repositories."""
    prefixes = {
        "nvidia_cuda_repo": "cuda",
        "container_toolkit_repo": "container-toolkit",
        "nvidia_driver_ubuntu_repo": "ubuntu",
    }
    found = {}
    for each in manifest["repositories"]:
        prefix = next((name for name, kind in prefixes.items() if kind == each["kind"]), None)
        if prefix is None:
            continue
        found[f"{prefix}_url"] = f"{address}/{each['path']}"
        found[f"{prefix}_key_file"] = str((bundle / each["key"]).resolve())
        if each["fingerprint"]:
            found[f"{prefix}_key_fingerprint"] = each["fingerprint"]
    return found
