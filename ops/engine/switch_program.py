"""Runs on a host whose nginx leads to engines or to the app: who gets traffic, and how they do.

Standard library of the host's own Python; called as root with a verb and JSON.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FACT = Path("/etc/ansible/facts.d/engine.fact")
PROXY = Path("/etc/nginx/engine_proxy.d")
HELD = Path("/var/lib/rackhand/held")
LOG = Path("/var/log/nginx/engine_proxy.log")
EDGE_UPSTREAM = Path("/etc/nginx/edge.d/agent_app.upstream.conf")
EDGE_LOG = Path("/var/log/nginx/access.log")
LOCK = Path("/var/lib/rackhand/switch.lock")
MASTER = Path("/run/nginx.pid")
RELOAD_SECONDS = 15.0
MOST_SAMPLES = 2000


def main(verb: str, *words: str) -> None:
    """Run one verb; its answer is a line of JSON."""
    values = json.loads(words[0]) if words else {}
    print(json.dumps(VERBS[verb](**values)))


def read_fact() -> dict[str, Any]:
    """Return the whole fact file, as role `engine` and this program write it."""
    found: dict[str, Any] = json.loads(FACT.read_text()) if FACT.exists() else {"models": {}}
    return found


def write_fact(fact: dict[str, Any]) -> None:
    """Write it as the role does, to the byte: a later run of the role then changes nothing."""
    replace(FACT, json.dumps(fact, indent=4, sort_keys=True) + "\n")


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all, down to the disk."""
    candidate = path.with_name(f".{path.name}.new")
    with candidate.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fchmod(stream.fileno(), 0o644)
        os.fsync(stream.fileno())
    candidate.rename(path)


@contextmanager
def alone() -> Iterator[None]:
    """Let one of us at a time change what all share."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def set_fact(model: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Change what the host says of a model; return what it said before."""
    with alone():
        fact = read_fact()
        before = dict(fact["models"].get(model, {}))
        fact["models"][model] = {**before, **changes}
        write_fact(fact)
    return before


def set_traffic(model: str, weights: dict[str, int], upstream: str) -> dict[str, Any]:
    """Give slots their shares; nginx's workers of before take no new request afterwards.

    An upstream that nginx refuses leaves everything as it was, and raises.
    """
    with alone():
        fact = read_fact()
        write_upstream(PROXY / f"{model}.upstream.conf", upstream)
        fact["models"][model]["traffic"] = weights
        write_fact(fact)
        # Also where the file was right already: a death may have come before the reload.
        reload_nginx()
    return {"old_workers": len([w for w in workers() if w[1]])}


def write_upstream(path: Path, upstream: str) -> None:
    """Write an upstream that nginx takes; one that it refuses leaves everything as it was."""
    text = path.read_text()
    if text == upstream:
        return
    replace(path, upstream)
    checked = subprocess.run(["nginx", "-t", "-q"], capture_output=True, text=True, check=False)
    if checked.returncode != 0:
        replace(path, text)
        raise SystemExit(f"nginx refuses the new upstream: {checked.stderr.strip()}")


def set_out(backend: str, out: bool) -> dict[str, Any]:
    """Take an instance of the app out of the edge, or put it back: new requests know no other.

    Returns:
        Which are out now.
    """
    with alone():
        text = EDGE_UPSTREAM.read_text()
        changed, count = mark(text, backend, out)
        if not count:
            raise SystemExit(f"{EDGE_UPSTREAM} has no server {backend}: run `ops provision`")
        write_upstream(EDGE_UPSTREAM, changed)
        # Also where the file was right already: a death may have come before the reload.
        reload_nginx()
    return {"out": re.findall(r"^    server (\S+) .* down;$", changed, re.MULTILINE)}


def mark(text: str, backend: str, out: bool) -> tuple[str, int]:
    """Mark a server of an upstream as down, or take the mark off; how many lines name it."""
    line = re.compile(rf"^(    server {re.escape(backend)} .*?)(?: down)?;$", re.MULTILINE)
    return line.subn(r"\1 down;" if out else r"\1;", text)


def workers() -> list[tuple[int, bool]]:
    """Return nginx's workers by process id, and whether each is one that only finishes."""
    master, found = MASTER.read_text().strip(), []
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    for child in children:
        try:
            title = Path(f"/proc/{child}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "worker process" in title:
            found.append((int(child), "shutting down" in title))
    return found


def reload_nginx() -> None:
    """Reload, and wait until workers with the new configuration have taken over."""
    before = {pid for pid, _ in workers()}
    subprocess.run(["systemctl", "reload", "nginx.service"], check=True)
    deadline = time.monotonic() + RELOAD_SECONDS
    while time.monotonic() < deadline:
        now = workers()
        if any(pid not in before for pid, _ in now) and all(
            ending or pid not in before for pid, ending in now
        ):
            return
        time.sleep(0.05)
    raise SystemExit(f"nginx did not take its configuration within {RELOAD_SECONDS:.0f} s")


def set_held(model: str, reason: str) -> dict[str, Any]:
    """Refuse new requests for a model (503: the app holds on), or let them in with no reason."""
    HELD.mkdir(parents=True, exist_ok=True)
    if reason:
        replace(HELD / model, reason + "\n")
    else:
        (HELD / model).unlink(missing_ok=True)
    return {}


def read_log(port: int, offset: int) -> dict[str, Any]:
    """Return what the slot at this port did since a place in the proxy's log, and the new place.

    An offset of -1 gives the log's end.
    """
    found: dict[str, Any] = {"requests": 0, "failed": 0, "first_byte": []}
    lines, place = lines_since(LOG, offset)
    for line in lines:
        note_request(found, line, f"127.0.0.1:{port}")
    return {"offset": place, **found}


def read_edge_log(backend: str, offset: int) -> dict[str, Any]:
    """Return what each instance of the app did since a place in the edge's log, and the new place.

    A request that the edge tried elsewhere counts as failed where it failed.
    """
    found: dict[str, dict[str, Any]] = {
        name: {"requests": 0, "failed": 0, "first_byte": []} for name in ("watched", "others")
    }
    lines, place = lines_since(EDGE_LOG, offset)
    for line in lines:
        for server, status in attempts(line):
            side = found["watched" if server == backend else "others"]
            side["requests"] += 1
            side["failed"] += not status.isdigit() or int(status) >= 500
    return {"offset": place, **found}


def attempts(line: bytes) -> list[tuple[str, str]]:
    """Return the servers that a request of the edge's log was sent to, and what each answered."""
    try:
        entry = json.loads(line)
    except ValueError:
        return []
    servers, statuses = (str(entry.get(k, "")) for k in ("upstream", "upstream_status"))
    pairs = zip(servers.split(", "), statuses.split(", "), strict=False)
    # Without a port it is no server: the upstream's own name, where none was left.
    return [(server, status) for server, status in pairs if ":" in server]


def lines_since(log: Path, offset: int) -> tuple[list[bytes], int]:
    """Return the whole lines after a place in a log, and the place behind them; -1 is its end."""
    size = log.stat().st_size if log.exists() else 0
    if offset < 0 or not size:
        return [], size
    lines, place = [], offset if offset <= size else 0  # rotated: from the new file's start
    with log.open("rb") as stream:
        stream.seek(place)
        for line in stream:
            if not line.endswith(b"\n"):
                break
            lines.append(line)
            place += len(line)
    return lines, place


def note_request(found: dict[str, Any], line: bytes, server: str) -> None:
    """Count one line of the log if it is this server's."""
    try:
        entry = json.loads(line)
    except ValueError:
        return
    if entry["server"] != server:
        return
    found["requests"] += 1
    found["failed"] += entry["status"] >= 500 and entry["status"] != 503
    if entry["first_byte"] and len(found["first_byte"]) < MOST_SAMPLES:
        found["first_byte"].append(float(entry["first_byte"]))


def survey(model: str, ports: dict[str, int]) -> dict[str, Any]:
    """Return what is known of a model's slots: units, requests under way, memory, old workers."""
    return {
        "fact": read_fact()["models"].get(model, {}),
        "slots": {slot: look_at(f"engine@{model}-{slot}.service", p) for slot, p in ports.items()},
        "held": (HELD / model).exists(),
        "memory_available": memory_available(),
        "weights": staged(model),
    }


def staged(model: str) -> list[str]:
    """Return the revisions whose weights are in place."""
    found = Path("/srv/models", model).glob("*/.manifest.json")
    return sorted(p.parent.name for p in found if p.parent.suffix != ".staging")


def look_at(unit: str, port: int) -> dict[str, Any]:
    """Return one slot's unit as systemd has it, and the requests that its engine holds."""
    names = "ActiveState,SubState,NRestarts,MemoryCurrent,UnitFileState,MainPID"
    shown = subprocess.run(
        ["systemctl", "show", "-p", names, unit], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, Any] = dict(line.split("=", 1) for line in shown.splitlines())
    memory = resident(found["MainPID"])
    return {
        "active": found["ActiveState"],
        "restarts": int(found["NRestarts"] or 0),
        "enabled": found["UnitFileState"] == "enabled",
        "memory": memory,
        "requests": requests(port) if found["ActiveState"] == "active" else 0,
        "first_token": first_tokens(port) if found["ActiveState"] == "active" else [0.0, 0],
    }


def resident(main: str) -> int:
    """Return the resident memory of a process and its children, in bytes; 0 where it is not."""
    total, waiting = 0, [main] if main not in ("", "0") else []
    while waiting:
        pid = waiting.pop()
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            waiting += Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            continue
        total += pages * os.sysconf("SC_PAGE_SIZE")
    return total


def metric(port: int, *names: str) -> float | None:
    """Return the sum of an engine's metrics of these names; None where it is silent."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            page = answer.read().decode()
    except OSError:
        return None
    starts = tuple(f"vllm:{name}{{" for name in names)
    lines = [line for line in page.splitlines() if line.startswith(starts)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def requests(port: int) -> int:
    """Return the requests that the engine at a port runs or has queued; -1 where it is silent."""
    found = metric(port, "num_requests_running", "num_requests_waiting")
    return -1 if found is None else int(found)


def first_tokens(port: int) -> list[float]:
    """Return the seconds to the first token of all requests since the start, and their number."""
    names = ("time_to_first_token_seconds_sum", "time_to_first_token_seconds_count")
    return [metric(port, name) or 0.0 for name in names]


def memory_available() -> int:
    """Return the host's available memory, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


VERBS: dict[str, Callable[..., Any]] = {
    "set_fact": set_fact,
    "set_traffic": set_traffic,
    "set_held": set_held,
    "set_out": set_out,
    "read_log": read_log,
    "read_edge_log": read_edge_log,
    "survey": survey,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
