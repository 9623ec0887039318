"""What a host's firewall lets in: the rules in force, and those that its inventory asks for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ops.fleet.model import Fleet, Host
from ops.verify.ports import fleet_ports, ssh_ports, world_ports

TABLE = "inet rackhand"
PROTOCOLS = ("tcp", "udp")


@dataclass(frozen=True, order=True)
class Opening:
    """A port that is open to somebody; no sources mean everyone."""

    protocol: str
    port: str
    sources: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As a person says it."""
        return f"{self.port}/{self.protocol} to {', '.join(self.sources) or 'everyone'}"


def wanted_openings(fleet: Fleet, host: Host) -> set[Opening]:
    """What the inventory asks the firewall of a host to let in."""
    peers = () if fleet.single else tuple(sorted({each.private_address for each in fleet.hosts}))
    allowed = [str(source) for source in host.variables.get("hardening_ssh_from") or []]
    found = {Opening("tcp", str(port)) for port in world_ports(host)}
    for port in ssh_ports(host):
        found |= {Opening("tcp", str(port), (source,)) for source in allowed or [""] if source}
        found |= set() if allowed else {Opening("tcp", str(port))}
    inner = fleet_ports(fleet, host) | (ssh_ports(host) if allowed and peers else set())
    found |= {Opening("tcp", str(port), peers) for port in inner}
    for entry in host.variables.get("hardening_firewall_openings") or []:
        for source in entry.get("from") or [""]:
            sources = (str(source),) if source else ()
            found.add(Opening(entry.get("proto", "tcp"), str(entry["port"]), sources))
    return found


def openings_in_force(listed: str) -> set[Opening]:
    """Read what the rules of a host let in.

    Args:
        listed: What `nft -j list table inet rackhand` printed.

    Returns:
        Every port that a rule accepts, those of containers' interfaces left out.
    """
    rules: dict[str, list[list[dict[str, Any]]]] = {}
    for entry in json.loads(listed)["nftables"]:
        if rule := entry.get("rule"):
            rules.setdefault(rule["chain"], []).append(rule["expr"])
    return _openings(rules, "input", ())


def input_policy(listed: str) -> str:
    """Return the policy of the chain that judges what comes in; empty where there is none."""
    for entry in json.loads(listed)["nftables"]:
        chain = entry.get("chain", {})
        if chain.get("hook") == "input":
            return str(chain.get("policy", "accept"))
    return ""


def _openings(
    rules: dict[str, list[list[dict[str, Any]]]], chain: str, outer: tuple[str, ...]
) -> set[Opening]:
    found: set[Opening] = set()
    for expressions in rules.get(chain, []):
        matches = [each["match"] for each in expressions if "match" in each]
        sources = outer
        ports: list[tuple[str, str]] = []
        interface = any("meta" in m["left"] and _is_interface(m["left"]) for m in matches)
        for match in matches:
            payload = match["left"].get("payload", {}) if isinstance(match["left"], dict) else {}
            if payload.get("field") == "saddr":
                sources = tuple(sorted(_values(match["right"])))
            elif payload.get("field") == "dport" and payload.get("protocol") in PROTOCOLS:
                ports += [(payload["protocol"], value) for value in _values(match["right"])]
        if interface:
            continue
        jumps = [each["jump"]["target"] for each in expressions if "jump" in each]
        for target in jumps:
            found |= _openings(rules, target, sources)
        if any("accept" in each for each in expressions):
            found |= {
                Opening(protocol, port, sources)
                for protocol, port in ports
                if (protocol, port) != ("udp", "546")  # DHCPv6's answers
            }
    return found


def _is_interface(left: dict[str, Any]) -> bool:
    return left["meta"].get("key") in ("iifname", "iif")


def _values(right: Any) -> list[str]:
    if isinstance(right, dict) and "set" in right:
        return [text for each in right["set"] for text in _values(each)]
    if isinstance(right, dict) and "prefix" in right:
        return [f"{right['prefix']['addr']}/{right['prefix']['len']}"]
    if isinstance(right, dict) and "range" in right:
        return ["-".join(str(end) for end in right["range"])]
    return [str(right)]
