"""Alerts as Alertmanager tells them: in a webhook, or asked for. Hostile input is an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ops.errors import InputError

MOST_BYTES = 1 << 20
MOST_ALERTS = 1000
MOST_LABELS = 64
Text = dict[str, str]


class Alert(BaseModel):
    """One alert; what it is about stands in its labels.

    Attributes:
        status: `firing` or `resolved`.
        labels: alertname, host and, where they fit, gpu, uuid, model, slot, xid.
        started: Since when it fires; with the fingerprint it names this one occurrence.
        fingerprint: Alertmanager's, over the labels.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")

    status: Literal["firing", "resolved"]
    labels: Text = Field(max_length=MOST_LABELS)
    annotations: Text = Field(default_factory=dict, max_length=MOST_LABELS)
    started: datetime = Field(alias="startsAt")
    fingerprint: str = Field(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z]+$")

    @property
    def name(self) -> str:
        """The rule's name."""
        return self.labels.get("alertname", "")

    @property
    def host(self) -> str:
        """The host as the inventory names it."""
        return self.labels.get("host", "")

    @property
    def gpu(self) -> int | None:
        """NVML's index, where it is about one GPU."""
        text = self.labels.get("gpu", "")
        return int(text) if text.isdecimal() and len(text) < 4 else None

    @property
    def key(self) -> str:
        """Names this occurrence; one that fires again later has another."""
        return f"{self.fingerprint}@{self.started.isoformat()}"

    @property
    def cause(self) -> str:
        """Names what is wrong with what, whenever it fires: for what is not cured by now."""
        parts = (self.labels.get("uuid") or self.labels.get("gpu", ""), self.labels.get("xid", ""))
        return " ".join([self.name, self.host, *filter(None, parts)])

    def told(self) -> str:
        """The alert in a few words."""
        words = [f"{k} {self.labels[k]}" for k in ("gpu", "xid", "model") if self.labels.get(k)]
        return f"{self.name} on {self.host or '?'}" + (f" ({', '.join(words)})" if words else "")


class _Webhook(BaseModel):
    version: Literal["4"]
    alerts: tuple[Alert, ...] = Field(max_length=MOST_ALERTS)


def read_webhook(body: bytes) -> tuple[Alert, ...]:
    """Read a webhook of Alertmanager, version 4 of its format.

    Raises:
        InputError: It is something else.
    """
    if len(body) > MOST_BYTES:
        raise InputError(f"a webhook has {MOST_BYTES} bytes at most")
    try:
        return _Webhook.model_validate(json.loads(body)).alerts
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"no webhook of Alertmanager: {where}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise InputError("no webhook of Alertmanager: not JSON") from error


def read_active(listed: Any) -> tuple[Alert, ...]:
    """Read what Alertmanager's API v2 lists as active; an alert that cannot be read is left out."""
    found = []
    for each in listed if isinstance(listed, list) else []:
        try:
            found.append(Alert.model_validate({**each, "status": "firing"}))
        except (TypeError, ValidationError):
            continue
    return tuple(found[:MOST_ALERTS])


def made_up(name: str, host: str, labels: Mapping[str, str], now: datetime) -> Alert:
    """An alert that nobody raised, to ask what would be done about one."""
    return Alert(
        status="firing",
        labels={"alertname": name, "host": host, **labels},
        startsAt=now,
        fingerprint="asked",
    )
