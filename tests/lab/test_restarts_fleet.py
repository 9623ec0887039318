"""`ops restart` on four hosts: rolling under load, and with a host that is lost on the way."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from operators import ops, ops_until
from stack import Lab, Stack
from stand_in_stack import assert_site_changes_nothing, stand_in_stack
from traffic import Traffic, traffic

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(900)]

ENGINES = ("node2", "node4")
AWAY_SECONDS = 100  # longer than a line that fell silent is waited for
PROCESSES = 'systemctl show -P MainPID "engine@demo-*.service"'
CUT = (  # as soon as the engine is another process, which does not serve yet
    "systemd-run --quiet --collect sh -c "
    f'\'old=$({PROCESSES}); while [ "$old" = "$({PROCESSES})" ]; do sleep 0.02; done; '
    f"ip link set host0 down; sleep {AWAY_SECONDS}; ip link set host0 up'"
)
BACK_SECONDS = 10
IN_PLACE = ("restart", "engine", "demo", "--strategy", "in-place", "--yes")


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Iterator[Stack]:
    with stand_in_stack(labs, hosts=4) as made:
        yield made


def assert_nothing_was_lost(running: Traffic, least: int) -> None:
    assert running.failures == [], running.told()
    assert len(running.answers) >= least, running.told()
    print(running.told())


def engines(stack: Stack) -> list[str]:
    """The main process of each host's engine, by its start."""
    show = "systemctl show -P ExecMainStartTimestampMonotonic 'engine@demo-*.service'"
    return [stack.lab.ssh(host, f"{show} | sort -n | tail -1") for host in ENGINES]


def boots(stack: Stack) -> list[str]:
    return [stack.lab.ssh(host, "systemctl show -P UserspaceTimestamp") for host in ENGINES]


def assert_all_serve(stack: Stack) -> None:
    for host in ENGINES:
        assert stack.lab.ssh(host, "ls /var/lib/rackhand/held; ls -d /var/lib/rackhand/drained "
                                   "2>/dev/null || true") == ""  # fmt: skip
        assert stack.lab.ssh(host, "systemctl is-active 'engine@demo-*.service'") == "active"


def test_engines_restart_host_by_host_and_lose_no_request(stack: Stack) -> None:
    before = engines(stack)
    with traffic(stack) as running:
        ops(stack, *IN_PLACE)
    assert_nothing_was_lost(running, least=50)
    assert all(now != then for now, then in zip(engines(stack), before, strict=True))
    assert_all_serve(stack)
    assert_site_changes_nothing(stack)


def test_hosts_of_a_group_reboot_one_after_another_and_lose_no_request(stack: Stack) -> None:
    before = boots(stack)
    planned = ops(stack, "restart", "host", "gpu", "--dry-run")
    assert "2 host(s) reboot, 1 at a time" in planned.output
    assert "no other host" not in planned.output
    with traffic(stack) as running:
        ops(stack, "restart", "host", "gpu", "--yes")
    assert_nothing_was_lost(running, least=100)
    assert all(now != then for now, then in zip(boots(stack), before, strict=True))
    assert_all_serve(stack)
    assert_site_changes_nothing(stack)


def test_a_host_lost_on_the_way_ends_in_bounded_time_and_resume_finishes(stack: Stack) -> None:
    begun: list[str] = []
    cut: list[float] = []

    def lose_the_second(event: dict[str, Any]) -> bool:
        """Have the second host lose its network while its engine, out of traffic, comes back."""
        if event.get("kind") == "restart.engine" and event["event"] == "begin":
            begun.append(event["host"])
            if len(begun) == len(ENGINES):
                stack.lab.ssh(begun[-1], CUT)
                cut.append(time.monotonic())
        return False

    with traffic(stack, clients=4) as running:
        said = ops_until(stack, *IN_PLACE, dies=lose_the_second)
        ended = time.monotonic()
        assert said.status == 1, said.output
        assert "not everything could be brought back" in said.output
        assert f"ops resume {said.id}" in said.output
        refused = ops(stack, "restart", "app", "--yes", status=1)
        assert f"left an operation unfinished: {said.id}" in refused.output
        assert ended - cut[0] < AWAY_SECONDS, "it was still waiting when the host came back"
        time.sleep(max(0.0, cut[0] + AWAY_SECONDS + BACK_SECONDS - time.monotonic()))
        ops(stack, "resume")
    assert_nothing_was_lost(running, least=50)
    assert_all_serve(stack)
    assert_site_changes_nothing(stack)
