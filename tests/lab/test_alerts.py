"""Alerts fired by their real causes: told once by a webhook and by mail, in time, and resolved."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from operators import ops, ops_until
from stack import Lab, Stack, run_site
from stand_in_stack import stand_in_stack
from traffic import at_work
from watched import (
    Watched,
    assert_told_by_one_name,
    assert_told_once_and_resolved,
    cause,
    listed,
    quiet,
    receivers,
    write,
)

from ops.secrets.vault import read_secrets

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(900)]

FAULTS = "/etc/engine/faults"
ENGINE = "engine@demo-blue.service"
DROP_IN = f"/etc/systemd/system/{ENGINE}.d/test.conf"
WITHIN = 60.0
UNREADY_SECONDS = 30.0
"""How long an outage is held so that NotReady would be told: its `for`, scaled, and more."""
CERTIFICATE = (
    "mkdir -p /etc/nginx/tls/provided && cd /etc/nginx/tls/provided && openssl req -x509 -nodes "
    "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 5 -subj /CN=agent.rackhand.test "
    "-keyout privkey.pem -out fullchain.pem 2>/dev/null && systemctl reload nginx"
)


@pytest.fixture(scope="module")
def labs_of_alerts(labs: Callable[..., Lab]) -> Lab:
    return labs(1, "bookworm", purpose="stand-in")


@pytest.fixture(scope="module")
def watched(labs_of_alerts: Lab) -> Iterator[Watched]:
    with receivers(labs_of_alerts) as made:
        yield made


@pytest.fixture(scope="module")
def stack(watched: Watched, labs: Callable[..., Lab]) -> Iterator[Stack]:
    with stand_in_stack(labs) as made:
        faulty = f"[Service]\\nEnvironment=STAND_IN_FAULTS_FILE={FAULTS}\\n"
        made.lab.ssh(
            "node1",
            f"mkdir -p $(dirname {DROP_IN}); printf '{faulty}' >{DROP_IN}; : >{FAULTS}; "
            f"systemctl daemon-reload; systemctl restart {ENGINE}",
        )
        made.wait_until_ready()
        quiet(made)
        yield made
        made.lab.ssh("node1", f"rm -r $(dirname {DROP_IN}) {FAULTS}; systemctl daemon-reload")


@pytest.fixture(autouse=True)
def _calm(stack: Stack) -> None:
    quiet(stack)


def test_nothing_fires_on_a_fleet_that_is_well_and_verify_agrees(stack: Stack) -> None:
    assert ops(stack, "alerts", "list").output.strip() == "no alert"
    targets = json.loads(
        stack.lab.ssh("node1", "curl -s 'http://127.0.0.1:9090/api/v1/targets?state=active'")
    )["data"]["activeTargets"]
    down = [t["labels"] for t in targets if t["health"] != "up" and t["labels"]["job"] != "engine"]
    assert down == []
    jobs = {t["labels"]["job"] for t in targets}
    assert jobs == {
        *("prometheus", "alertmanager", "node", "engine", "agent_app"),
        *("postgres", "redis", "nginx", "blackbox"),
    }


def test_each_receiver_takes_a_test_alert(stack: Stack, watched: Watched) -> None:
    watched.clear()
    said = ops(stack, "alerts", "test", "all").output
    assert "webhook took it" in said
    assert "email took it" in said
    assert watched.count("firing", "RackhandTest") == (1, 1)
    assert watched.hook.authorizations[-1] == "Bearer a-token-of-the-test"


def unit(name: str) -> tuple[str, str]:
    return f"systemctl stop {name}", f"systemctl start {name}"


CAUSES = {
    "RedisDown": unit("redis-server@cache.service"),
    "PostgresDown": unit("postgresql@15-main.service"),
    "AppDown": unit("agent_app@8200.service"),
    "TargetDown": unit("prometheus-nginx-exporter.service"),
    "UnitFailed": (
        "systemd-run -q --unit=rackhand-broken.service false; sleep 1; true",
        "systemctl reset-failed rackhand-broken.service",
    ),
    "CertificateExpiring": (
        CERTIFICATE,
        "rm -r /etc/nginx/tls/provided; systemctl reload nginx",
    ),
}


@pytest.mark.parametrize("name", CAUSES)
def test_it_is_told_once_and_resolved(name: str, stack: Stack, watched: Watched) -> None:
    begin, end = CAUSES[name]
    assert_told_once_and_resolved(
        watched, name, cause(stack.lab, begin, end), within=WITHIN, resolved=WITHIN
    )


def test_a_model_that_is_down_is_told_once_and_its_engine_is_held_back(
    stack: Stack, watched: Watched
) -> None:
    def its_engine_is_held_back() -> None:
        assert listed(stack)["EngineDown"] == "inhibited"
        time.sleep(UNREADY_SECONDS)

    assert_told_once_and_resolved(
        watched,
        "ModelDown",
        cause(stack.lab, *unit(ENGINE)),
        within=WITHIN,
        resolved=WITHIN,
        also=its_engine_is_held_back,
    )
    assert_told_by_one_name(stack, watched, "ModelDown")


def test_an_operation_whose_operator_died_is_told_until_it_is_aborted(
    stack: Stack, watched: Watched
) -> None:
    @contextlib.contextmanager
    def left() -> Iterator[None]:
        words = ("restart", "engine", "--strategy", "in-place", "--yes")
        died = ops_until(stack, *words, dies=lambda event: event["event"] == "begin")
        try:
            yield
        finally:
            ops(stack, "abort", died.id, "--yes")

    # The keeper frees the lock a moment after its operator is gone.
    assert_told_once_and_resolved(
        watched, "OperationUnfinished", left(), within=150, resolved=WITHIN
    )


def test_a_disk_that_fills_is_told_by_the_threshold_of_the_inventory(
    stack: Stack, watched: Watched
) -> None:
    path = stack.lab.inventory / "group_vars/data.yml"

    @contextlib.contextmanager
    def moved() -> Iterator[None]:
        write(path, {"prometheus_disk_ratio": 0.0001})
        try:
            done = run_site(stack.lab, "--tags", "prometheus")
            assert done.status == 0, done.output[-3000:]
            yield
        finally:
            path.unlink()
            assert run_site(stack.lab, "--tags", "prometheus").status == 0

    # A reload of Prometheus drops what it would tell at that moment, and tells it a minute later.
    assert_told_once_and_resolved(watched, "DiskFilling", moved(), within=90, resolved=150)


@contextlib.contextmanager
def asked(stack: Stack, at_once: int, tokens: int) -> Iterator[None]:
    """Keep so many requests under way through the edge, whatever becomes of them."""
    over = threading.Event()
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": "Hello! " * 30}],
        "max_tokens": tokens,
    }

    def ask() -> None:
        sni = {"sni_hostname": stack.fleet.domain}
        with stack.client() as client:
            while not over.is_set():
                with contextlib.suppress(httpx2.HTTPError):
                    client.post("/v1/chat/completions", json=body, extensions=sni, timeout=40)
                over.wait(0.2)

    with at_work(ask, over, at_once, patience=60):
        yield


@contextlib.contextmanager
def fault(stack: Stack, words: str, at_once: int, tokens: int = 64) -> Iterator[None]:
    """Let the engine have a fault while requests come."""
    with cause(stack.lab, f"echo '{words}' >{FAULTS}", f": >{FAULTS}"):
        with asked(stack, at_once, tokens):
            yield
        stack.lab.ssh("node1", f": >{FAULTS}")


def test_an_engine_that_makes_no_token_is_told_as_stalled(stack: Stack, watched: Watched) -> None:
    assert_told_once_and_resolved(
        watched,
        "EngineStalled",
        fault(stack, "hang", 2),
        within=WITHIN,
        resolved=WITHIN,
        also=lambda: time.sleep(UNREADY_SECONDS),
    )
    assert_told_by_one_name(stack, watched, "EngineStalled")


def test_a_full_kv_cache_is_told(stack: Stack, watched: Watched) -> None:
    pressed = fault(stack, "small_cache:20 slow:20", 6)
    assert_told_once_and_resolved(
        watched, "EngineKvPressure", pressed, within=150, resolved=WITHIN * 2
    )


def test_failing_requests_are_told_once_though_they_swing_and_by_their_gravest_name(
    stack: Stack, watched: Watched
) -> None:
    """The only engine fails: the app is unready, which says more than the share of errors does."""

    def it_swings() -> None:
        for words in ("", "error_rate:1"):
            stack.lab.ssh("node1", f"echo '{words}' >{FAULTS}")
            time.sleep(25)
        assert "AppErrorRate" not in listed(stack)

    assert_told_once_and_resolved(
        watched,
        "NotReady",
        fault(stack, "error_rate:1", 4),
        within=150,
        resolved=240,
        also=it_swings,
    )
    assert_told_by_one_name(stack, watched, "NotReady")


def test_a_share_of_failing_requests_is_told(stack: Stack, watched: Watched) -> None:
    """The app is ready, and may no longer do what each request needs, as after a bad migration."""
    psql = "runuser -u postgres -- psql -q rackhand -c '{} UPDATE ON app.api_keys {} agent_app'"

    @contextlib.contextmanager
    def refused() -> Iterator[None]:
        revoked = psql.format("REVOKE", "FROM"), psql.format("GRANT", "TO")
        with cause(stack.lab, *revoked), asked(stack, 4, 8):
            yield
            stack.lab.ssh("node1", revoked[1])  # requests go on, so that their share falls

    # AppErrorRate keeps firing for a while, as a share may swing.
    assert_told_once_and_resolved(watched, "AppErrorRate", refused(), within=150, resolved=240)


def test_a_silenced_alert_is_not_told(stack: Stack, watched: Watched) -> None:
    watched.clear()
    ops(stack, "alerts", "silence", "RedisDown", "--for", "10m", "--why", "a test")
    try:
        with cause(stack.lab, *unit("redis-server@cache.service")):
            time.sleep(30)
            assert listed(stack)["RedisDown"] == "silenced"
            assert watched.count("firing", "RedisDown") == (0, 0)
    finally:
        ops(stack, "alerts", "unsilence", "RedisDown")


def test_a_second_run_of_the_watch_changes_nothing(stack: Stack) -> None:
    again = run_site(stack.lab, "--tags", "watch", "--diff")
    assert (again.status, again.total("changed")) == (0, 0), again.output[-5000:]


def test_the_sandboxes_hold(stack: Stack) -> None:
    for name in ("prometheus", "prometheus-alertmanager", "rackhand-facts"):
        said = stack.lab.ssh("node1", f"systemd-analyze security {name} --no-pager | tail -1")
        assert float(said.split()[-3]) <= 2.5, said


def test_no_secret_is_in_a_log_a_diff_or_a_process_list(stack: Stack, watched: Watched) -> None:
    found = stack.lab.ssh("node1", "journalctl --no-pager | cat; ps axww -o args")
    assert "a-token-of-the-test" not in found
    password: Any = read_secrets(stack.lab.inventory)["redis_monitor"]["value"]
    assert password not in found
