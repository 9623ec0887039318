"""Who hands to whom: the schedule, and its servers and fetchers, of which each may fail."""

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops.errors import OpsError, RemoteError
from ops.fleet.model import Fleet, Host
from ops.weights import peer, spread
from ops.weights.shelf import Revision, Shelf
from ops.weights.spread import Spreading, pair


def test_a_host_hands_to_two_at_once_and_those_that_have_it_share_the_work() -> None:
    assert pair(["b", "c", "d"], {"a": 0}, ()) == [("a", "b"), ("a", "c")]
    assert pair(["d", "e"], {"a": 2, "b": 0, "c": 1}, ()) == [("b", "d"), ("b", "e")]
    assert pair(["d"], {"a": 2}, ()) == []


def test_a_pair_that_failed_is_not_tried_again() -> None:
    assert pair(["c"], {"a": 0, "b": 1}, {("a", "c")}) == [("b", "c")]


class World:
    """A fleet in which fetching takes no time, and what happened."""

    def __init__(self, count: int, having: set[str]) -> None:
        hosts = [
            Host(f"gpu{n}", f"192.0.2.{n}", frozenset({"gpu"}), f"10.0.0.{n}")
            for n in range(1, count + 1)
        ]
        self.fleet = Fleet(Path("inventory"), "example.com", tuple(hosts))
        self.have, self.away = set(having), set[str]()
        self.handed: list[tuple[str, str]] = []
        self.served, self.stopped = Counter[str](), Counter[str]()
        self.fails: Callable[[str, str], str] = lambda _s, _t: ""
        self.lock = threading.Lock()
        self.digests = {"gpu9": "other"}
        self.said: list[str] = []

    def ask(self, hosts: Any) -> list[Shelf]:
        if gone := [h.name for h in hosts if h.name in self.away]:
            raise RemoteError(f"{gone[0]} cannot be reached")
        return [
            Shelf(h.name, models={"demo": self.revisions(h.name)} if h.name in self.have else {})
            for h in hosts
        ]

    def revisions(self, name: str) -> tuple[Revision, ...]:
        return (Revision("v2", True, 1, 0.0, self.digests.get(name, "same")),)

    def serve(self, _fleet: Fleet, host: Host, parcel: Any, peers: Any) -> None:
        assert host.name not in {p.name for p in peers}
        assert len(parcel.token) == 64
        self.served[host.name] += 1

    def fetch(self, _fleet: Fleet, target: Host, source: Host, parcel: Any, heard: Any) -> None:
        heard(1, 2)
        assert source.name in self.have
        assert parcel.digest == "same"
        if why := self.fails(source.name, target.name):
            raise OpsError(why)
        with self.lock:
            self.have.add(target.name)
            self.handed.append((source.name, target.name))

    def run(self, sources: list[str]) -> None:
        hosts = self.fleet.hosts
        spreading = Spreading(self.fleet, "demo", "v2", self.said.append)
        spreading.run([h for h in hosts if h.name in sources], list(hosts))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(12, {"gpu1"})
    monkeypatch.setattr(spread, "survey", lambda _fleet, hosts: made.ask(hosts))
    monkeypatch.setattr(
        spread, "survey_those_up",
        lambda _fleet, hosts: made.ask([h for h in hosts if h.name not in made.away]),
    )  # fmt: skip
    monkeypatch.setattr(peer, "serve", made.serve)
    monkeypatch.setattr(peer, "fetch", made.fetch)
    monkeypatch.setattr(peer, "stop", lambda _fleet, host: made.stopped.update([host.name]))
    return made


def test_every_host_gets_it_once_and_many_help(world: World) -> None:
    world.run(["gpu1"])
    assert len(world.have) == 12
    assert Counter(target for _, target in world.handed).most_common(1)[0][1] == 1
    assert len({source for source, _ in world.handed}) > 2
    assert set(world.served.values()) == {1}
    assert set(world.stopped) == set(world.served), "a server was left behind"


def test_hosts_that_have_it_are_left_alone_and_serve_nobody_for_nothing(world: World) -> None:
    world.have = {host.name for host in world.fleet.hosts}
    world.run(["gpu1"])
    assert not world.served


def test_a_source_that_fails_is_replaced_by_another(world: World) -> None:
    world.have = {"gpu1", "gpu2"}
    world.fails = lambda source, _t: "the line broke" if source == "gpu1" else ""
    world.run(["gpu1", "gpu2"])
    assert len(world.have) == 12
    assert set(world.stopped) == set(world.served)


def test_a_target_that_fails_keeps_nobody_else_from_it_and_is_named(world: World) -> None:
    world.fails = lambda _s, target: "gpu5 fell silent" if target == "gpu5" else ""
    with pytest.raises(OpsError, match="gpu5 did not get demo v2") as failed:
        world.run(["gpu1"])
    assert len(world.have) == 11
    assert "fell silent" in failed.value.message
    assert set(world.stopped) == set(world.served)
    world.fails = lambda _s, _t: ""
    world.run(["gpu1"])
    assert len(world.have) == 12


def test_a_host_with_other_files_under_that_name_gives_nothing(world: World) -> None:
    world.have = {"gpu1", "gpu9"}
    world.run(["gpu1", "gpu9"])
    assert "gpu9" not in {source for source, _ in world.handed}
    assert world.said[0].startswith("gpu9: other files")


def test_nobody_to_give_it_is_an_error_and_a_target_that_is_away_too(world: World) -> None:
    world.have = set()
    with pytest.raises(OpsError, match="no host has demo v2 to give"):
        world.run(["gpu1"])
    world.have, world.away = {"gpu1"}, {"gpu7"}
    with pytest.raises(RemoteError, match="gpu7"):
        world.run(["gpu1"])
    assert not world.handed


def test_the_unit_is_hardened_and_neither_token_nor_key_is_in_its_command() -> None:
    command = peer.unit_command("10.0.0.1", ["10.0.0.2", "10.0.0.3"], "/srv/models/demo/v2")
    for words in (
        "DynamicUser=yes", "IPAddressDeny=any", "IPAddressAllow=10.0.0.2",
        "IPAddressAllow=10.0.0.3", "ProtectSystem=strict", "CapabilityBoundingSet=",
        f"RuntimeMaxSec={peer.MOST_SECONDS + 60}", "LoadCredential=job:/run/rackhand-weights/job",
    ):  # fmt: skip
        assert words in command
    assert "umask 077" in command
    assert "$" not in peer.LOADER
    assert "%" not in peer.LOADER
