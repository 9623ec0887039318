"""What else serves on a host: data, edge, app, and the operation under way."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ops.doctor.evidence.command import TIMED_OUT, ask, first, read, redact
from ops.doctor.evidence.engines import page

INSTANCES = Path("/etc/agent_app/instances")
TLS = Path("/etc/nginx/tls")
DRAINED, HELD = Path("/var/lib/rackhand/drained"), Path("/var/lib/rackhand/held")
LETSENCRYPT_LOG = Path("/var/log/letsencrypt/letsencrypt.log")
SECONDS = 5.0
READY_SECONDS = 15.0
LINES = 20
METRICS = Path("/var/lib/rackhand/metrics")
FACTS = "/etc/ansible/facts.d"


def redis() -> list[dict[str, Any]]:
    """Return how each Redis of ours answers a PING; NOAUTH is an answer, it wants a password."""
    found = []
    for path in sorted(Path("/etc/redis").glob("redis-*.conf")):
        name = path.stem.removeprefix("redis-")
        text = read(path)
        tls = first(r"^tls-port (\d+)", text)
        port = tls or first(r"^port (\d+)", text)
        if not port or port == "0":
            continue
        address = first(r"^bind (\S+)", text).lstrip("-") or "127.0.0.1"
        found.append(
            {
                "name": name,
                "unit": f"redis-server@{name}.service",
                "port": port,
                "said": ping(address, int(port), bool(tls)),
            }
        )
    return found


def ping(address: str, port: int, tls: bool) -> str:
    """Return the first line of Redis's answer, or why there is none."""
    try:
        with socket.create_connection((address, port), timeout=SECONDS) as line:
            wire = line
            if tls:
                context = ssl.create_default_context()
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE  # whether it lives, not who it is
                wire = context.wrap_socket(line)
            wire.sendall(b"PING\r\n")
            return wire.recv(200).decode(errors="replace").strip()
    except OSError as error:
        return f"no answer: {error}"


def postgres() -> dict[str, Any] | None:
    """Return how PostgreSQL answers its own superuser, None where it is not installed."""
    clusters = sorted(Path("/etc/postgresql").glob("*/*/postgresql.conf"))
    if not clusters:
        return None
    query = ("select count(*), current_setting('max_connections'), pg_is_in_recovery() "
             "from pg_stat_activity where backend_type = 'client backend'")  # fmt: skip
    done = ask("runuser", "-u", "postgres", "--", "psql", "-AtXc", query, "postgres")
    logs = sorted(Path("/var/log/postgresql").glob("*.log"), key=lambda p: p.stat().st_mtime)
    cells = done.output.strip().split("|")
    well = done.status == 0 and len(cells) == 3
    version, name = clusters[-1].parts[-3:-1]
    return {
        "unit": f"postgresql@{version}-{name}.service",
        "said": "" if well else done.output.strip() or f"status {done.status}",
        "connections": int(cells[0]) if well else 0,
        "most": int(cells[1]) if well else 0,
        "log": [] if well or not logs else tail(logs[-1]),
    }


def backup() -> dict[str, float]:
    """Return what the host tells Prometheus of its backups, and the time; empty without any."""
    found: dict[str, float] = {}
    for path in sorted(METRICS.glob("backup*.prom")):
        for line in read(path).splitlines():
            name, _, value = line.partition(" ")
            if name.startswith("rackhand_"):
                found[name] = float(value)
    return {**found, "now": time.time()} if found else {}


def tail(path: Path) -> list[str]:
    """Return the last lines of a log, without secrets."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 20_000))
            return redact(stream.read().decode(errors="replace")).splitlines()[-LINES:]
    except OSError:
        return []


def nginx() -> dict[str, Any] | None:
    """Return whether nginx would take its configuration; None where it is not installed."""
    if not Path("/usr/sbin/nginx").exists():
        return None
    done = ask("/usr/sbin/nginx", "-t", "-q")
    return {"status": done.status, "said": done.lines[-5:]}


def certificate(domain: str) -> dict[str, Any] | None:
    """Return the certificate on disk and the one that is served; None where the host is no edge."""
    path = TLS / "current/fullchain.pem"
    if not path.exists():
        return None
    found: dict[str, Any] = {
        "kind": (TLS / "current").resolve().name,
        "where": str((TLS / "current").resolve()),
        **about(read(path)),
        "served": None,
        "complaint": "",
        "names": [],
        "log": [],
    }
    names = ask("openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", str(path))
    words = names.output.replace(",", " ").split()
    found["names"] = [word.removeprefix("DNS:") for word in words if word.startswith("DNS:")]
    try:
        found["served"] = about(served(domain))
    except (OSError, ValueError) as error:
        found["complaint"] = f"port 443: {error}"
    if LETSENCRYPT_LOG.exists():
        found["log"] = [line for line in tail(LETSENCRYPT_LOG) if "rror" in line.lower()]
    return found


def served(domain: str) -> str:
    """Return the certificate that nginx shows for a name, as PEM."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # to look at it, whatever it is
    with (
        socket.create_connection(("127.0.0.1", 443), timeout=SECONDS) as line,
        context.wrap_socket(line, server_hostname=domain or None) as wire,
    ):
        return ssl.DER_cert_to_PEM_cert(wire.getpeercert(binary_form=True) or b"")


def about(pem: str) -> dict[str, Any]:
    """Return a certificate's end, in seconds since 1970, and its fingerprint."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    first_one = pem[pem.index(begin) : pem.index(end) + len(end)]
    words = ["openssl", "x509", "-noout", "-enddate", "-fingerprint", "-sha256", "-issuer"]
    done = subprocess.run(words, input=first_one, capture_output=True, text=True, check=False,
                          timeout=SECONDS)  # fmt: skip
    ends = first(r"^notAfter=(.*)$", done.stdout)
    return {
        "expires": float(ssl.cert_time_to_seconds(ends)) if ends else 0.0,
        "fingerprint": first(r"Fingerprint=(\S+)", done.stdout),
        "issuer": first(r"^issuer=\s*(.*)$", done.stdout),
    }


def app(address: str) -> list[dict[str, Any]]:
    """Return what each instance of the agent app says of its readiness."""
    ports = [path.stem for path in sorted(INSTANCES.glob("*.env"))]
    with ThreadPoolExecutor(max_workers=max(1, len(ports))) as pool:
        return list(pool.map(lambda port: readiness(address, port), ports))


def readiness(address: str, port: str) -> dict[str, Any]:
    """Return what one instance says; `said` is an answer that is none of its own."""
    status, text = page(f"http://{address}:{port}/ready", seconds=READY_SECONDS)
    try:
        told = json.loads(text)
    except ValueError:
        told = {}
    told = told if isinstance(told, dict) else {}
    parts = {
        name: {key: redact(str(value)) for key, value in told.get(name, {}).items()}
        for name in ("not_ready", "degraded")
    }
    said = "" if told else redact(text[:300])
    unit = f"agent_app@{port}.service"
    return {"port": port, "unit": unit, "status": status, "said": said, **parts}


def names(wanted: list[str]) -> dict[str, str]:
    """Return the names that cannot be resolved, with the reason."""
    missing = {}
    for name in wanted:
        done = ask("getent", "ahosts", name, seconds=SECONDS + 5)
        if done.status:
            missing[name] = "no answer in time" if done.status == TIMED_OUT else "no address"
    return missing


def operation() -> dict[str, Any]:
    """Return what keeps the host out of traffic, and since when (seconds)."""
    held = sorted(HELD.glob("[!.]*"))
    return {
        "drained": read(DRAINED).strip(),
        "drained_seconds": age(DRAINED),
        "held": {path.name: read(path).strip() for path in held},
    }


def age(path: Path) -> float:
    """Return how old a file is, in seconds; 0 where there is none."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def facts() -> list[str]:
    """Return the fact files that are no JSON: Ansible would take them for nothing, or stop."""
    sick = []
    for path in sorted(Path(FACTS).glob("*.fact")):
        try:
            json.loads(read(path))
        except ValueError as error:
            sick.append(f"{path}: {error}")
    return sick
