"""Runs on an agent host: what its instances of the app run, and what an operation changes there.

Standard library of the host's own Python; called as root with a verb and JSON.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOME = Path("/opt/agent_app")
FACT = Path("/etc/ansible/facts.d/agent_app.fact")
CONFIG = Path("/etc/agent_app/config.yml")
KEY = Path("/etc/rackhand/credentials/agent_app/probe_key")
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
ESTABLISHED = "01"
KEY_LIFE = "90d"
PROBE_SECONDS = 90.0  # one token, while the engines may be at their limit


def main(verb: str, *words: str) -> None:
    """Run one verb; its answer is a line of JSON."""
    values = json.loads(words[0]) if words else {}
    print(json.dumps(VERBS[verb](**values)))


def replace(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file whole or not at all, down to the disk; whose it was, it stays."""
    candidate = path.with_name(f".{path.name}.new")
    with candidate.open("w") as stream:
        os.fchmod(stream.fileno(), mode)
        if path.exists():
            there = path.stat()
            os.fchown(stream.fileno(), there.st_uid, there.st_gid)
            os.fchmod(stream.fileno(), there.st_mode & 0o7777)
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    candidate.rename(path)


def point(link: Path, target: Path) -> None:
    """Have a link lead to a release, as the role writes it; one that does is left alone."""
    if link.is_symlink() and link.readlink() == target:
        return
    candidate = link.with_name(f".{link.name}.new")
    candidate.unlink(missing_ok=True)
    candidate.symlink_to(target)
    candidate.rename(link)


def release_of(link: Path) -> str:
    """Name the release that a link leads to; empty where there is none."""
    return link.readlink().name if link.is_symlink() else ""


def survey(ports: list[int]) -> dict[str, Any]:
    """Return what is known of the app here: releases, what its instances run, its configuration."""
    releases = HOME / "releases"
    return {
        "current": release_of(HOME / "current"),
        "instances": {str(port): release_of(HOME / "instances" / str(port)) for port in ports},
        "releases": sorted(
            path.parent.name
            for path in releases.glob("*/.complete")
            if not path.parent.is_symlink()
        ),
        "fact": json.loads(FACT.read_text()) if FACT.exists() else {},
        "config": CONFIG.read_text() if CONFIG.exists() else "",
    }


def set_release(port: int, release: str) -> dict[str, Any]:
    """Have an instance run a release from its next start on."""
    target = HOME / "releases" / release
    if not (target / ".complete").exists():
        raise SystemExit(f"release {release} is not complete: {target}")
    point(HOME / "instances" / str(port), target)
    return {}


def set_current(release: str, fact: dict[str, Any]) -> dict[str, Any]:
    """Have the host run a release, and say who put it there; no fact says that nobody did."""
    point(HOME / "current", HOME / "releases" / release)
    if fact:
        FACT.parent.mkdir(parents=True, exist_ok=True)
        replace(FACT, json.dumps(fact, indent=4, sort_keys=True) + "\n")
    else:
        FACT.unlink(missing_ok=True)
    return {}


def set_config(before: str, after: str) -> dict[str, Any]:
    """Write the configuration, unless somebody changed it meanwhile."""
    now = CONFIG.read_text()
    if now not in (before, after):
        raise SystemExit(f"{CONFIG} was changed meanwhile")
    if now != after:
        replace(CONFIG, after)
    return {}


def connections(port: int) -> dict[str, Any]:
    """Count the connections that an instance holds: streams, and those the edge keeps ready."""
    return {"count": sum(count(table.read_text(), port) for table in TABLES if table.exists())}


def count(table: str, port: int) -> int:
    """Count the established connections to a local port in a table of the kernel's."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return sum(row[3] == ESTABLISHED and int(row[1].rpartition(":")[2], 16) == port for row in rows)


def look_at(port: int, address: str) -> dict[str, Any]:
    """Return an instance's unit as systemd has it, and its own word whether it can serve."""
    names = "ActiveState,NRestarts"
    shown = subprocess.run(
        ["systemctl", "show", "-p", names, f"agent_app@{port}.service"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = dict(line.split("=", 1) for line in shown.splitlines())
    why = why_not_ready(port, address)
    return {"active": found["ActiveState"], "restarts": int(found["NRestarts"] or 0), "why": why}


def why_not_ready(port: int, address: str) -> str:
    """Return what an instance says stands in the way; empty when it is ready."""
    try:
        with urllib.request.urlopen(f"http://{address}:{port}/ready", timeout=30):
            return ""
    except urllib.error.HTTPError as error:
        return error.read().decode(errors="replace")[:500]
    except OSError as error:
        return str(error)


def complete(port: int, address: str) -> dict[str, Any]:
    """Have an instance complete a real request, with a key of our own that is renewed at need."""
    for fresh in (False, True):
        if fresh or not KEY.exists():
            make_key()
        status, text = ask(port, address, KEY.read_text().strip())
        if status != 401:
            break
    if status != 200:
        raise SystemExit(f"a completion through agent_app@{port} ended with {status}: {text[:500]}")
    reason = json.loads(text)["choices"][0]["finish_reason"]
    if reason not in ("stop", "length"):
        raise SystemExit(f"a completion through agent_app@{port} ended by {reason!r}")
    return {}


def make_key() -> None:
    """Make a key for our probes; root's alone."""
    name = f"ops-{os.uname().nodename}-{int(time.time())}"
    words = ["agent-app", "keys", "create", "--name", name, "--expires", KEY_LIFE, "--json"]
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise SystemExit(f"`{' '.join(words)}` failed: {made.stderr.strip()[-500:]}")
    replace(KEY, json.loads(made.stdout)["key"] + "\n", 0o600)


def ask(port: int, address: str, key: str) -> tuple[int, str]:
    """Ask for a short answer; the time in it keeps any cache from giving it."""
    question = {"role": "user", "content": f"ping at {time.time()}"}
    body = json.dumps({"messages": [question], "max_tokens": 4}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connection = http.client.HTTPConnection(address, port, timeout=PROBE_SECONDS)
    try:
        connection.request("POST", "/v1/chat/completions", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


VERBS: dict[str, Callable[..., Any]] = {
    "survey": survey,
    "set_release": set_release,
    "set_current": set_current,
    "set_config": set_config,
    "connections": connections,
    "look_at": look_at,
    "complete": complete,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
