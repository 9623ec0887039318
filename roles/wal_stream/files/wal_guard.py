#!/usr/bin/python3
# Laid down by Rackhand; changes here are overwritten.
"""Have commits wait for the second host while it keeps up, and let them go where it is away.

PostgreSQL's own synchronous replication waits for ever for a standby that is gone. This program
names the standby in `synchronous_standby_names` only while it streams, so that the loss of the
second host holds commits up for seconds and not until a person comes; it tells Prometheus which it
is. `wal_guard release` lets commits go and ends.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import psycopg2

CONFIG = Path("/etc/rackhand/wal_stream.json")
POLL_SECONDS = 0.5
TELL_SECONDS = 10.0
STANDBY = "rackhand_wal"
LOOK = """
SELECT EXISTS (SELECT FROM pg_stat_replication
                WHERE usename = %(name)s AND application_name = %(name)s AND state = 'streaming'),
       current_setting('synchronous_standby_names') <> ''
"""
HELP = {
    "rackhand_wal_stream_synchronous": "1 while commits wait for the second host.",
    "rackhand_wal_stream_timestamp_seconds": "When that was last looked at.",
}


def tell(state: Path, *, synchronous: bool) -> None:
    """Write the page of metrics, whole or not at all."""
    values = (float(synchronous), time.time())
    lines = []
    for (name, words), value in zip(HELP.items(), values, strict=True):
        lines += [f"# HELP {name} {words}", f"# TYPE {name} gauge", f"{name} {value!r}"]
    candidate = state / ".wal_stream.prom.new"
    candidate.write_text("\n".join(lines) + "\n", encoding="utf-8")
    candidate.chmod(0o644)
    candidate.replace(state / "wal_stream.prom")


def name_standby(cursor: Any, *, wanted: bool) -> None:
    """Have commits wait for the receiver, or for nobody; those that wait now are let go."""
    names = f"'{STANDBY}'" if wanted else "''"
    cursor.execute(f"ALTER SYSTEM SET synchronous_standby_names = {names}")
    cursor.execute("SELECT pg_reload_conf()")


def guard(config: dict[str, Any], cursor: Any) -> None:
    """Follow the receiver, until the connection breaks."""
    told: tuple[bool, float] = (False, 0.0)
    while True:
        cursor.execute(LOOK, {"name": STANDBY})
        streaming, waiting = cursor.fetchone()
        if streaming != waiting:
            name_standby(cursor, wanted=streaming)
            word = "commits wait for it" if streaming else "<4>commits no longer wait for it"
            print(f"{word}: {config['receiver']} {'streams' if streaming else 'is away'}")
            sys.stdout.flush()
        if streaming != told[0] or time.monotonic() - told[1] > TELL_SECONDS:
            tell(Path(config["state"]), synchronous=streaming)
            told = (streaming, time.monotonic())
        time.sleep(POLL_SECONDS)


def main(words: list[str]) -> int:
    """Guard, or release."""
    config = json.loads(CONFIG.read_text(encoding="utf-8"))
    try:
        connection = psycopg2.connect(
            host="/run/postgresql", port=config["port"], user="postgres", dbname="postgres",
            connect_timeout=5, application_name="rackhand_wal_guard",
        )  # fmt: skip
        connection.autocommit = True  # ALTER SYSTEM stands in no transaction
        with connection.cursor() as cursor:
            if words == ["release"]:
                name_standby(cursor, wanted=False)
                return 0
            guard(config, cursor)
    except psycopg2.OperationalError as error:
        print(f"<4>PostgreSQL does not answer: {error}".strip(), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
