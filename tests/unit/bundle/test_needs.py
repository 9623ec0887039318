"""What a bundle brings is read from the roles' own tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.bundle import needs
from ops.bundle.role_tasks import MODULES
from ops.errors import InputError
from ops.fleet import load
from ops.places import ROOT

#: What fetches something from outside without a bundle knowing of it.
FETCHING = (
    "get_url",
    "unarchive",
    "git",
    "pip",
    "uri",
    "apt_key",
    "apt_repository",
    "deb822_repository",
)
GROUPS = ("gpu", "agent", "data", "edge", "monitoring")


@pytest.fixture
def inventory(tmp_path: Path) -> Callable[..., Path]:
    def write(
        groups: tuple[str, ...] = GROUPS, host: dict[str, Any] | None = None, **more: Any
    ) -> Path:
        variables = {
            "domain": "agent.example.com",
            "models": [{"name": "m", "source": "hf://o/m", "revision": "r1", "gpus": []}],
        }
        children = {group: {"hosts": {"h1": {}} if group in groups else {}} for group in GROUPS}
        content = {
            "all": {"hosts": {"h1": host or {}}, "vars": variables | more, "children": children}
        }
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump(content))
        return tmp_path

    return write


def test_packages_locks_and_weights_are_what_the_roles_ask_for(
    inventory: Callable[..., Path],
) -> None:
    found = needs.collect(load(inventory()), "debian12")
    wanted = found.packages["debian12"]
    assert {"postgresql-15", "nginx", "redis-server", "python3-apt"} <= wanted.with_recommends
    assert {"prometheus", "prometheus-node-exporter", "python3-venv"} <= (
        wanted.bare | wanted.with_recommends
    )
    assert wanted.elsewhere == {"grafana"}
    names = {str(lock) for lock in found.locks}
    assert any(name.endswith("roles/engine/files/cpu.lock") for name in names)
    assert any(name.endswith("agent_app/requirements.lock") for name in names)
    assert found.weights == [needs.Weights("m", "r1", "hf://o/m")]
    assert not found.untold


def test_a_host_may_run_another_distribution_and_the_roles_follow(
    inventory: Callable[..., Path],
) -> None:
    other = inventory(host={"site_distribution": "ubuntu2404"})
    found = needs.collect(load(other), "debian12")
    assert found.hosts == {"h1": "ubuntu2404"}
    assert {"postgresql-16", "postgresql-16-pgvector"} <= found.packages[
        "ubuntu2404"
    ].with_recommends


def test_a_fleet_that_nobody_watches_needs_no_prometheus(inventory: Callable[..., Path]) -> None:
    found = needs.collect(load(inventory(groups=GROUPS[:4])), "debian12").packages["debian12"]
    assert not {name for name in found.bare | found.with_recommends if "prometheus" in name}


def test_an_unknown_distribution_and_a_strange_python_are_refused(
    inventory: Callable[..., Path],
) -> None:
    with pytest.raises(InputError, match="no distribution"):
        needs.collect(load(inventory()), "slackware")
    with pytest.raises(InputError, match="agent_app_python"):
        needs.collect(load(inventory(agent_app_python="/opt/py/bin/python3.14")), "debian12")


def test_no_role_fetches_what_a_bundle_cannot_see() -> None:
    """A task of another module would converge with internet, and fail on a closed site."""
    known = {*MODULES, "rackhand.host.gpu_packages", "rackhand.host.nvidia_driver"}
    assert "rackhand.host.tree" in known
    for path in sorted((ROOT / "roles").glob("*/tasks/*.yml")):
        for task in flat(yaml.safe_load(path.read_text()) or []):
            used = {key.rpartition(".")[2] for key in task}
            assert not used & set(FETCHING), f"{path}: {task.get('name')}"


def flat(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for task in tasks:
        found.append(task)
        for key in ("block", "rescue", "always"):
            found += flat(task.get(key) or [])
    return found
