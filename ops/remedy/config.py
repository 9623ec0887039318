"""What the service is told: the inventory's policy, and where things are on its host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from ops.errors import InputError
from ops.remedy.policy import Policy, read_policy

CONFIG = Path("/etc/remediator/config.yml")
FLEET = Path("/etc/remediator/fleet.json")
KNOWN_HOSTS = Path("/etc/remediator/known_hosts")
STATE = Path("/var/lib/remediator")
RECORDS = "records/records.jsonl"
PORT = 9120


@dataclass(frozen=True)
class Config:
    """What stands in config.yml.

    Attributes:
        port: Of the door, on the loopback.
        alertmanager: Whom to ask what fires; empty for nobody.
        poll_seconds: How often, beside its webhooks.
    """

    policy: Policy
    port: int = PORT
    alertmanager: str = ""
    poll_seconds: float = 60.0


def read_config(path: Path) -> Config:
    """Read the configuration.

    Raises:
        InputError: It is missing, or a value in it is wrong.
    """
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Config(
            read_policy(told["remediation"], str(path)),
            int(told.get("port", PORT)),
            str(told.get("alertmanager_url", "")),
            float(told.get("poll_seconds", 60.0)),
        )
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise InputError(
            f"the configuration cannot be read: {error}",
            place=str(path),
            cure="ops provision --tags watch",
        ) from error
