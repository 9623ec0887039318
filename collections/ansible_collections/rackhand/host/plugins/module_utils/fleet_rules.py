# Copyright: the Rackhand founders
"""What a fleet as a whole must satisfy, beyond the types of single variables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: RFC 1123 host name with at least two labels, as a public CA asks for.
DOMAIN = re.compile(
    r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])"
)
MODEL_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
SOURCE = re.compile(r"(hf://[\w.-]+/[\w.-]+|file:///.+|host:///.+)")


@dataclass
class Problem:
    """One thing that stops the run: where, what, and the cure."""

    name: str
    host: str
    what: str
    cure: str

    def __str__(self) -> str:
        """The line a person reads."""
        place = f" (host {self.host})" if self.host else ""
        return f"{self.name}{place}: {self.what.rstrip('.')}. Cure: {self.cure.rstrip('.')}."


def check_fleet(groups: Mapping[str, list[str]], hostvars: Mapping[str, Any]) -> list[Problem]:
    """Rules over the whole fleet; types have been checked before.

    Args:
        groups: Ansible's groups, name to hosts.
        hostvars: Every host's variables.
    """
    problems = list(check_groups(groups))
    for host in groups.get("edge", []):
        problems += check_domain(host, hostvars[host])
    for host in groups["all"]:
        if len(groups["all"]) > 1 and not hostvars[host].get("private_address"):
            cure = f"set private_address in host_vars/{host}.yml to the address others use"
            problems.append(
                Problem("private_address", host, "missing in a fleet of several hosts", cure)
            )
    for host in groups.get("gpu", []):
        problems += check_models(host, hostvars[host].get("models") or [])
    return problems


def check_groups(groups: Mapping[str, list[str]]) -> Iterator[Problem]:
    """Every layer has a host, and the data layer exactly one; watching takes one at most."""
    for name in ("gpu", "agent", "data", "edge"):
        if not groups.get(name):
            yield Problem(
                f"group {name}", "", "has no host", f"add a host to `{name}` in the inventory"
            )
    if len(groups.get("monitoring", [])) > 1:
        yield Problem(
            "group monitoring", "", "has several hosts", "keep one: two would tell each alert twice"
        )
    if len(groups.get("data", [])) > 1:
        yield Problem(
            "group data", "", "has several hosts", "keep one: replicas are not Rackhand's to make"
        )


def check_domain(host: str, variables: Mapping[str, Any]) -> Iterator[Problem]:
    """The name that the edge answers to."""
    domain = variables.get("domain")
    if not DOMAIN.fullmatch(str(domain)):
        yield Problem(
            "domain", host, f"{domain!r} is no domain name",
            "write the full lower-case name that the edge answers to, like agent.example.com",
        )  # fmt: skip


def check_models(host: str, models: list[dict[str, Any]]) -> Iterator[Problem]:
    """What the engines of one host are to serve."""
    if not models:
        yield Problem(
            "models", host, "no model is named",
            "add one with name, source and revision (docs/install.md shows a sample)",
        )  # fmt: skip
    names = Counter(model["name"] for model in models)
    for name, count in names.items():
        if count > 1:
            yield Problem("models", host, f"{count} models are called {name!r}", "rename one")
    for index, model in enumerate(models):
        yield from check_model(f"models[{index}]", host, model)


def check_model(place: str, host: str, model: dict[str, Any]) -> Iterator[Problem]:
    """One model: name, revision, source, and its share of the GPUs."""
    patterns = {
        "name": (MODEL_NAME, "use a-z, 0-9 and dashes"),
        "revision": (REVISION, "use letters, digits, dots, dashes and underscores"),
        "source": (SOURCE, "use hf://organisation/name, file:///folder or host:///folder"),
    }
    for key, (pattern, cure) in patterns.items():
        if not pattern.fullmatch(str(model[key])):
            yield Problem(f"{place}.{key}", host, f"{model[key]!r} is not usable", cure)
    source = str(model["source"])
    if source.startswith("file://"):
        folder = Path(source.removeprefix("file://"))
        if not (folder / "config.json").is_file():
            yield Problem(
                f"{place}.source", host, f"{folder} on this machine holds no model (config.json)",
                "name the folder that the weights are in",
            )  # fmt: skip
    parallel, gpus = int(model.get("tensor_parallel") or 1), model.get("gpus") or []
    if gpus and parallel != len(gpus):
        yield Problem(
            f"{place}.tensor_parallel", host, f"is {parallel} with {len(gpus)} GPU(s) listed",
            f"set it to {len(gpus)}, or list {parallel} GPU(s)",
        )  # fmt: skip
