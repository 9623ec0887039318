"""`ops restart` and `ops app` on a host that serves: under load, with bad releases, with operators
that die.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from app_releases import Checkouts
from operators import Said, ops, ops_until
from stack import Lab, Stack, run_site
from stand_in_stack import assert_site_changes_nothing, stand_in_stack
from traffic import Traffic, traffic

from ops.app.release import release_of
from ops.models.inventory import wanted_entry
from ops.places import ROOT

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

UPSTREAM = "/etc/nginx/edge.d/agent_app.upstream.conf"
PORTS = (8200, 8201)


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Iterator[Stack]:
    with stand_in_stack(labs) as made:
        yield made


@pytest.fixture(scope="module")
def checkouts(tmp_path_factory: pytest.TempPathFactory) -> Checkouts:
    return Checkouts(tmp_path_factory.mktemp("checkouts"))


@pytest.fixture(scope="module")
def good(checkouts: Checkouts) -> Path:
    """One other release, built once for all that only need another."""
    return checkouts.next()


def pids(stack: Stack) -> list[str]:
    units = " ".join(f"agent_app@{port}.service" for port in PORTS)
    return stack.lab.ssh("node1", f"systemctl show -P MainPID {units}").split()


def releases(stack: Stack) -> set[str]:
    """What the host and each of its instances run, by their links and by their processes."""
    links = " ".join(["/opt/agent_app/current", *(f"/opt/agent_app/instances/{p}" for p in PORTS)])
    found = set(stack.lab.ssh("node1", f"basename -a $(readlink -f {links})").split())
    for pid in pids(stack):
        command = stack.lab.ssh("node1", f"tr '\\0' '\\n' </proc/{pid}/cmdline | head -1")
        path = stack.lab.ssh("node1", f"readlink -f $(dirname $(dirname {command}))")
        found.add(Path(path).name)
    return found


def engine_fact(stack: Stack) -> dict[str, Any]:
    text = stack.lab.ssh("node1", "cat /etc/ansible/facts.d/engine.fact")
    found: dict[str, Any] = json.loads(text)["models"]["demo"]
    return found


def assert_nothing_was_lost(running: Traffic, least: int) -> None:
    assert running.failures == [], running.told()
    assert len(running.answers) >= least, running.told()
    print(running.told())


def assert_all_are_in(stack: Stack) -> None:
    assert "down" not in stack.lab.ssh("node1", f"grep '^    server' {UPSTREAM}")


def test_engines_restart_beside_themselves_or_where_they_are_and_lose_no_request(
    stack: Stack,
) -> None:
    before = engine_fact(stack)
    with traffic(stack) as running:
        running.mark("beside")
        ops(stack, "restart", "engine", "demo", "--yes")
        beside = engine_fact(stack)
        running.mark("in place")
        ops(stack, "restart", "engine", "--strategy", "in-place", "--yes")
    assert_nothing_was_lost(running, least=100)
    assert beside["active"] != before["active"]
    assert beside["entry"] == before["entry"]
    assert beside.get("standby") == before.get("standby")
    assert engine_fact(stack)["active"] == beside["active"]
    assert_site_changes_nothing(stack)


def test_the_app_restarts_instance_by_instance_and_loses_no_request(stack: Stack) -> None:
    before = pids(stack)
    with traffic(stack) as running:
        for _ in range(2):
            ops(stack, "restart", "app", "--yes")
    assert_nothing_was_lost(running, least=100)
    assert not set(before) & set(pids(stack))
    assert_all_are_in(stack)
    assert_site_changes_nothing(stack)


def test_a_deploy_and_its_rollback_lose_no_request_and_site_yml_agrees(
    stack: Stack, good: Path
) -> None:
    ours, new = release_of(ROOT / "agent_app"), release_of(good / "agent_app")
    assert releases(stack) == {ours}
    with traffic(stack) as running:
        deploy = ("app", "deploy", "--version-from", str(good), "--yes", "--stage-seconds", "5")
        ops(stack, *deploy)
        assert releases(stack) == {new}
        stopped = run_site(stack.lab)
        assert stopped.status != 0
        assert f"runs release {new}" in stopped.output
        assert "ops app deploy" in stopped.output
        ops(stack, "app", "rollback", "--yes")
        assert releases(stack) == {ours}
    assert_nothing_was_lost(running, least=200)
    assert_all_are_in(stack)
    assert_site_changes_nothing(stack)
    again = ops(stack, "app", "deploy", "--yes", status=2)
    assert "every instance runs that release already" in again.output


MIGRATION = """
from alembic import op
revision, down_revision, branch_labels, depends_on = "zzzz", "{head}", None, None
def upgrade(): op.execute("SELECT nothing_like_it")
def downgrade(): pass
"""


def broken_migration() -> str:
    """A migration on top of the last one, that the database refuses."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    settings = Config()
    settings.set_main_option("script_location", str(ROOT / "agent_app/state/migrations"))
    return MIGRATION.format(head=ScriptDirectory.from_config(settings).get_current_head())


@pytest.mark.parametrize(
    ("path", "old", "new", "words"),
    [
        pytest.param("api/server.py", '"""One', 'raise RuntimeError("a bad release")\n"""One',
                     "died while it started", marks=pytest.mark.long),
        pytest.param("agent/runner.py", "        if self._draining:\n", "        if True:\n",
                     "a completion through agent_app@8200 ended with 503", marks=pytest.mark.long),
        pytest.param("state/migrations/versions/zzzz_broken.py", "", "", "could not be migrated",
                     marks=pytest.mark.long),
    ],
    ids=["dies", "refuses every request", "cannot migrate"],
)  # fmt: skip
def test_a_bad_release_is_rolled_back_by_itself(
    stack: Stack, checkouts: Checkouts, path: str, old: str, new: str, words: str
) -> None:
    before = releases(stack)
    checkout = checkouts.next(path, old, new or broken_migration())
    with traffic(stack) as running:
        said = ops(stack, "app", "deploy", "--version-from", str(checkout), "--yes", status=1)
    assert words in said.output
    assert "everything was brought back" in said.output
    assert releases(stack) == before
    assert_nothing_was_lost(running, least=20)
    assert_all_are_in(stack)
    assert_site_changes_nothing(stack)


@pytest.mark.long
@pytest.mark.parametrize(("verb", "kind", "moment", "how"), [
    ("restart", "app.cycle", "begin", "resume"), ("restart", "app.cycle", "done", "abort"),
    ("deploy", "app.build", "begin", "abort"), ("deploy", "app.migrate", "done", "resume"),
    ("deploy", "app.cycle", "begin", "abort"), ("deploy", "app.cycle", "done", "resume"),
    ("deploy", "app.commit", "begin", "resume"), ("deploy", "app.commit", "begin", "abort"),
])  # fmt: skip
def test_an_operator_who_dies_is_followed_by_another(
    stack: Stack, good: Path, verb: str, kind: str, moment: str, how: str
) -> None:
    before = releases(stack)
    deploy = ("app", "deploy", "--version-from", str(good), "--stage-seconds", "1", "--yes")
    words = ("restart", "app", "--yes") if verb == "restart" else deploy
    with traffic(stack, clients=4) as running:
        died = ops_until(
            stack, *words, dies=lambda e: e.get("kind") == kind and e["event"] == moment
        )
        assert died.status == -9
        stopped = run_site(stack.lab)
        assert died.id in stopped.output, "site.yml ran into an unfinished operation"
        ops(stack, how, *(("--yes",) if how == "abort" else ()))
        moved = verb == "deploy" and how == "resume"
        assert releases(stack) == ({release_of(good / "agent_app")} if moved else before)
        if moved:
            ops(stack, "app", "rollback", "--yes")
    assert_nothing_was_lost(running, least=20)
    assert_all_are_in(stack)
    assert_site_changes_nothing(stack)


@pytest.mark.long
def test_two_operators_at_once_one_is_refused_by_the_others_name(stack: Stack, good: Path) -> None:
    said: list[Said] = []

    def second(event: dict[str, Any]) -> bool:
        if event.get("kind") == "app.cycle" and event["event"] == "begin":
            deploy = ("app", "deploy", "--version-from", str(good), "--yes")
            said.append(ops(stack, *deploy, status=1))
            said.append(ops(stack, "restart", "host", "node1", "--yes", status=1))
        return False

    before = releases(stack)
    words = ("restart", "app", "--max-unavailable", "2", "--why", "a leak", "--yes")
    first = ops_until(stack, *words, dies=second)
    assert first.status == 0, first.output
    assert len(said) == 2
    for refused in said:
        assert "is at work on the fleet" in refused.output
        assert "a leak" in refused.output
    assert releases(stack) == before
    assert_all_are_in(stack)


@pytest.mark.long
def test_the_app_follows_a_model_whose_context_changes_and_site_yml_agrees(stack: Stack) -> None:
    def known() -> str:
        return stack.lab.ssh("node1", "grep -A4 '^  demo:' /etc/agent_app/config.yml")

    before, config = wanted_entry(stack.lab.inventory, "demo"), known()
    shorter = int(before.get("max_model_len", 8192)) // 2
    quick = ("--stage-seconds", "0", "--shift", "100", "--yes")
    with traffic(stack) as running:
        ops(stack, "model", "upgrade", "demo", "--set", f"max_model_len={shorter}", *quick)
        assert f"context_length: {shorter}" in known()
        assert_site_changes_nothing(stack)
        ops(stack, "model", "rollback", "demo", "--yes")
        assert known() == config
    assert_nothing_was_lost(running, least=50)
    assert_site_changes_nothing(stack)


def test_the_only_host_reboots_says_so_beforehand_and_serves_again(stack: Stack) -> None:
    boot = "cat /proc/sys/kernel/random/boot_id; systemctl show -P UserspaceTimestamp"
    planned = ops(stack, "restart", "host", "node1", "--dry-run")
    assert "it is the only host: nothing answers while it reboots" in planned.output
    before = stack.lab.ssh("node1", boot)
    ops(stack, "restart", "host", "node1", "--yes")
    assert stack.lab.ssh("node1", boot) != before
    stack.wait_until_ready()
    assert_all_are_in(stack)
    assert stack.lab.ssh("node1", "ls /var/lib/rackhand/drained 2>/dev/null || echo none") == "none"
    assert_site_changes_nothing(stack)
