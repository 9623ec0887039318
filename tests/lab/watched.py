"""A lab whose alerts go to a webhook and a mail server of this machine."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from operators import ops
from receivers import Mailbox, Webhook, mail_server, webhook
from stack import Lab, Stack

from ops.fleet import load
from ops.lab.fleet_plan import require_plan

#: Waiting times of rules, and what is scraped, looked at and told, at a tenth of the default.
SCALE = 0.1
QUICK = {
    "prometheus_time_scale": SCALE,
    "prometheus_scrape_interval_s": 2,
    "prometheus_evaluation_interval_s": 2,
    # A lab's disk is this machine's, which other labs fill meanwhile.
    "prometheus_disk_trend_ratio": 1,
    "exporters_facts_interval_s": 2,
    "alertmanager_group_wait_s": 3,
    "alertmanager_group_interval_s": 8,
}
ONCE_SECONDS = 12.0
"""How long it is looked whether a second message comes; longer than the group's interval."""
AFTER_SECONDS = 75.0
"""The window of AppErrorRate, its `for` and the group's wait, scaled, and more."""


@dataclass
class Watched:
    """Both receivers, and what they heard of an alert."""

    lab: Lab
    hook: Webhook
    box: Mailbox

    def count(self, status: str, name: str) -> tuple[int, int]:
        return len(self.hook.told(status, name)), len(self.box.told(status, name))

    def clear(self) -> None:
        self.hook.posts.clear()
        self.box.mails.clear()

    def until_told(self, status: str, name: str, seconds: float) -> float:
        """Wait until both were told; return how long it took."""
        begun = time.monotonic()
        while min(self.count(status, name)) < 1:
            waited = time.monotonic() - begun
            assert waited < seconds, f"{name} {status} was not told in {seconds} s\n{self.heard()}"
            time.sleep(0.5)
        return time.monotonic() - begun

    def heard(self) -> str:
        """What was told, and what Prometheus knows, for a test that failed."""
        said = [
            f"{alert['status']} {alert['labels']}" for p in self.hook.posts for alert in p["alerts"]
        ]
        asked = "curl -s http://127.0.0.1:9090/api/v1/alerts"
        host = load(self.lab.inventory).first("monitoring").name
        return "\n".join([*said, self.lab.ssh(host, asked, check=False)])


@contextlib.contextmanager
def receivers(lab: Lab, **more: Any) -> Iterator[Watched]:
    """Serve both on the lab's bridge and name them in the inventory, until the block is left."""
    gateway = require_plan(lab.name).gateway
    path = lab.inventory / "group_vars/monitoring.yml"
    with webhook(gateway) as hook, mail_server(gateway) as box:
        settings = {
            **QUICK,
            "alertmanager_webhook_url": f"http://{gateway}:{hook.port}/",
            "alertmanager_webhook_token": "a-token-of-the-test",
            "alertmanager_email_to": ["person@rackhand.test"],
            "alertmanager_email_from": "watch@rackhand.test",
            "alertmanager_email_smarthost": f"{gateway}:{box.port}",
            "alertmanager_email_require_tls": False,
            **more,
        }
        write(path, settings)
        try:
            yield Watched(lab, hook, box)
        finally:
            path.unlink()


def write(path: Any, settings: dict[str, Any]) -> None:
    import yaml

    path.write_text("---\n" + yaml.safe_dump(settings))


@contextlib.contextmanager
def cause(lab: Lab, begin: str, end: str, host: str = "node1") -> Iterator[None]:
    """Run a shell command on a host, and another when the block is left."""
    lab.ssh(host, begin)
    try:
        yield
    finally:
        lab.ssh(host, end)


def listed(stack: Stack) -> dict[str, str]:
    """How each alert stands, by `ops alerts list`."""
    said = ops(stack, "alerts", "list", "--json", status=None)
    return {row["name"]: row["state"] for row in json.loads(said.output)["alerts"]}


def quiet(stack: Stack, seconds: float = 120) -> None:
    """Wait until nothing fires: what a provisioning shook has calmed down."""
    end = time.monotonic() + seconds
    while found := listed(stack):
        assert time.monotonic() < end, found
        time.sleep(2)


def assert_told_once_and_resolved(
    watched: Watched,
    name: str,
    begun: contextlib.AbstractContextManager[Any],
    *,
    within: float,
    resolved: float,
    also: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Cause an alert, and look that it is told once by both ways, and once resolved.

    Args:
        watched: Who hears it.
        name: The alert.
        begun: Causes it while it is entered.
        within: Seconds until it must be told.
        resolved: Seconds after its end until that must be told.
        also: What must hold while it fires.

    Returns:
        Seconds until it was told, and from its end until that was.
    """
    watched.clear()
    with begun:
        told = watched.until_told("firing", name, within)
        also()
        time.sleep(ONCE_SECONDS)
        assert watched.count("firing", name) == (1, 1), watched.heard()
    ended = watched.until_told("resolved", name, resolved)
    time.sleep(ONCE_SECONDS)
    assert watched.count("resolved", name) == (1, 1), watched.heard()
    return told, ended


def assert_told_by_one_name(stack: Stack, watched: Watched, name: str, **labels: str) -> None:
    """Wait for what a cause leaves in windows of minutes: it is told by one name, and once.

    Args:
        stack: The fleet.
        watched: Who hears it.
        name: The alert.
        labels: Which all that is told of it has.
    """
    time.sleep(AFTER_SECONDS)
    quiet(stack)
    posted = [alert["labels"] for post in watched.hook.posts for alert in post["alerts"]]
    wanted = {"alertname": name, **labels}
    assert [found for found in posted if not wanted.items() <= found.items()] == []
    subjects = [str(mail["Subject"]) for mail in watched.box.mails]
    (firing,) = (words for words in subjects if not words.startswith("[resolved]"))
    assert f"{name} {labels.get('host', '')}".strip() in firing
    for status in ("firing", "resolved"):
        assert watched.count(status, name) == (1, 1), watched.heard()
