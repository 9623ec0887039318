"""Rotation: what the store holds at each stage, what is planned, deaths between any two steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultSecret
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from ops.app import steps as app_steps
from ops.app.plan import Choices
from ops.app.state import Instance
from ops.errors import InputError, OpsError
from ops.fleet.model import Fleet, Host
from ops.operations.journal import Event, Operation, Status
from ops.operations.plan import Plan, Step
from ops.operations.run import RolledBackError, Runner, StopFlag
from ops.secrets import steps
from ops.secrets.catalogue import BY_NAME, SECRETS, chosen
from ops.secrets.fleet_ca import make_ca
from ops.secrets.plan import plan_rotation
from ops.secrets.rotation import BOTH, FINAL, NONE, SWITCHED, fingerprint, move, prepare
from ops.secrets.store import Entries, SecretStore, accepted, by_turn, new_entry, turn, used

NAMES = ("database_agent_app", "redis_agent_app", "api_key_secret", "database_owner")
FOUND = [Instance("node1", port, "127.0.0.1") for port in (8200, 8201)]


def entries_of(*names: str) -> Entries:
    return {name: new_entry(f"old-{name}") for name in names}


def test_stages_lead_from_the_old_value_to_the_new_and_back() -> None:
    entries = entries_of("redis_agent_app")
    marks = prepare(entries, ["redis_agent_app"])
    old, new = "old-redis_agent_app", entries["redis_agent_app"]["next"]
    seen = {}
    for stage in (BOTH, SWITCHED, FINAL, SWITCHED, BOTH, NONE):
        move(entries, marks, stage)
        entry = entries["redis_agent_app"]
        seen.setdefault(stage, []).append((used(entry), sorted(accepted(entry))))
    both = sorted([old, new])
    assert seen == {
        BOTH: [(old, both)] * 2,
        SWITCHED: [(new, both)] * 2,
        FINAL: [(new, [new])],
        NONE: [(old, [old])],
    }
    assert "next" not in entries["redis_agent_app"]


@pytest.mark.parametrize("stage", [BOTH, SWITCHED, FINAL, NONE])
def test_each_stage_bears_repetition(stage: str) -> None:
    entries = entries_of("redis_agent_app")
    marks = prepare(entries, ["redis_agent_app"])
    move(entries, marks, BOTH)
    move(entries, marks, stage)
    once = json.dumps(entries, sort_keys=True)
    move(entries, marks, stage)
    assert json.dumps(entries, sort_keys=True) == once


def test_two_logins_take_turns() -> None:
    entries = entries_of("database_agent_app")
    for number in range(3):
        before = used(entries["database_agent_app"])
        mine = turn(entries["database_agent_app"])
        marks = prepare(entries, ["database_agent_app"])
        new = entries["database_agent_app"]["next"]
        move(entries, marks, BOTH)
        assert by_turn(entries["database_agent_app"])[mine] == before
        assert by_turn(entries["database_agent_app"])[1 - mine] == new
        assert turn(entries["database_agent_app"]) == mine == number % 2
        move(entries, marks, SWITCHED)
        assert by_turn(entries["database_agent_app"])[mine] == before
        assert turn(entries["database_agent_app"]) == 1 - mine
        move(entries, marks, FINAL)
        assert by_turn(entries["database_agent_app"])[mine] == ""
        assert by_turn(entries["database_agent_app"])[1 - mine] == new


def test_another_inventorys_values_are_refused_and_nothing_changes() -> None:
    mine, other = entries_of("redis_agent_app"), entries_of("redis_agent_app")
    marks = prepare(other, ["redis_agent_app"])
    prepare(mine, ["redis_agent_app"])
    with pytest.raises(OpsError, match="have not the redis_agent_app"):
        move(mine, marks, BOTH)
    assert "stage" not in mine["redis_agent_app"]


def test_a_rotation_under_way_is_not_begun_again() -> None:
    entries = entries_of("redis_agent_app")
    move(entries, prepare(entries, ["redis_agent_app"]), BOTH)
    with pytest.raises(InputError, match="under way"):
        prepare(entries, ["redis_agent_app"])


def test_all_leaves_out_what_somebody_outside_must_be_told_of() -> None:
    there = {secret.name: {} for secret in SECRETS}
    names = {secret.name for secret in chosen([], there)}
    assert names == {secret.name for secret in chosen(["all"], there)}
    assert not names & {"webhook_secret", "audit_secret", "grafana_admin", "backup_passphrase"}
    assert [secret.name for secret in chosen(["webhook_secret"], there)] == ["webhook_secret"]
    for name in ("audit_secret", "nonsense"):
        with pytest.raises(InputError):
            chosen([name], there)


def plan(names: Sequence[str], marks: Mapping[str, str]) -> Plan:
    return plan_rotation("node1", [BY_NAME[name] for name in names], marks, FOUND, Choices())


def test_a_plan_names_layers_and_restarts_and_no_value() -> None:
    entries = entries_of(*NAMES)
    made = plan(NAMES, prepare(entries, NAMES))
    assert [(step.kind, step.values.get("to")) for step in made.steps] == [
        ("secrets.stage", BOTH), ("app.cycle", {}), ("app.cycle", {}),
        ("secrets.stage", SWITCHED), ("app.cycle", {}), ("app.cycle", {}),
        ("secrets.stage", FINAL),
    ]  # fmt: skip
    assert [s.values["layers"] for s in made.steps if s.kind == "secrets.stage"] == [
        ["data", "app"], ["data", "app"], ["data", "app"],
    ]  # fmt: skip
    told = json.dumps(made.as_record())
    for entry in entries.values():
        assert entry["value"] not in told
        assert entry["next"] not in told
    once = plan(["redis_agent_app"], {})
    assert [step.kind for step in once.steps].count("app.cycle") == len(FOUND)


TLS = ("tls/ca.crt", "tls/ca.key")


def test_a_ca_moves_with_its_key_and_both_are_trusted_meanwhile() -> None:
    entries = dict(zip(TLS, map(new_entry, make_ca()), strict=True))
    old = entries[TLS[0]]["value"]
    marks = prepare(entries, TLS)
    new = entries[TLS[0]]["next"]
    trusted = {}
    for stage in (BOTH, SWITCHED, FINAL):
        move(entries, marks, stage)
        certificate = load_pem_x509_certificate(used(entries[TLS[0]]).encode())
        key = load_pem_private_key(used(entries[TLS[1]]).encode(), None)
        assert certificate.public_key() == key.public_key()
        trusted[stage] = accepted(entries[TLS[0]])
    assert trusted == {BOTH: [old, new], SWITCHED: [new, old], FINAL: [new]}


def test_the_plan_of_tls_has_the_app_trust_the_new_ca_first_and_forget_the_old_one_last() -> None:
    made = plan(["tls"], {})
    assert [(step.kind, step.values.get("to")) for step in made.steps] == [
        ("secrets.stage", BOTH), ("app.cycle", {}), ("app.cycle", {}),
        ("secrets.stage", SWITCHED),
        ("secrets.stage", FINAL), ("app.cycle", {}), ("app.cycle", {}),
    ]  # fmt: skip
    stages = [step.values for step in made.steps if step.kind == "secrets.stage"]
    assert [stage["layers"] for stage in stages] == [["tls"]] * 3
    assert [bool(stage["instances"]) for stage in stages] == [True, False, True]


def test_tls_is_rotated_where_there_is_any_and_only_when_it_is_named() -> None:
    there = {name: {} for name in (*TLS, "redis_agent_app")}
    assert [secret.name for secret in chosen([], there)] == ["redis_agent_app"]
    assert [secret.stored for secret in chosen(["tls"], there)] == [TLS]
    with pytest.raises(InputError, match="no secret tls"):
        chosen(["tls"], {"redis_agent_app": {}})


class World:
    """A host in memory: what checks, what shows, and what each instance read when it started."""

    def __init__(self, folder: Path) -> None:
        self.store = SecretStore(folder / ".secrets", [("default", VaultSecret(b"password"))])
        self.fleet = Fleet(
            folder, "example.com", (Host("node1", "", frozenset({"data", "agent"}), ""),)
        )
        with self.store.changing() as entries:
            entries |= entries_of(*NAMES)
        self.taken: dict[str, list[str]] = {}
        self.files: dict[str, Any] = {}
        self.running: dict[int, dict[str, Any]] = {}
        self.play("data,app")
        for instance in FOUND:
            self.restart(instance)

    def play(self, layers: str) -> None:
        entries = self.store.read()
        if "data" in layers:
            for name in ("database_agent_app", "redis_agent_app"):
                self.taken[name] = accepted(entries[name])
        if "app" in layers:
            self.files = {name: used(entries[name]) for name in NAMES}
            entry = entries["api_key_secret"]
            self.files["keys"] = accepted(entry)

    def restart(self, instance: Instance) -> None:
        self.running[instance.port] = dict(self.files)

    def assert_serves(self) -> None:
        """Each instance may log in, and knows what each other one hashes keys with."""
        for one in self.running.values():
            for name in ("database_agent_app", "redis_agent_app"):
                assert one[name] in self.taken[name]
            for another in self.running.values():
                assert another["api_key_secret"] in one["keys"]


class DeathError(BaseException):
    """The operator's machine is gone."""


class Journal:
    """Takes entries, and dies before or after one of them."""

    def __init__(self, dies_at: int, after: bool) -> None:
        self.left, self.after = dies_at, after
        self.entries: list[dict[str, Any]] = []

    def append(self, event: str, **fields: Any) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise DeathError
        self.entries.append({"event": event, **fields})
        if self.left == 0:
            raise DeathError


class Silent:
    def opened(self, operation: Operation, how: str) -> None: ...
    def step(self, number: int, step: Step, event: Event, seconds: float, why: str) -> None: ...
    def say(self, words: str) -> None: ...


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)

    def run(_playbook: Path, _inventory: Path, *, arguments: Sequence[str]) -> tuple[int, Any]:
        made.play(arguments[1])
        made.assert_serves()
        return 0, type("Progress", (), {"failures": []})

    def cycle(self: Any) -> None:
        for instance in self._instances():
            made.restart(instance)
        made.assert_serves()

    monkeypatch.setattr(steps, "run_playbook", run)
    monkeypatch.setattr(steps, "store_of", lambda _inventory: made.store)
    monkeypatch.setattr(app_steps.Cycle, "do", cycle)
    monkeypatch.setattr(app_steps.Cycle, "undo", lambda self: None)
    return made


def begun(world: World) -> Operation:
    with world.store.changing() as entries:
        marks = prepare(entries, NAMES)
    return Operation("op", plan(NAMES, marks))


def values(world: World) -> dict[str, str]:
    return {name: used(entry) for name, entry in world.store.read().items()}


def test_all_secrets_are_replaced_and_the_old_ones_taken_no_more(world: World) -> None:
    old = values(world)
    operation = begun(world)
    Runner(world.fleet, operation, Journal(0, True), Silent(), StopFlag()).forward()
    new = values(world)
    assert not set(old.values()) & set(new.values())
    for running in world.running.values():
        assert {name: running[name] for name in NAMES if name != "database_owner"} == {
            name: value for name, value in new.items() if name != "database_owner"
        }
    assert world.taken["redis_agent_app"] == [new["redis_agent_app"]]
    assert world.store.read()["api_key_secret"]["retired"] == old["api_key_secret"]


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("dies_at", range(1, 15))
def test_a_death_at_any_entry_is_resumed_or_taken_back(
    world: World, dies_at: int, after: bool, back: bool
) -> None:
    old, operation = values(world), begun(world)
    marks = operation.plan.steps[0].values["fingerprints"]
    journal = Journal(dies_at, after)
    with pytest.raises(DeathError):
        Runner(world.fleet, operation, journal, Silent(), StopFlag()).forward()
    world.assert_serves()
    found = replace(operation, entries=tuple(journal.entries))
    runner = Runner(world.fleet, found, Journal(0, True), Silent(), StopFlag())
    if back and not found.ended:
        runner.turn()
        ended = runner.backward()
        assert ended.status == Status.ROLLED_BACK
        assert values(world) == old
        assert all("stage" not in entry for entry in world.store.read().values())
        for running in world.running.values():
            assert {n: running[n] for n in NAMES if n != "database_owner"} == {
                n: v for n, v in old.items() if n != "database_owner"
            }
    else:
        if not found.ended:
            assert runner.forward().status == Status.DONE
        assert {name: fingerprint(value) for name, value in values(world).items()} == marks
    world.assert_serves()


def test_a_playbook_that_fails_brings_all_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, operation = values(world), begun(world)
    runs = 0

    def run(_playbook: Path, _inventory: Path, *, arguments: Sequence[str]) -> tuple[int, Any]:
        nonlocal runs
        runs += 1
        failures = []
        if runs == 2:
            failed = {"host": "node1", "message": "disk full", "role": "agent_app", "task": "t"}
            failures = [type("Failure", (), failed)]
        else:
            world.play(arguments[1])
        return 0, type("Progress", (), {"failures": failures})

    monkeypatch.setattr(steps, "run_playbook", run)
    with pytest.raises(RolledBackError, match="disk full"):
        Runner(world.fleet, operation, Journal(0, True), Silent(), StopFlag()).forward()
    assert values(world) == old
    world.assert_serves()
