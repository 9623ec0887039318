"""`ops alerts` against a real Prometheus and a real Alertmanager with the role's configuration."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest
from receivers import Mailbox, Webhook, mail_server, webhook
from rendering import BOOKWORM, ROOT, Role
from servers import alertmanager_server, prometheus_server
from typer.testing import CliRunner

from ops.alerts.alertmanager import Alertmanager, Sent
from ops.alerts.listing import State, rows
from ops.alerts.route import try_receiver
from ops.cli.alerts import app
from ops.errors import InputError
from ops.monitoring import Alert, Service

#: Prometheus knows its Alertmanager 5 s after its start and drops what fires before, so that one
#: which holds another back could be missing: none fires within 10 s. Alerts live for four times as
#: long as they are told anew after, and must not lapse while the machine is busy.
RESEND = "--rules.alert.resend-delay=10s"
CONFIG = "host/etc/prometheus/rackhand_alertmanager.yml.j2"
RULES = """
groups:
  - name: test
    rules:
      - {alert: GpuHot, expr: vector(90), for: 10s, labels: {severity: warning, host: n1, gpu: "0"}}
      - {alert: ModelDown, expr: vector(0), for: 10s, labels: {severity: critical, model: demo}}
      - alert: EngineDown
        expr: vector(0)
        for: 10s
        labels: {severity: critical, host: n1, model: demo}
      - {alert: DiskFull, expr: vector(1), for: 1h, labels: {severity: critical, host: n1}}
"""
PROMETHEUS = """
global: {{evaluation_interval: 200ms}}
rule_files: [rules.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["{address}"]}}]}}]}}
"""


@dataclass
class Watch:
    hook: Webhook
    box: Mailbox
    config: Path

    def run(self, *words: str) -> tuple[int, str]:
        """Run the command; its exit status and all that it says."""
        done = CliRunner().invoke(app, [*words, "-i", str(ROOT / "inventories/example")])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output

    def listed(self) -> tuple[int, dict[str, str]]:
        """Return the exit status of `list`, and the state of each alert."""
        status, said = self.run("list", "--json")
        return status, {row["name"]: row["state"] for row in json.loads(said)["alerts"]}


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    folder = tmp_path_factory.mktemp("watch")
    with webhook() as hook, mail_server() as box, pytest.MonkeyPatch.context() as patch:
        role = Role(
            "alertmanager",
            BOOKWORM,
            alertmanager_webhook_url=f"http://127.0.0.1:{hook.port}/",
            alertmanager_email_to=["person@x.test"],
            alertmanager_email_from="rackhand@x.test",
            alertmanager_email_smarthost=f"127.0.0.1:{box.port}",
            alertmanager_email_require_tls=False,
            # Nobody listens there: a receiver that fails.
            alertmanager_slack_url="http://127.0.0.1:1/",
            alertmanager_group_wait_s=4,
        )
        text = role.render(CONFIG).replace(role.value("__alertmanager_secrets"), str(folder))
        (folder / "slack_url").write_text("http://127.0.0.1:1/")
        (folder / "alertmanager.yml").write_text(text)
        (folder / "rules.yml").write_text(RULES)
        with alertmanager_server(folder / "alertmanager.yml") as manager:
            address = manager.removeprefix("http://")
            (folder / "prometheus.yml").write_text(PROMETHEUS.format(address=address))
            with prometheus_server(folder / "prometheus.yml", RESEND) as prometheus:
                urls = {9090: prometheus, 9093: manager}

                @contextlib.contextmanager
                def reached(_fleet: Any, port: int, name: str) -> Iterator[Service]:
                    yield Service(urls[port], name, "server1")

                for module in ("ops.monitoring.prometheus", "ops.alerts.alertmanager"):
                    patch.setattr(import_module(module), "reached", reached)
                yield Watch(hook, box, folder / "alertmanager.yml")


def until(holds: Any, seconds: float = 90) -> Any:
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end
        time.sleep(0.2)
    return found


def test_the_list_tells_what_fires_what_is_pending_and_what_follows_from_another(
    watch: Watch,
) -> None:
    wanted = {
        "GpuHot": "firing",
        "ModelDown": "firing",
        "EngineDown": "inhibited",
        "DiskFull": "pending",
    }
    until(lambda: watch.listed() == (1, wanted))
    status, said = watch.run("list")
    assert status == 1
    first = next(line for line in said.splitlines() if "firing" in line)
    assert "ModelDown" in first


def test_one_cause_is_told_once_by_every_way(watch: Watch) -> None:
    until(lambda: watch.hook.told("firing", "ModelDown") and watch.box.told("firing", "GpuHot"))
    time.sleep(2)
    assert len(watch.hook.told("firing", "ModelDown")) == 1
    assert len(watch.box.told("firing", "ModelDown")) == 1
    assert watch.hook.told("firing", "EngineDown") == []


def test_a_silenced_alert_is_listed_and_wakes_nobody(watch: Watch) -> None:
    words = [
        "silence",
        "ModelDown",
        "model=demo",
        "--for",
        "2h",
        "--why",
        "weights are on their way",
    ]
    status, said = watch.run(*words)
    assert status == 0
    assert "silenced until" in said
    until(lambda: watch.listed()[1]["ModelDown"] == "silenced")
    status, said = watch.run("list")
    assert "weights are on their way" in said
    # EngineDown is still its consequence; nothing critical fires.
    assert status == 0
    assert watch.run("unsilence", "ModelDown")[0] == 0
    until(lambda: watch.listed()[1]["ModelDown"] == "firing")
    with pytest.raises(InputError, match="no silence in force"):
        watch.run("unsilence", "ModelDown")


def test_a_test_alert_goes_all_the_way_and_says_what_came_of_it(watch: Watch) -> None:
    status, said = watch.run("test", "webhook", "--json")
    (outcome,) = json.loads(said)["receivers"]
    assert (status, outcome["arrived"], outcome["failures"]) == (0, True, 0)
    assert len(watch.hook.told("firing", "RackhandTest")) == 1
    assert watch.run("test", "email")[0] == 0
    (mail,) = watch.box.told("firing", "RackhandTest")
    assert mail["To"] == "person@x.test"


def test_a_receiver_that_fails_is_told_with_where_to_look(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ops.alerts.route.try_receiver.__kwdefaults__", {"wait": 4.0, "pause": time.sleep}
    )
    status, said = watch.run("test", "slack")
    assert status == 1
    assert "slack did not take it" in said
    assert "journalctl -u prometheus-alertmanager.service" in said
    with pytest.raises(InputError, match="pagerduty is not set up"):
        watch.run("test", "pagerduty")


@pytest.mark.parametrize(
    "words",
    [
        ["silence", "Gpu Hot", "--for", "2h", "--why", "x"],
        ["silence", "GpuHot", "ModelDown", "--for", "2h", "--why", "x"],
        ["silence", "GpuHot", "--for", "soon", "--why", "x"],
        ["silence", "GpuHot", "--for", "99w", "--why", "x"],
        ["silence", "host=~[", "--for", "2h", "--why", "x"],
    ],
)
def test_bad_words_are_refused_with_a_cure(words: list[str], watch: Watch) -> None:
    with pytest.raises(InputError) as told:
        watch.run(*words)
    assert told.value.cure
    assert told.value.exit_code == 2


def test_alerts_are_listed_where_alertmanager_knows_none_of_them() -> None:
    alert = Alert(
        {"alertname": "X", "severity": "critical"}, {}, "firing", "2026-11-26T00:00:00Z", 1
    )
    (row,) = rows([alert], [], [])
    assert (row.state, row.critical) == (State.FIRING, True)


def test_an_attempt_that_is_not_yet_counted_as_failed_is_none_that_arrived() -> None:
    looks = iter([Sent(3, 1), Sent(4, 1), Sent(4, 2), *[Sent(5, 3)] * 9])

    class Manager:
        def sent(self) -> dict[str, Sent]:
            return {"slack": next(looks)}

        def post(self, *_: Any, **__: Any) -> None:
            pass

    told = try_receiver(cast(Alertmanager, Manager()), "slack", "n1", wait=0.05, pause=time.sleep)
    assert not told.arrived
    assert told.failures >= 1
