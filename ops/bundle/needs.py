"""What an inventory needs from outside: packages, locks and weights, by distribution."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.bundle.distributions import Distribution, find
from ops.errors import InputError, OpsError
from ops.fleet.model import Fleet, Host
from ops.places import ROOT

#: What Ansible's own modules need of a host, beside what the roles ask for.
PREREQUISITES = ("python3-apt",)
DISTRIBUTION = "site_distribution"  # variable of a host whose distribution is another one


@dataclass(frozen=True)
class Weights:
    """A revision of a model, and where the inventory has it from."""

    name: str
    revision: str
    source: str


@dataclass
class Packages:
    """Debian packages that roles ask for.

    Attributes:
        with_recommends: With what each recommends, as apt has it by default.
        bare: Without.
        elsewhere: Those that a role takes from a repository of its own, where it can be had.
    """

    with_recommends: set[str] = field(default_factory=set)
    bare: set[str] = field(default_factory=set)
    elsewhere: set[str] = field(default_factory=set)


@dataclass
class Needs:
    """Everything from outside.

    Attributes:
        packages: By name of a distribution.
        locks: Hashed locks, each with the distributions whose Python installs it.
        weights: Models.
        hosts: Distribution of each host.
        untold: What only a host could tell, as `role: argument`; the bundle lacks it.
    """

    packages: dict[str, Packages] = field(default_factory=dict)
    locks: dict[Path, set[str]] = field(default_factory=dict)
    weights: list[Weights] = field(default_factory=list)
    hosts: dict[str, str] = field(default_factory=dict)
    untold: set[str] = field(default_factory=set)

    @property
    def distributions(self) -> list[Distribution]:
        """Those of the hosts, by name."""
        return [find(name) for name in sorted(set(self.hosts.values()))]


def collect(fleet: Fleet, distribution: str) -> Needs:
    """Ask the roles what they would install on the hosts of an inventory.

    Args:
        fleet: The inventory.
        distribution: Of hosts that do not name theirs in `site_distribution`.

    Raises:
        InputError: An unknown distribution, or an interpreter that the distribution does not have.
        OpsError: Ansible cannot load the roles; with its words.
    """
    found = Needs()
    facts = {}
    for host in fleet.hosts:
        own = find(str(host.variables.get(DISTRIBUTION) or distribution))
        found.hosts[host.name] = own.name
        found.packages.setdefault(own.name, Packages(with_recommends=set(PREREQUISITES)))
        facts[host.name] = {**own.facts, "fleet_host_gpus": gpus(host)}
    for need in ask(fleet.inventory, facts):
        add(found, need)
    return found


def gpus(host: Host) -> int:
    """GPUs that a host must have for its models."""
    entries = host.variables.get("models") or ()
    named = [int(gpu) for entry in entries for gpu in entry.get("gpus") or ()]
    return max(named, default=-1) + 1 if "gpu" in host.groups else 0


def ask(inventory: Path, facts: Mapping[str, Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """Run `role_tasks`."""
    done = subprocess.run(
        [sys.executable, "-m", "ops.bundle.role_tasks"],
        input=json.dumps({"inventory": str(inventory.resolve()), "facts": facts}),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        check=False,
    )
    if done.returncode != 0:
        raise OpsError(
            f"Ansible cannot tell what the roles need: {done.stderr.strip()[-1500:]}",
            place=str(inventory),
            cure="ops provision --check shows what is wrong with the inventory",
        )
    needs: list[dict[str, Any]] = json.loads(done.stdout)
    return needs


def add(found: Needs, need: Mapping[str, Any]) -> None:
    """Put one task's wish where it belongs."""
    distribution = found.hosts[need["host"]]
    if need["untold"]:
        found.untold.update(f"{need['role']}: {name}" for name in need["untold"])
        return
    if need["module"] in ("tree", "apt", "package"):
        names = need.get("packages", need.get("name")) or []
        wanted = found.packages[distribution]
        into = wanted.bare if need.get("install_recommends") is False else wanted.with_recommends
        if need["module"] != "tree":  # tasks that a role wrote for packages of other repositories
            into = wanted.elsewhere
        into.update(str(name) for name in ([names] if isinstance(names, str) else names))
    elif need["module"] == "python_environment":
        require_own_python(str(need.get("python") or "/usr/bin/python3"), find(distribution), need)
        found.locks.setdefault(Path(need["lock"]), set()).add(distribution)
    elif need["module"] == "weights":
        weights = Weights(Path(need["path"]).parent.name, need["revision"], need["source"])
        if weights not in found.weights:
            found.weights.append(weights)


def require_own_python(python: str, distribution: Distribution, need: Mapping[str, Any]) -> None:
    """Wheels are chosen for the distribution's Python.

    Raises:
        InputError: A role is told to use another one.
    """
    own = {"/usr/bin/python3", "/usr/bin/python{}.{}".format(*distribution.python)}
    if python not in own:
        raise InputError(
            f"{need['role']}_python is {python}, whose version a bundle cannot know",
            place=need["host"],
            cure=f"use {distribution.name}'s own, or bring that environment's wheels yourself",
        )
