"""Wrong inventories: one clear message each, before any host changes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from stack import Lab, SiteRun, Stack, run_site

pytestmark = pytest.mark.lab

Variables = dict[str, Any]


@pytest.fixture(scope="module")
def stack(stacks) -> Stack:
    return stacks(1, "bookworm")


def run_with(stack: Stack, tmp_path: Path, change: Callable[[Variables], Any]) -> SiteRun:
    """Run site.yml with a changed copy of the lab's inventory."""
    copy = tmp_path / "inventory"
    shutil.copytree(stack.lab.inventory, copy)
    file = copy / "group_vars" / "all.yml"
    variables = yaml.safe_load(file.read_text())
    change(variables)
    file.write_text(yaml.safe_dump(variables))
    return run_site(Lab(stack.lab.name, copy, stack.lab.nodes))


def assert_refused(run: SiteRun, *words: str) -> None:
    """The run ended with the words, and no host changed."""
    assert run.status == 2, run.output
    for word in words:
        assert word in run.output, run.output
    assert run.total("changed") == 0


CASES: dict[str, tuple[Callable[[Variables], Any], list[str]]] = {
    "no model": (
        lambda v: v.pop("models"),
        ["1 problem;", "models (host node1): no model is named", "Cure: add one"],
    ),
    "a model that is not there": (
        lambda v: v["models"][0].update(source="file:///srv/nowhere"),
        ["1 problem;", "models[0].source", "/srv/nowhere", "holds no model"],
    ),
    "a model without a revision": (
        lambda v: v["models"][0].pop("revision"),
        ["1 problem;", "missing required arguments: revision"],
    ),
    "a bad domain": (
        lambda v: v.update(domain="https://agent/"),
        ["1 problem;", "domain (host node1): 'https://agent/' is no domain name", "Cure:"],
    ),
    "an unknown variable": (
        lambda v: v.update(redis_cache_prot=7000),
        ["1 problem;", "redis_cache_prot", "no role knows", "redis_cache_port"],
    ),
    "a wrong type": (
        lambda v: v.update(engine_shutdown_timeout_s="soon"),
        ["1 problem;", "engine_shutdown_timeout_s", "int"],
    ),
    "too little disk": (
        lambda v: v.update(preflight_models_disk_gb=99999),
        ["1 problem", "disk", "99999.0 wanted", "preflight_models_disk_gb"],
    ),
    "a domain that does not resolve": (
        lambda v: v.update(domain="agent.elsewhere.test"),
        ["1 problem", "dns", "agent.elsewhere.test does not resolve", "record"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_inventory_is_refused_before_any_host_changes(
    stack: Stack, tmp_path: Path, case: str
) -> None:
    change, words = CASES[case]
    assert_refused(run_with(stack, tmp_path, change), *words)


def test_a_port_that_another_holds_is_refused_before_any_host_changes(
    stack: Stack, tmp_path: Path
) -> None:
    thief = "systemd-run --unit=thief python3 -m http.server 6379 --bind 127.0.0.1"
    stack.lab.ssh("node1", f"systemctl stop redis-server@cache && {thief}; sleep 1")
    try:
        run = run_with(stack, tmp_path, lambda _: None)
    finally:
        stack.lab.ssh("node1", "systemctl stop thief; systemctl start redis-server@cache")
    assert_refused(run, "6379 is taken by thief.service", "Cure: stop thief.service")
