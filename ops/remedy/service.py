"""`remediator`: the service, and what `ops remediate` asks on its host."""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from ops.errors import OpsError
from ops.operations.run import PausedError
from ops.remedy import config as places
from ops.remedy.alert import Alert, made_up
from ops.remedy.config import Config, read_config
from ops.remedy.door import Door, Metrics
from ops.remedy.fleet_file import load_fleet
from ops.remedy.records import Record, Records, fold, read_lines
from ops.remedy.remediator import Remediator, Tally, read_pause
from ops.remedy.world import RealWorld

ROUND_SECONDS = 5.0
STILL_SECONDS = 120.0
"""A round that lasts longer without an action is a fault that /health tells."""


class StopError(BaseException):
    """We were told to end."""


class Service:
    """The door in a thread of its own; deciding and acting in this one.

    Args:
        told: The configuration.
        folder: The state directory.
        secrets: The folder of the credentials `ssh_key` and `webhook_token`.
    """

    def __init__(self, told: Config, folder: Path, secrets: Path) -> None:
        self._told = told
        self._folder = folder
        fleet = load_fleet(places.FLEET, secrets / "ssh_key", places.KNOWN_HOSTS)
        self._world = RealWorld(fleet, told.policy.waits, told.alertmanager)
        self._records = Records(folder / places.RECORDS)
        self._metrics = Metrics()
        self._metrics.mode.labels(told.policy.mode).set(1)
        self._remediator = Remediator(
            fleet, told.policy, self._records, folder, self._world, self._metrics
        )
        token = (secrets / "webhook_token").read_text(encoding="utf-8").strip()
        self._door = Door(("127.0.0.1", told.port), token, self._metrics, self.health)
        self._round = time.monotonic()
        self._polled = float("-inf")

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether rounds go on, and what is true."""
        busy = bool(self._records.open)
        late = time.monotonic() - self._round > STILL_SECONDS and not busy
        return not late, {
            "status": "late" if late else "busy" if busy else "ok",
            "mode": self._told.policy.mode,
            "paused": read_pause(self._folder),
            "open": [record.id for record in self._records.open],
        }

    def run(self) -> None:
        """Serve until a signal ends it."""
        heard, told = os.pipe()
        for end in (heard, told):
            os.set_blocking(end, False)
        # A signal in an operation's last step only sets that one's flag: the pipe has it too.
        signal.set_wakeup_fd(told)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        threading.Thread(target=self._door.serve_forever, daemon=True).start()
        logging.warning("mode %s, port %d", self._told.policy.mode, self._told.port)
        try:
            while not _waits(heard):
                self._one_round()
        except (PausedError, StopError):
            logging.warning("told to end")
        self._door.shutdown()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        raise StopError

    def _one_round(self) -> None:
        self._round = time.monotonic()
        self._metrics.alive.set_to_current_time()
        self._metrics.paused.set(bool(read_pause(self._folder)))
        self._metrics.open.set(len(self._records.open))
        if self._records.open:
            self._remediator.recover()
        try:
            alerts = self._door.alerts.get(timeout=ROUND_SECONDS)
        except queue.Empty:
            alerts = self._poll()
        if alerts:
            with self._metrics.busy.track_inprogress():
                self._remediator.handle(alerts)

    def _poll(self) -> tuple[Alert, ...]:
        """What fires, where a webhook was lost, or an alert had to wait."""
        if time.monotonic() - self._polled < self._told.poll_seconds:
            return ()
        self._polled = time.monotonic()
        active = self._world.active()
        if self._world.alertmanager_answers is not None:
            self._metrics.alertmanager.set(self._world.alertmanager_answers)
        return active or ()


def _waits(pipe: int) -> bool:
    """Whether a signal came."""
    try:
        return bool(os.read(pipe, 1))
    except BlockingIOError:
        return False


def show(words: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What `ops remediate` asks: the records, or what would be decided; writes nothing."""
    records = fold(read_lines(folder / places.RECORDS))
    told = read_config(words.config)
    policy = told.policy
    if words.verb == "show":
        return {
            "mode": policy.mode,
            "paused": read_pause(folder),
            "open": [record.id for record in records if record.open],
            "records": [record.as_record() for record in records],
            "policy": policy.model_dump(mode="json"),
            "rules": {
                name: [rule.model_dump(mode="json") for rule in rules]
                for name, rules in policy.table().items()
            },
        }
    key = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / "ssh_key"
    fleet = load_fleet(places.FLEET, key, places.KNOWN_HOSTS)
    world = RealWorld(fleet, policy.waits, told.alertmanager)
    kept = _Frozen(records)
    asked = Remediator(fleet, policy, kept, folder, world, Tally())
    if words.verb == "explain":
        labels = dict(pair.split("=", 1) for pair in words.label)
        alerts: tuple[Alert, ...] = (made_up(words.alert, words.host, labels, datetime.now(UTC)),)
    else:
        active = world.active()
        if active is None:
            raise OpsError(
                "Alertmanager does not answer",
                place=told.alertmanager or "alertmanager_url",
                cure="systemctl status alertmanager on the monitoring host",
            )
        alerts = active
    return {"decisions": [_decision(asked, alert) for alert in alerts]}


class _Frozen(Records):
    """Records that are read only."""

    def __init__(self, found: tuple[Record, ...]) -> None:
        self._found = {record.id: record for record in found}


def _decision(asked: Remediator, alert: Alert) -> dict[str, Any]:
    found = asked.explain(alert)
    return {
        "alert": alert.told(),
        "host": alert.host,
        "verdict": found.verdict,
        "action": found.action,
        "code": found.code,
        "reason": found.reason,
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="remediator", description=__doc__)
    made.add_argument("--config", type=Path, default=places.CONFIG)
    verbs = made.add_subparsers(dest="verb", required=True)
    verbs.add_parser("serve", help="run the service")
    check = verbs.add_parser("check", help="judge a configuration")
    check.add_argument("file", type=Path)
    verbs.add_parser("show", help="mode, policy and records, as JSON")
    verbs.add_parser("active", help="what would be done about what fires, as JSON")
    explain = verbs.add_parser("explain", help="what would be done about an alert, as JSON")
    explain.add_argument("alert")
    explain.add_argument("host")
    explain.add_argument("label", nargs="*", help="name=value")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    words = parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    for noisy in ("paramiko", "fabric", "invoke"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    folder = Path(os.environ.get("STATE_DIRECTORY", places.STATE))
    try:
        if words.verb == "check":
            read_config(words.file)
        elif words.verb == "serve":
            secrets = Path(os.environ["CREDENTIALS_DIRECTORY"])
            Service(read_config(words.config), folder, secrets).run()
        else:
            print(json.dumps(show(words, folder)))
    except OpsError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
