"""What may be done about which alert: the inventory's `remediation:`, typed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, time
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
    field_validator,
)

from ops.errors import InputError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Mode(StrEnum):
    """How far it goes."""

    OFF = "off"
    DRY_RUN = "dry_run"
    ACT = "act"


class Action(StrEnum):
    """What is done; each takes the host, or its engines, out of traffic first."""

    NONE = "none"
    DRAIN = "drain"
    RESTART_ENGINE = "restart_engine"
    RESET_GPU = "reset_gpu"
    REBOOT_HOST = "reboot_host"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Window(_Part):
    """When actions may begin; UTC. One that ends before it begins reaches into the next day."""

    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = DAYS  # type: ignore[assignment]
    start: time
    end: time

    def holds(self, moment: datetime) -> bool:
        """Whether a moment lies in it."""
        moment = moment.astimezone(UTC)
        now, today = moment.time(), DAYS[moment.weekday()]
        if self.start <= self.end:
            return today in self.days and self.start <= now < self.end
        yesterday = DAYS[moment.weekday() - 1]
        return (today in self.days and now >= self.start) or (
            yesterday in self.days and now < self.end
        )


class Rule(_Part):
    """What is done about an alert.

    Attributes:
        action: What.
        match: Labels that the alert has to have; a value may be several, separated by spaces.
        only: Hosts that it is done on; empty for all.
        even_the_last: Also where no other host serves one of the host's models.
        windows: When; empty for the policy's.
    """

    action: Action
    match: dict[str, str] = Field(default_factory=dict)
    only: tuple[str, ...] = ()
    even_the_last: bool | None = None
    windows: tuple[Window, ...] = ()

    @field_validator("match", mode="before")
    @classmethod
    def _words(cls, given: Any) -> Any:
        """Labels are text, and YAML reads `xid: 79` as a number."""
        if not isinstance(given, Mapping):
            return given
        return {k: str(v) if isinstance(v, int) else v for k, v in given.items()}

    def fits(self, labels: Mapping[str, str]) -> bool:
        """Whether an alert has the labels."""
        return all(labels.get(name, "") in value.split() for name, value in self.match.items())


class Limits(_Part):
    """How much is done at most; actions that were begun count, however they ended.

    Attributes:
        per_host_per_hour, per_host_per_day, fleet_per_hour: Actions.
        hosts_out_at_once: GPU hosts out of traffic, whoever took them out, with this one.
        cooldown_minutes: After an action on a host, until the next on it.
        reboots_before_replace: For the same alert about the same GPU, within `replace_days`.
    """

    per_host_per_hour: int = Field(default=1, ge=1)
    per_host_per_day: int = Field(default=3, ge=1)
    fleet_per_hour: int = Field(default=4, ge=1)
    hosts_out_at_once: int = Field(default=1, ge=1)
    cooldown_minutes: float = Field(default=15, ge=0)
    reboots_before_replace: int = Field(default=2, ge=1)
    replace_days: float = Field(default=7, gt=0)


class Waits(_Part):
    """How long to wait, in seconds.

    Attributes:
        lock: For another operation to end.
        drain: For requests under way; those that a broken GPU never ends are cut then.
        reset: For the driver to reset a GPU.
        reboot: For a host to boot.
        ready: For engines to serve.
    """

    lock: float = Field(default=300, ge=0)
    drain: float = Field(default=60, ge=0)
    reset: PositiveFloat = 120
    reboot: PositiveFloat = 900
    ready: PositiveFloat = 1800


def _mode(given: Any) -> Any:
    """YAML 1.1 reads a bare `off` as false."""
    return Mode.OFF if given is False else given


def _rules(given: Any) -> Any:
    """One rule may stand without a list, and an action without a mapping."""
    if not isinstance(given, Mapping):
        return given
    return {name: [_rule(one) for one in _listed(value)] for name, value in given.items()}


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _rule(value: Any) -> Any:
    return {"action": value} if isinstance(value, str) else value


class Policy(_Part):
    """The whole: mode, rules by alert, limits, waits, windows."""

    mode: Annotated[Mode, BeforeValidator(_mode)] = Mode.OFF
    alerts: Annotated[dict[str, tuple[Rule, ...]], BeforeValidator(_rules)] = Field(
        default_factory=dict
    )
    limits: Limits = Limits()
    waits: Waits = Waits()
    windows: tuple[Window, ...] = ()
    even_the_last: bool = False

    def rules(self, alert: str) -> tuple[Rule, ...]:
        """The rules for an alert: the inventory's where it names any, else the defaults."""
        return self.alerts.get(alert, DEFAULTS.get(alert, ()))

    def table(self) -> dict[str, tuple[Rule, ...]]:
        """Every alert that leads to anything, with its rules."""
        return {name: self.rules(name) for name in sorted({*DEFAULTS, *self.alerts})}


DEFAULTS: dict[str, tuple[Rule, ...]] = {
    "GpuFellOff": (Rule(action=Action.REBOOT_HOST),),
    "GpuXidReset": (Rule(action=Action.RESET_GPU),),
    "GpuXidContained": (Rule(action=Action.RESTART_ENGINE),),
    "GpuRecoveryAction": (
        Rule(action=Action.RESET_GPU, match={"recovery_action": "1 4"}),
        Rule(action=Action.REBOOT_HOST, match={"recovery_action": "2"}),
    ),
    "GpuEccUncorrected": (Rule(action=Action.RESET_GPU),),
    "EngineStalled": (Rule(action=Action.RESTART_ENGINE),),
}
"""Source: NVIDIA's XID catalogue and NVML's recovery actions, and what a stalled engine needs;
alerts by the names of role prometheus' rules. Whatever only warns has none."""


def read_policy(given: Mapping[str, Any] | None, place: str = "remediation") -> Policy:
    """Read the inventory's `remediation:`.

    Args:
        given: As YAML has it; nothing leaves remediation off.
        place: For messages.

    Raises:
        InputError: A value is wrong; the message names each with what it takes.
    """
    try:
        return Policy.model_validate(dict(given or {}))
    except (ValidationError, TypeError, ValueError) as error:
        raise InputError(
            _told(error), place=place, cure="docs/remediation.md has every key with its default"
        ) from error


def _told(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return f"remediation is no mapping: {error}"
    lines = [
        f"remediation.{'.'.join(str(part) for part in each['loc'])}: {each['msg']}"
        for each in error.errors(include_url=False)
    ]
    return "\n".join(lines)
