"""Which roots the edge's certificate may end in, beside the machine's own."""

from __future__ import annotations

import ssl
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from ops.errors import InputError, OpsError
from ops.places import ROOT

if TYPE_CHECKING:
    from ops.lab.fleet_plan import LabPlan

BOOT_SECONDS = 15
"""How long the authority may take after its host came up."""


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
    """Return every issuing root that a lab's authority has had, today's among them.

    It makes a new root at each start; certificates of before still end in the old one.
    """
    from ops.lab.fleet_plan import OUTSIDE, load_plan
    from ops.lab.outside import ROOTS

    plan = load_plan(lab)
    if plan is None:
        raise InputError(f"no lab is named {lab}", cure=f"ops lab up --name {lab}")
    today = todays_root(plan)
    kept = plan.paths.host(OUTSIDE).upper / ROOTS
    known = kept.read_text(encoding="ascii") if kept.exists() else ""
    return known if today in known else known + today


def todays_root(plan: LabPlan) -> str:
    """Fetch the root in use, over TLS that the lab's own certificate verifies."""
    from ops.lab.fleet_plan import OUTSIDE
    from ops.lab.outside import CA_FILE, MANAGEMENT_PORT

    url = f"https://{plan.address(OUTSIDE)}:{MANAGEMENT_PORT}/roots/0"
    context = ssl.create_default_context(cafile=str(plan.paths.authority / CA_FILE))
    for patience in range(BOOT_SECONDS, -1, -1):
        try:
            with urllib.request.urlopen(url, timeout=10, context=context) as response:
                return str(response.read().decode("ascii"))
        except OSError as error:
            if not patience:
                raise OpsError(
                    f"the lab's certificate authority does not answer: {error}",
                    place=url,
                    cure=f"ops lab up --name {plan.name}",
                ) from error
        time.sleep(1)
    raise AssertionError("unreachable")
