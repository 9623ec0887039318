"""What the remediator's host gets: it stands alone, knows its fleet, and passes its own gates."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rendering import ROOT
from test_gate import programs as programs  # a fixture

from ops.app import edge
from ops.engine import switchboard, traffic
from ops.errors import InputError
from ops.fleet.model import Fleet, Host
from ops.models import state as model_state
from ops.operations.work import Context, make_work
from ops.remedy.fleet_file import ACCOUNT, load_fleet
from ops.remedy.gate_program import judge
from ops.remedy.plans import plan_action
from ops.remedy.policy import Action, Waits
from ops.remote import ssh_config
from ops.restarts import engine_steps, gpu_steps, host_steps

ABSENT = ("ansible", "ansible_runner", "typer", "rich", "jinja2", "httpx2", "ruamel", "jsonschema")
IMPORTS = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None
from importlib import import_module
for name in sys.argv[2].split(","):
    import_module(name)
print(*sorted({name for name in sys.modules if name.split(".")[0] == "ops"}))
"""
FLEET: dict[str, Any] = {
    "domain": "agent.example.com",
    "hosts": {
        name: {
            "ansible_host": f"10.0.0.{number}",
            "ansible_port": 22,
            "private_address": f"10.0.0.{number}",
            "group_names": groups.split(),
            "agent_app_base_port": 8200,
            "agent_app_instances": 1,
            "models": [{"name": "demo", "source": "hf://a/b", "revision": "r1", "gpus": [0]}],
        }
        for number, (name, groups) in enumerate(
            {"gpu1": "gpu agent", "gpu2": "gpu", "db": "data edge monitoring"}.items(), 1
        )
    },
}


SLOT = {"requests": 0, "restarts": 0, "active": "active"}
ANSWERS = {
    "survey": json.dumps({"slots": {"blue": SLOT, "green": SLOT}}),
    "connections": '{"count": 0}',
    "look_at": '{"active": "active", "why": "", "restarts": 0}',
    **dict.fromkeys(("set_out", "set_held"), "{}"),
}


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps(FLEET))
    return load_fleet(path, tmp_path / "ssh_key", tmp_path / "known_hosts")


def test_it_needs_nothing_of_a_checkout_but_the_packages_that_it_ships() -> None:
    project = tomllib.loads((ROOT / "ops/pyproject.toml").read_text())
    steps = "ops.restarts.gpu_steps,ops.restarts.host_steps,ops.restarts.engine_steps"
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, ",".join(ABSENT), f"ops.remedy.service,{steps}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shipped = set(project["tool"]["setuptools"]["packages"])
    for module in done.stdout.split():
        assert module in shipped or module.rpartition(".")[0] in shipped, module
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["project"]["dependencies"]) <= set(whole["project"]["dependencies"])


def test_the_fleet_is_reached_by_its_own_key_and_known_hosts(fleet: Fleet) -> None:
    text = ssh_config(fleet)
    assert text.count(f"User {ACCOUNT}") == 3
    assert "StrictHostKeyChecking yes" in text
    assert not any(host.become for host in fleet.hosts)
    assert fleet.first("data").name == "db"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"hosts": {"a": 1}, "domain": "x"}'])
def test_a_broken_fleet_file_is_an_error_with_its_cure(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fleet.json"
    path.write_text(text)
    with pytest.raises(InputError, match="cannot be read"):
        load_fleet(path, tmp_path, tmp_path)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every command that a step sends to a host."""
    told: list[str] = []

    def run(_connection: Any, _host: Host, command: str) -> str:
        told.append(command)
        if command == gpu_steps.ENABLED:
            return "gpu_exporter.service enabled enabled\n"
        if command.startswith("cat /etc/ansible"):
            return json.dumps({"models": {"demo": {"active": "blue"}}})
        if command == f"cat {host_steps.BOOT_ID}":
            return str(sum(text == host_steps.ORDER for text in told))
        if command == gpu_steps.LIST:
            return "engine@demo-blue.service loaded active running x\n"
        if "--query-gpu" in command:
            return "0\n"
        words = shlex.split(command)
        verb = words[3] if words[:2] == ["python3", "-c"] and len(words) > 3 else ""
        return ANSWERS.get(verb, "0")

    @contextmanager
    def connect(_fleet: Fleet, host: Host) -> Iterator[str]:
        yield host.name

    for module in (traffic, gpu_steps, host_steps, engine_steps, switchboard, edge):
        if hasattr(module, "run"):
            monkeypatch.setattr(module, "run", run)
        if hasattr(module, "connect"):
            monkeypatch.setattr(module, "connect", connect)
    monkeypatch.setattr("ops.app.host.run", run)
    monkeypatch.setattr(host_steps, "_unwell", lambda *_: "")
    for module in (traffic, switchboard, host_steps):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.0)
    monkeypatch.setattr("ops.app.host.POLL_SECONDS", 0.0)
    state = model_state.ModelOnHost("gpu1", "blue", {"revision": "r1"})
    monkeypatch.setattr("ops.remedy.plans.survey", lambda *_: [state])
    return told


@pytest.mark.parametrize("action", [a for a in Action if a != Action.NONE])
def test_every_command_of_every_step_passes_the_gate(
    action: Action, fleet: Fleet, said: list[str], programs: dict[str, str]
) -> None:
    plan = plan_action(fleet, action, "gpu1", 0, "", Waits(), "why")
    for step in plan.steps:
        noted: dict[str, Any] = {}
        context = Context(fleet, "20261126-030000-x", lambda _: None, noted.update)
        work = make_work(context, step, {})
        work.do()
        make_work(context, step, noted).undo()
    refused = [command for command in said if not judge(command, programs)[0]]
    assert [command[-300:] for command in refused] == []
    assert len(said) > 5


def test_an_action_that_is_none_is_refused(fleet: Fleet) -> None:
    with pytest.raises(InputError, match="nothing to do"):
        plan_action(fleet, Action.NONE, "gpu1", None, "", Waits(), "")
