"""Long work in the background, and where its webhooks may go."""

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from agent_app.config.section import Section

_NAME = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")


def _check_host(entry: str) -> str:
    """Return the entry if it is a name, `*.name`, `*`, an address or a network.

    Raises:
        ValueError: It is none of them.
    """
    try:
        return str(ipaddress.ip_network(entry, strict=True))
    except ValueError:
        if "/" in entry or _NAME.fullmatch(entry.lower()) is None:
            raise ValueError(f"{entry!r} is no host name, address or network") from None
        return entry.lower()


class Jobs(Section):
    """Bounds on jobs."""

    workers: int = Field(default=2, ge=0)
    """Jobs that one process works on at a time; few, so that chat keeps the engines."""
    per_key: int = Field(default=2, ge=1)
    """Jobs of one key at a time, over all processes."""
    seconds: float = Field(default=3600, gt=0)
    """Running time of a job over all its attempts, in place of `limits.turn_seconds`."""
    attempts: int = Field(default=5, ge=1)
    """Ends by a dead process or a failing engine, after which a job is given up."""
    wait_seconds: float = Field(default=86_400, gt=0)
    """A job that has not ended so long after it was submitted is given up when it next waits."""
    webhook_hosts: tuple[Annotated[str, AfterValidator(_check_host)], ...] = ()
    """Whom jobs may call: names, `*.name` or `*` on public addresses, and networks beside them."""
    webhook_attempts: int = Field(default=12, ge=1)
    """After so many failures a delivery is given up; waits double from 2 s to 1 h."""
