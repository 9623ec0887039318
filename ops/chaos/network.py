"""Cut and lossy networks: one nftables table of the bridge, on this machine, made from all faults.

Rules lie where a host's reboot or a service's own firewall cannot reach them, and end with one
command whatever became of the host.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ops.chaos.record import Record
from ops.lab.commands import run
from ops.lab.fleet_plan import LabPlan

FULL_PACKET_BITS = 12_000  # 1500 bytes
TBF_QUEUE_MS = 2000  # what waits longer than that is dropped


def table(plan: LabPlan) -> str:
    """The table's name."""
    return f"rackhand_chaos_{plan.name.replace('-', '_')}"


def ruleset(plan: LabPlan, records: Sequence[Record]) -> str:
    """What `nft -f -` is told for the faults there are; without one the table goes."""
    name = table(plan)
    lines = [f"table bridge {name} {{}}", f"delete table bridge {name}"]
    rules = [rule for record in records for rule in _rules(plan, record)]
    if rules:
        lines.append(f"table bridge {name} {{")
        for hook in ("forward", "input", "output"):
            lines += [
                f"  chain {hook} {{",
                f"    type filter hook {hook} priority filter;",
                *(f"    {rule}" for rule in rules),
                "  }",
            ]
        lines.append("}")
    return "\n".join(lines) + "\n"


def _rules(plan: LabPlan, record: Record) -> list[str]:
    if record.fault not in ("net-cut", "net-loss"):
        return []
    chance = f"numgen random mod 100 < {record.amount} " if record.fault == "net-loss" else ""
    one = plan.address(record.host)
    if not record.what:
        return [f"ip saddr {one} {chance}drop", f"ip daddr {one} {chance}drop"]
    other = plan.address(record.what)
    return [
        f"ip saddr {one} ip daddr {other} {chance}drop",
        f"ip saddr {other} ip daddr {one} {chance}drop",
    ]


def apply(plan: LabPlan, records: Sequence[Record]) -> None:
    """Make the network what the faults say."""
    run(["nft", "-f", "-"], stdin=ruleset(plan, records))


def remove(plan: LabPlan) -> None:
    """Take the table away, whether it is there or not."""
    apply(plan, [])


def delays(milliseconds: int) -> list[list[str]]:
    """The queues that stand for a delay, as `tc` is told: the best first."""
    rate = max(8, FULL_PACKET_BITS // milliseconds)  # bits per ms are kbit/s
    return [
        ["netem", "delay", f"{milliseconds}ms"],
        ["tbf", "rate", f"{rate}kbit", "burst", "1600", "latency", f"{TBF_QUEUE_MS}ms"],
    ]


def delay(plan: LabPlan, host: str, milliseconds: int) -> str:
    """Delay what goes to a host.

    Returns:
        The kind of queue that does it: `netem`, or `tbf` where the kernel lacks that.
    """
    link = _link(plan, host)
    queues = delays(milliseconds)
    for words in queues:
        command = ["tc", "qdisc", "replace", "dev", link, "root", *words]
        if run(command, check=words is queues[-1]).returncode == 0:
            return words[0]
    raise AssertionError("the last one is checked")


def undelay(plan: LabPlan, host: str) -> None:
    """Give the host's link the queue it has by itself."""
    run(["tc", "qdisc", "delete", "dev", _link(plan, host), "root"], check=False)


def _link(plan: LabPlan, host: str) -> str:
    """This machine's end of a host's link; nspawn shortens long names, and keeps them beside."""
    machine = json.loads(plan.paths.host(host).config.read_text())["machine"]
    found = json.loads(run(["ip", "-json", "link", "show", "dev", f"vb-{machine}"]).stdout)
    return str(found[0]["ifname"])
