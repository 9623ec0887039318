"""Moments as people write them: ISO 8601, with a zone, or in the zone of their own machine."""

from __future__ import annotations

from datetime import datetime, tzinfo

from ops.errors import InputError

EXAMPLES = "--to 2026-03-01T14:05:00+01:00, --to '2026-03-01 13:05:00Z'"


def parse_moment(text: str, zone: tzinfo | None = None) -> datetime:
    """Read a moment; one without a zone is of this machine's.

    Args:
        text: ISO 8601, at least a date with hours and minutes.
        zone: Of moments that name none; this machine's own without it.

    Raises:
        InputError: It is no moment.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise InputError(f"{text!r} is no time", place="--to", cure=EXAMPLES) from error
    if len(text.strip()) <= len("2026-03-01"):
        raise InputError(f"{text!r} names a day and no time of it", place="--to", cure=EXAMPLES)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone) if zone else moment.astimezone()
    return moment


def for_postgres(moment: datetime) -> str:
    """A moment as recovery_target_time takes it: with its offset, whatever the server's zone."""
    text = moment.strftime("%Y-%m-%d %H:%M:%S.%f%z")
    return f"{text[:-2]}:{text[-2:]}"
