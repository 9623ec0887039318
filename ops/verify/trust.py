"""Which roots the edge's certificate may end in, beside the machine's own."""

from __future__ import annotations

import ssl
import urllib.request
from pathlib import Path

from ops.errors import InputError, OpsError
from ops.places import ROOT


def trusted_roots(inventory: Path, ca_file: Path | None = None) -> str:
    """Return PEM text of further roots; empty where the public ones serve.

    A lab's authority makes a new root at each start, so it is asked for today's,
    over TLS verified by the certificate that the lab itself made.

    Args:
        inventory: the fleet's; a lab is known by it.
        ca_file: the operator's own authority; it wins.

    Raises:
        InputError: the file cannot be read.
        OpsError: the lab's authority does not answer.
    """
    if ca_file:
        try:
            return ca_file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the CA file cannot be read: {error}", place=str(ca_file)) from error
    lab = lab_name(inventory)
    return lab_root(lab) if lab else ""


def lab_name(inventory: Path) -> str:
    """Return the name of the lab that wrote an inventory, empty for any other."""
    path = inventory.resolve()
    if path.parent != ROOT / "inventories" or path.name.split("-")[0] != "lab":
        return ""
    return path.name.removeprefix("lab-")


def lab_root(lab: str) -> str:
    """Fetch the issuing root of a lab's authority."""
    from ops.lab.fleet_plan import OUTSIDE, load_plan
    from ops.lab.outside import CA_FILE, MANAGEMENT_PORT

    plan = load_plan(lab)
    if plan is None:
        raise InputError(f"no lab is named {lab}", cure=f"ops lab up --name {lab}")
    url = f"https://{plan.address(OUTSIDE)}:{MANAGEMENT_PORT}/roots/0"
    context = ssl.create_default_context(cafile=str(plan.paths.authority / CA_FILE))
    try:
        with urllib.request.urlopen(url, timeout=10, context=context) as response:
            return str(response.read().decode("ascii"))
    except OSError as error:
        raise OpsError(
            f"the lab's certificate authority does not answer: {error}",
            place=url,
            cure=f"ops lab up --name {lab}",
        ) from error
