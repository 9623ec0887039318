"""Runs on a host: what it is and does right now, a line of JSON for each line of its input.

Standard library of the host's own Python; called as root with JSON. It stays as long as somebody
asks, so that a look costs no new process, no new line in the log of sudo, and can tell what a log
had since the look before. It changes nothing.
"""

from __future__ import annotations

import fcntl
import fnmatch
import json
import os
import re
import select
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FACT = Path("/etc/ansible/facts.d/engine.fact")
SETTINGS = Path("/etc/engine")
INSTANCES = Path("/etc/agent_app/instances")
CERTIFICATE = Path("/etc/nginx/tls/current/fullchain.pem")
LOG = Path("/var/log/nginx/engine_proxy.log")
DRAINED = Path("/var/lib/rackhand/drained")
HELD = Path("/var/lib/rackhand/held")
OPERATIONS = Path("/var/lib/rackhand/operations")
DISKS = ("/", "/srv")
COMMAND_SECONDS = 5.0
PAGE_SECONDS = 2.0
GPU_SECONDS = 20.0
"""How long nvidia-smi may take before it is ended; a look waits for it no longer than the next."""
GPU_LOOK_SECONDS = 3.0
MOST_LOG_BYTES = 8 << 20
GPU_FIELDS = ("index", "name", "uuid", "memory.total", "memory.used", "temperature.gpu",
              "utilization.gpu", "driver_version")  # fmt: skip
SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
ENGINE_SUMS = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:prompt_tokens_total": "prompt_tokens",
    "vllm:generation_tokens_total": "generation_tokens",
    "vllm:request_success_total": "finished",
}
TTFT = "vllm:time_to_first_token_seconds_bucket"
CACHE = "vllm:kv_cache_usage_perc"
APP_SUMS = {
    "agent_app_runs_in_flight": "in_flight",
    "agent_app_queue_length": "queued",
    "agent_app_requests_total": "requests",
}
# It must reach the host itself, whatever proxy root's environment names.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Looker:
    """Looks at the host; keeps what the next look needs.

    Args:
        wanted: `units` (patterns of those that should be active), `ports` (by model and slot),
            `address` (where the app's metrics listen), `keeper` (whether operations are kept
            here) and `traffic` (whether to ask engines and the app how they do).
    """

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted
        self.log = Log(LOG)
        self.gpus = Gpus()
        self.certificate = Certificate(CERTIFICATE)
        self.complaints: list[str] = []

    def look(self) -> dict[str, Any]:
        """Return all of it; what cannot be told is a complaint and empty."""
        self.complaints = []
        self.gpus.ask()
        units = self.part("systemd", self.units, {})
        traffic = bool(self.wanted["traffic"])
        found = {
            "monotonic": time.monotonic(),
            "now": time.time(),
            "units": units,
            "models": self.part("engine.fact", lambda: models(self.wanted["ports"], units), {}),
            "drained": read(DRAINED).strip(),
            "held": {p.name: read(p).strip() for p in sorted(HELD.glob("[!.]*"))},
            "load": self.part("load", load, []),
            "memory": self.part("memory", memory, {}),
            "disks": self.part("disks", disks, {}),
            "certificate": self.part("certificate", self.certificate.read, None),
            "operation": self.part("operation", operation, None) if self.wanted["keeper"] else None,
            "instances": self.part("instances", instances, {}),
        }
        if traffic:
            self.part("traffic", lambda: self.add_traffic(found), None)
        found["gpus"] = self.gpus.tell()
        return {**found, "complaints": self.complaints}

    def part(self, name: str, ask: Callable[[], Any], empty: Any) -> Any:
        """Return one part; a sick one does not hide the others."""
        try:
            return ask()
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            self.complaints.append(f"{name}: {error}")
            return empty

    def units(self) -> dict[str, dict[str, str]]:
        """Return the units that should be active, those of ours that tell more, and failed ones."""
        kept = {}
        for unit in systemctl("list-units", "--all"):
            name, wanted = unit["unit"], self.wanted["units"]
            if unit["load"] == "not-found" and unit["active"] == "inactive":
                continue  # another unit names it, and nobody installed it
            if unit["active"] == "failed" or any(fnmatch.fnmatch(name, one) for one in wanted):
                kept[name] = {"active": unit["active"], "sub": unit["sub"]}
        return kept

    def add_traffic(self, found: dict[str, Any]) -> None:
        """Ask the engines that run, the app's instances and the proxy's log."""
        self.log.read()
        asked: list[tuple[dict[str, Any], str, Callable[[str], dict[str, Any]]]] = []
        for name, model in found["models"].items():
            for slot, about in model["slots"].items():
                port = self.wanted["ports"].get(name, {}).get(slot)
                about["log"] = self.log.counts.get(
                    f"127.0.0.1:{port}", {"requests": 0, "failed": 0}
                )
                if port and about["state"] == "active":
                    asked.append((about, f"http://127.0.0.1:{port}/metrics", engine))
        for about in found["instances"].values():
            if about["metrics_port"]:
                place = f"http://{self.wanted['address']}:{about['metrics_port']}/metrics"
                asked.append((about, place, app))
        found["refused"] = self.log.refused
        with ThreadPoolExecutor(max_workers=max(1, len(asked))) as pool:
            pages = list(pool.map(page, [address for _, address, _ in asked]))
        for (about, _, understand), text in zip(asked, pages, strict=True):
            about["metrics"] = understand(text) if text else None


class Log:
    """Counts what each engine did, from the engine proxy's log, since the first look."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place: tuple[int, int] | None = None
        self.counts: dict[str, dict[str, int]] = {}
        self.refused = 0

    def read(self) -> None:
        """Count what came since the last time; of a rotated file what is in the new one."""
        try:
            with self.path.open("rb") as stream:
                about = os.fstat(stream.fileno())
                if self.place is None:
                    self.place = (about.st_ino, about.st_size)
                file, offset = self.place
                if file != about.st_ino or offset > about.st_size:
                    offset = 0
                # Hopelessly behind: shares and percentages stay right, the figures are too low.
                stream.seek(max(offset, about.st_size - MOST_LOG_BYTES))
                data = stream.read(MOST_LOG_BYTES)
                whole = data.rfind(b"\n") + 1
                self.place = (about.st_ino, stream.tell() - len(data) + whole)
        except FileNotFoundError:
            return
        for line in data[:whole].splitlines():
            self.count(line)

    def count(self, line: bytes) -> None:
        """Count one line: 503 without a server is a request that a drained host refused."""
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if not entry["server"]:
            self.refused += entry["status"] == 503
            return
        counts = self.counts.setdefault(entry["server"], {"requests": 0, "failed": 0})
        counts["requests"] += 1
        counts["failed"] += entry["status"] >= 500 and entry["status"] != 503  # as in operations


class Gpus:
    """Asks nvidia-smi beside everything else: with a GPU that hangs, so does it."""

    def __init__(self) -> None:
        self.busy: threading.Thread | None = None
        self.since = 0.0
        self.found: dict[str, Any] | None = None

    def ask(self) -> None:
        """Begin to ask, unless it is still busy or there is no driver."""
        if not shutil.which("nvidia-smi"):
            self.found = {"listed": [], "complaint": ""}
        elif self.busy is None or not self.busy.is_alive():
            self.since = time.monotonic()
            self.busy = threading.Thread(target=self.run, daemon=True)
            self.busy.start()

    def run(self) -> None:
        """Keep what it says."""
        words = [f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader,nounits"]
        try:
            asked = subprocess.run(["nvidia-smi", *words], capture_output=True, text=True,
                                   check=False, timeout=GPU_SECONDS)  # fmt: skip
        except subprocess.TimeoutExpired:
            complaint = f"nvidia-smi did not answer in {GPU_SECONDS:.0f} s"
            self.found = {"listed": [], "complaint": complaint}
            return
        lines = (asked.stdout + asked.stderr).splitlines()
        rows = [line.split(", ") for line in lines if line]
        count = len(GPU_FIELDS)
        listed = [dict(zip(GPU_FIELDS, row, strict=True)) for row in rows if len(row) == count]
        others = [", ".join(row) for row in rows if len(row) != count]
        failed = asked.returncode != 0
        complaint = (others or ["nvidia-smi failed"])[0] if failed else ""
        self.found = {"listed": listed, "complaint": complaint}

    def tell(self) -> dict[str, Any]:
        """Return what it said last."""
        if self.busy is not None:
            self.busy.join(GPU_LOOK_SECONDS if self.found is None else 0.5)
            waited = time.monotonic() - self.since
            if self.busy.is_alive() and waited > GPU_LOOK_SECONDS - 0.1:
                last = self.found or {"listed": [], "complaint": ""}
                return {**last, "complaint": f"nvidia-smi has not answered for {waited:.0f} s"}
        return self.found or {"listed": [], "complaint": ""}


class Certificate:
    """Tells when the edge's certificate ends; read anew when the file is another one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: tuple[float, str] | None = None
        self.expires = 0.0

    def read(self) -> dict[str, Any] | None:
        """Return its end in seconds since the epoch, None where the host is no edge."""
        if not self.path.exists():
            return None
        state = (self.path.stat().st_mtime, str(self.path.resolve()))
        if state != self.known:
            words = ["openssl", "x509", "-noout", "-enddate", "-in", str(self.path)]
            shown = subprocess.run(words, capture_output=True, text=True, check=True,
                                   timeout=COMMAND_SECONDS).stdout  # fmt: skip
            self.expires = float(ssl.cert_time_to_seconds(shown.strip().partition("=")[2]))
            self.known = state
        return {"expires": self.expires}


def systemctl(*words: str) -> list[dict[str, Any]]:
    """Return what systemctl lists."""
    done = subprocess.run(["systemctl", *words, "--output=json"], capture_output=True, text=True,
                          check=True, timeout=COMMAND_SECONDS)  # fmt: skip
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def models(ports: dict[str, dict[str, int]], units: dict[str, Any]) -> dict[str, Any]:
    """Return each model that the host has: its active slot, and both with what they are."""
    facts = json.loads(read(FACT) or "{}").get("models", {})
    timers = retirements() if facts else {}
    found = {}
    for name, fact in facts.items():
        slots = {}
        for slot in ports.get(name) or ("blue", "green"):
            unit = f"engine@{name}-{slot}.service"
            settings = read(SETTINGS / f"{name}-{slot}.env")
            slots[slot] = {
                "unit": unit,
                "state": units.get(unit, {}).get("active", "inactive"),
                "share": share(fact, slot),
                "revision": first(rf"^ENGINE_ARGS=\"?serve /srv/models/{name}/(\S+)", settings),
                "environment": first(r"^ENGINE_COMMAND=/opt/vllm/([^/]+)/", settings),
                "kept_until": timers.get(f"engine-retires-{name}-{slot}.timer"),
            }
        found[name] = {"active": fact.get("active", ""), "slots": slots}
    return found


def share(fact: dict[str, Any], slot: str) -> int:
    """Return a slot's share of new requests, in percent."""
    weights: dict[str, int] = fact.get("traffic") or {fact.get("active"): 100}
    return round(100 * weights.get(slot, 0) / (sum(weights.values()) or 1))


def retirements() -> dict[str, float]:
    """Return when the host will stop a slot that is kept ready, by the timer that does it."""
    try:
        listed = systemctl("list-timers", "--all", "engine-retires-*")
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    return {timer["unit"]: timer["next"] / 1e6 for timer in listed if timer.get("next")}


def instances() -> dict[str, dict[str, Any]]:
    """Return the agent app's instances by port."""
    found = {}
    for path in sorted(INSTANCES.glob("*.env")):
        port = first(r"^METRICS_PORT=(\d+)", read(path))
        found[path.stem] = {"metrics_port": int(port) if port else None}
    return found


def engine(text: str) -> dict[str, Any]:
    """Read vLLM's metrics, summed over its engine cores."""
    found: dict[str, Any] = dict.fromkeys(ENGINE_SUMS.values(), 0.0)
    found.update(kv_cache=0.0, first_token={})
    for name, labels, value in SAMPLE.findall(text):
        if name in ENGINE_SUMS:
            found[ENGINE_SUMS[name]] += float(value)
        elif name == CACHE:
            found["kv_cache"] = max(found["kv_cache"], float(value))
        elif name == TTFT:
            bound = first(r'le="([^"]+)"', labels)
            found["first_token"][bound] = found["first_token"].get(bound, 0.0) + float(value)
    return found


def app(text: str) -> dict[str, Any]:
    """Read the agent app's metrics."""
    found: dict[str, Any] = {**dict.fromkeys(APP_SUMS.values(), 0.0), "failed": 0.0}
    for name, labels, value in SAMPLE.findall(text):
        if name in APP_SUMS:
            found[APP_SUMS[name]] += float(value)
        if name == "agent_app_requests_total" and 'status="5' in labels:
            found["failed"] += float(value)
    return found


def page(address: str) -> str:
    """Return a page, empty where nobody answers in time."""
    try:
        with OPENER.open(address, timeout=PAGE_SECONDS) as answer:
            text: str = answer.read().decode(errors="replace")
            return text
    except (OSError, ValueError):
        return ""


def load() -> list[float]:
    """Return the load of the last minute and the number of processors."""
    return [float(read(Path("/proc/loadavg")).split()[0]), float(os.cpu_count() or 1)]


def memory() -> dict[str, int]:
    """Return the host's memory in bytes."""
    lines = dict(line.split(":", 1) for line in read(Path("/proc/meminfo")).splitlines())
    total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    return {"used": total - free, "total": total}


def disks() -> dict[str, dict[str, int]]:
    """Return the file systems' bytes: used, and all that could be, as df counts them."""
    found = {}
    for path in DISKS:
        if Path(path).exists():
            about = os.statvfs(path)
            used = (about.f_blocks - about.f_bfree) * about.f_frsize
            found[path] = {"used": used, "total": used + about.f_bavail * about.f_frsize}
    return found


def operation() -> dict[str, Any] | None:
    """Return the operation that is running or unfinished, as ops/operations/journal.py reads it."""
    opened = json.loads(read(OPERATIONS / "open.json") or "null")
    if opened is None:
        return None
    folder = OPERATIONS / opened["id"]
    lines = read(folder / "journal.jsonl").splitlines(keepends=True)
    owner = json.loads(read(OPERATIONS / "owner.json") or "{}")
    return {
        "id": opened["id"],
        "plan": json.loads(read(folder / "plan.json")),
        "entries": [json.loads(line) for line in lines if line.endswith("\n")],
        "held": owner.get("id") == opened["id"] and is_locked(OPERATIONS / "lock"),
        "owner": owner or opened,
    }


def is_locked(path: Path) -> bool:
    """Tell whether a process holds a lock right now: nobody shares it then."""
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def first(pattern: str, text: str) -> str:
    """Return what a pattern's group finds first, or nothing."""
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1) if found else ""


def read(path: Path) -> str:
    """Return a file's text, empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def main(words: str) -> None:
    """Look once for each line of input, until it ends or stays silent."""
    wanted = json.loads(words)
    looker, waiting = Looker(wanted), b""
    while select.select([0], [], [], wanted["silence_seconds"])[0]:
        data = os.read(0, 1 << 16)
        if not data:
            break
        *lines, waiting = (waiting + data).split(b"\n")
        for _ in lines:
            print(json.dumps(looker.look()), flush=True)
    sys.stdout.flush()
    os._exit(0)  # a GPU that hangs must not keep us


if __name__ == "__main__":
    main(sys.argv[1])
