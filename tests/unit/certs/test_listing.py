"""Certificates as a table: what each proves, whose it is, and what cannot be seen."""

from pathlib import Path
from typing import Any

from rendering import init_plugin_loader  # finds the collection

from ops.certs.listing import CA, EDGE, HOST, listing
from ops.errors import RemoteError
from ops.fleet.model import Fleet, Host
from ops.secrets.rotation import BOTH, FINAL, SWITCHED, move, prepare
from ops.secrets.store import Entries, used

assert init_plugin_loader
from ansible_collections.rackhand.host.plugins.lookup.fleet_certificate import (  # noqa: E402
    CA_CERTIFICATE,
    CA_KEY,
    Authority,
    is_good,
    make_ca,
)

FLEET = Fleet(
    Path("inventory"),
    "agent.example.com",
    tuple(Host(name, "", frozenset({"edge"}), "") for name in ("edge1", "edge2")),
)


def entries() -> Entries:
    made: Entries = {}
    authority = Authority(made)
    authority.ensure_ca()
    authority.ensure_host("gpu1", ["10.0.0.2", "gpu1"])
    return made


def test_edges_the_ca_and_hosts_are_told_with_what_is_left() -> None:
    made = entries()

    def ask(_fleet: Fleet, host: Host) -> str:
        if host.name == "edge2":
            raise RemoteError("edge2 does not answer")
        return str(made["tls/gpu1.crt"]["value"])

    rows = listing(FLEET, made, ask)
    assert [(row.kind, row.where) for row in rows] == [
        (EDGE, "edge2"), (EDGE, "edge1"), (CA, ""), (HOST, "gpu1"),
    ]  # fmt: skip
    lost, edge, ca, host = rows
    assert (lost.problem, lost.days) == ("edge2 does not answer", None)
    assert ca.days is not None and ca.days > 3600
    assert (host.names, host.issuer) == ("10.0.0.2, gpu1", "Rackhand fleet CA")
    assert host.days == edge.days == 396


def test_what_an_edge_says_besides_a_certificate_is_a_problem() -> None:
    rows = listing(FLEET, {}, lambda _fleet, _host: "")
    assert {row.problem for row in rows} == {"it serves no certificate"}


def test_a_ca_that_is_replaced_is_told_beside_the_next_one_and_signs_from_the_switch_on() -> None:
    made: Any = entries()
    certificate, key = make_ca()
    for name, value in ((CA_CERTIFICATE, certificate), (CA_KEY, key)):
        made[name] |= {"next": value, "stage": BOTH}
    assert is_good(made, "gpu1", ["10.0.0.2", "gpu1"])
    assert [row.kind for row in listing(Fleet(Path(), "x", ()), made)] == [CA, CA, HOST]
    for name in (CA_CERTIFICATE, CA_KEY):
        made[name]["stage"] = SWITCHED
    assert not is_good(made, "gpu1", ["10.0.0.2", "gpu1"])
    Authority(made).ensure_host("gpu1", ["10.0.0.2", "gpu1"])
    assert is_good(made, "gpu1", ["10.0.0.2", "gpu1"])


def test_hosts_get_certificates_of_the_new_ca_once_both_are_trusted_and_back() -> None:
    there: Entries = {}
    authority, names = Authority(there), ["node1", "10.0.0.1"]
    authority.ensure_ca()
    authority.ensure_host("node1", names)
    first = used(there["tls/node1.crt"])
    marks = prepare(there, [CA_CERTIFICATE, CA_KEY])
    shown: dict[str, list[str]] = {}
    for stage in (BOTH, SWITCHED, FINAL, SWITCHED, BOTH):
        move(there, marks, stage)
        authority.ensure_host("node1", names)
        assert is_good(there, "node1", names)
        shown.setdefault(stage, []).append(used(there["tls/node1.crt"]))
    assert shown[BOTH][0] == first
    assert shown[SWITCHED][0] == shown[FINAL][0]
    assert len({*shown[BOTH], *shown[SWITCHED]}) == 3  # back under the old CA with a third one
