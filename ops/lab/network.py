"""A lab's network: one bridge and one nftables table, both named after the lab."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ops.errors import OpsError
from ops.lab.commands import run
from ops.lab.fleet_plan import LabPlan, load_plan
from ops.lab.locks import MACHINE_LOCK, locked
from ops.lab.paths import STATE

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
FORWARDING_WAS_OFF = STATE / "ip_forward_was_off"
INDEXES = range(1, 250)


def allot(name: str, image_name: str, size: int) -> LabPlan:
    """Give a new lab a range of addresses that nothing on this machine uses, and save its plan.

    Raises:
        OpsError: No range is free.
    """
    with locked(MACHINE_LOCK):
        taken = {plan.index for plan in other_labs(name)}
        addresses = json.dumps(_ip("address", "show")) + json.dumps(_ip("route", "show"))
        for index in INDEXES:
            plan = LabPlan(name, index, image_name, size)
            if index not in taken and f"10.77.{index}." not in addresses:
                plan.save()
                return plan
    raise OpsError(
        "No address range 10.77.N.0/24 is free", place="ip address", cure="ops lab down --name …"
    )


def ensure_network(plan: LabPlan) -> None:
    """Bring bridge, address, forwarding and address translation to the wanted state."""
    if not _link_exists(plan.bridge):
        run(["ip", "link", "add", plan.bridge, "type", "bridge"])
    run(["ip", "address", "replace", f"{plan.gateway}/24", "dev", plan.bridge])
    run(["ip", "link", "set", plan.bridge, "up"])
    with locked(MACHINE_LOCK):
        if FORWARDING.read_text().strip() == "0":
            FORWARDING_WAS_OFF.touch()
            FORWARDING.write_text("1")
    _load_rules(plan)


def close(plan: LabPlan) -> None:
    """Cut the way outside: hosts reach each other, `outside` and this machine's bridge address.

    It stays closed, over `ops lab up` too, until `reopen`.
    """
    _closed(plan).touch()
    _load_rules(plan)


def reopen(plan: LabPlan) -> None:
    """Give hosts the way outside back."""
    _closed(plan).unlink(missing_ok=True)
    _load_rules(plan)


def is_closed(plan: LabPlan) -> bool:
    """Whether the way outside is cut."""
    return _closed(plan).exists()


def rules(plan: LabPlan, closed: bool) -> str:
    """The lab's nftables table: address translation, or where it is closed two walls.

    Args:
        plan: The lab.
        closed: Whether nothing may leave its bridge but to this machine's address on it.
    """
    walls = f"""\
  chain forward {{
    type filter hook forward priority filter;
    iifname "{plan.bridge}" oifname != "{plan.bridge}" drop
  }}
  chain input {{
    type filter hook input priority filter;
    iifname "{plan.bridge}" ip daddr != {plan.gateway} drop
  }}
"""
    translation = f"""\
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    ip saddr {plan.subnet} oifname != "{plan.bridge}" masquerade
  }}
"""
    table = f"table ip {plan.table}"
    return f"{table} {{}}\ndelete {table}\n{table} {{\n{walls if closed else translation}}}\n"


def _load_rules(plan: LabPlan) -> None:
    run(["nft", "-f", "-"], stdin=rules(plan, is_closed(plan)))


def _closed(plan: LabPlan) -> Path:
    return plan.paths.root / "closed"


def remove_network(plan: LabPlan) -> None:
    """Take away all that `ensure_network` made; any of it may be gone already."""
    run(["nft", "-f", "-"], stdin=f"table ip {plan.table} {{}}\ndelete table ip {plan.table}\n")
    if _link_exists(plan.bridge):
        for link in _ip("link", "show", "master", plan.bridge):
            run(["ip", "link", "delete", str(link["ifname"])], check=False)
        run(["ip", "link", "delete", plan.bridge])
    with locked(MACHINE_LOCK):
        if not other_labs(plan.name) and FORWARDING_WAS_OFF.exists():
            FORWARDING.write_text("0")
            FORWARDING_WAS_OFF.unlink()


def forwarding_obstacle(plan: LabPlan) -> str | None:
    """A firewall of this machine that would keep the lab's packets from leaving it.

    Returns:
        What is in the way and the cure, or None.
    """
    ruleset: dict[str, Any] = json.loads(run(["nft", "-j", "list", "chains"]).stdout)
    for entry in ruleset["nftables"]:
        chain = entry.get("chain", {})
        if chain.get("hook") == "forward" and chain.get("policy") == "drop":
            return (
                f"the chain {chain['family']} {chain['table']} {chain['name']} drops forwarded "
                "packets, so hosts may not reach package archives; cure: "
                f"iptables -I FORWARD -i {plan.bridge} -j ACCEPT; "
                f"iptables -I FORWARD -o {plan.bridge} -j ACCEPT"
            )
    return None


def other_labs(name: str) -> list[LabPlan]:
    """This machine's labs but the one of that name."""
    found = (load_plan(path.parent.name) for path in (STATE / "labs").glob("*/lab.json"))
    return [plan for plan in found if plan is not None and plan.name != name]


def _ip(*words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(["ip", "-json", *words]).stdout or "[]")
    return found


def _link_exists(name: str) -> bool:
    return Path("/sys/class/net", name).exists()
