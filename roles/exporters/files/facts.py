#!/usr/bin/python3
# Laid down by Rackhand; changes here are overwritten.
"""Write what only this host knows as metrics for the node exporter's textfile collector.

Slots and their revisions, drained and held marks, unfinished operations, failed and restarted
units, and the certificate as nginx serves it. Standard library of the host's own Python; run as
`facts CONFIG`, a JSON file with `to` (the file to write), `units` (globs) and `certificates`
(names). What cannot be read is left out and named by rackhand_facts_failed.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Sample = tuple[str, Mapping[str, str], float]
"""Name, labels, value."""

HELP = {
    "rackhand_boot_info": "1, with the boot that this is.",
    "rackhand_certificate_expiry_timestamp_seconds": "When nginx' certificate lapses.",
    "rackhand_certificate_placeholder": "1 while nginx serves the one that it made for itself.",
    "rackhand_facts_failed": "1 for what could not be read this time.",
    "rackhand_facts_timestamp_seconds": "When this page was written.",
    "rackhand_host_drained": "1 while the host takes no new requests.",
    "rackhand_model_held": "1 while requests of a model are held back on this host.",
    "rackhand_operation_open": "1 for an operation that has not ended: running, unfinished, stuck.",
    "rackhand_operation_open_since_timestamp_seconds": "When its journal was last written.",
    "rackhand_slot_active": "1 for the slot of a model that serves, with its revision.",
    "rackhand_slot_traffic_ratio": "Share of a model's requests that a slot gets.",
    "rackhand_unit_failed": "1 while systemd lists a unit as failed.",
    "rackhand_unit_restarts_total": "How often systemd restarted a unit by itself.",
}
OPERATIONS = "var/lib/rackhand/operations"
PLACEHOLDER = "placeholder until a certificate is issued"
"""Common name of the certificate that role nginx makes."""
TLS_PORT = 443
TLS_SECONDS = 5.0
TOLD = ("taken", "stuck", "end")
"""Events of a journal that tell how its operation stands (ops/operations/journal.py)."""


def slots(root: Path, _config: Mapping[str, Any]) -> Iterator[Sample]:
    """Tell the slots that serve, and what is drained or held."""
    path = root / "etc/ansible/facts.d/engine.fact"
    models = json.loads(path.read_text(encoding="utf-8"))["models"] if path.exists() else {}
    state = root / "var/lib/rackhand"
    yield "rackhand_host_drained", {}, float((state / "drained").exists())
    for name, model in sorted(models.items()):
        yield "rackhand_model_held", {"model": name}, float((state / "held" / name).exists())
        traffic = model.get("traffic") or {model["active"]: 100}
        active = {"model": name, "slot": model["active"], "revision": model["revision"]}
        yield "rackhand_slot_active", active, 1.0
        for slot in ("blue", "green"):
            share = float(traffic.get(slot, 0)) / (sum(map(float, traffic.values())) or 1.0)
            yield "rackhand_slot_traffic_ratio", {"model": name, "slot": slot}, share


def operations(root: Path, _config: Mapping[str, Any]) -> Iterator[Sample]:
    """Tell the operation that has not ended, on the host that keeps the journals."""
    folder = root / OPERATIONS
    if not (folder / "open.json").exists():
        return
    about = json.loads((folder / "open.json").read_text(encoding="utf-8"))
    journal = folder / about["id"] / "journal.jsonl"
    lines = (
        journal.read_text(encoding="utf-8").splitlines(keepends=True) if journal.exists() else []
    )
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    last = next((entry for entry in reversed(entries) if entry["event"] in TOLD), {})
    if last.get("event") == "end":
        return
    if last.get("event") == "stuck":
        status = "stuck"
    else:
        status = "running" if is_held(folder / "lock") else "unfinished"
    labels = {"id": about["id"], "verb": about.get("verb", ""), "subject": about.get("subject", "")}
    yield "rackhand_operation_open", {**labels, "status": status}, 1.0
    written = float(entries[-1]["at"]) if entries else (folder / "open.json").stat().st_mtime
    yield "rackhand_operation_open_since_timestamp_seconds", labels, written


def is_held(lock: Path) -> bool:
    """Tell whether a process holds the fleet's lock right now: nobody shares it then."""
    if not lock.exists():
        return False
    descriptor = os.open(lock, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def units(_root: Path, config: Mapping[str, Any]) -> Iterator[Sample]:
    """Tell which of our units failed, and how often each was restarted."""
    shown = subprocess.run(
        ["systemctl", "show", "--property=Id,LoadState,ActiveState,NRestarts", *config["units"]],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout
    found: dict[str, dict[str, str]] = {}
    for block in shown.split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if unit.get("LoadState") == "loaded":
            found[unit["Id"]] = unit
    for name, unit in sorted(found.items()):
        yield "rackhand_unit_failed", {"unit": name}, float(unit["ActiveState"] == "failed")
        if unit.get("NRestarts"):
            yield "rackhand_unit_restarts_total", {"unit": name}, float(unit["NRestarts"])


def certificates(_root: Path, config: Mapping[str, Any]) -> Iterator[Sample]:
    """Tell until when each name's certificate holds, as a client of this host gets it."""
    for name in config["certificates"]:
        said = describe(served(name, int(config.get("tls_port", TLS_PORT))))
        labels = {"name": name}
        until = ssl.cert_time_to_seconds(said["notAfter"])
        yield "rackhand_certificate_expiry_timestamp_seconds", labels, float(until)
        made_here = PLACEHOLDER in said["subject"]
        yield "rackhand_certificate_placeholder", labels, float(made_here)


def served(name: str, port: int) -> str:
    """Return the certificate (PEM) that this host serves for a name, trusted or not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), TLS_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=name) as line,
    ):
        return ssl.DER_cert_to_PEM_cert(line.getpeercert(binary_form=True) or b"")


def describe(pem: str) -> dict[str, str]:
    """Return a certificate's `notAfter` and `subject`, as openssl prints them."""
    said = subprocess.run(
        ["openssl", "x509", "-noout", "-enddate", "-subject"],
        input=pem,
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def boot(root: Path, _config: Mapping[str, Any]) -> Iterator[Sample]:
    """Tell which boot this is."""
    name = (root / "proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    yield "rackhand_boot_info", {"boot_id": name}, 1.0


PARTS: tuple[Callable[[Path, Mapping[str, Any]], Iterator[Sample]], ...] = (
    *(slots, operations, units, certificates, boot),
)


def collect(root: Path, config: Mapping[str, Any]) -> list[Sample]:
    """Return all that can be told; a part that fails is named, and why on standard error."""
    samples: list[Sample] = []
    for part in PARTS:
        failed = 0.0
        try:
            samples += list(part(root, config))
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            print(f"<4>{part.__name__}: {error or type(error).__name__}", file=sys.stderr)
            failed = 1.0
        samples.append(("rackhand_facts_failed", {"part": part.__name__}, failed))
    samples.append(("rackhand_facts_timestamp_seconds", {}, time.time()))
    return samples


def page(samples: list[Sample]) -> str:
    """Return Prometheus' text format."""
    lines = []
    for name in sorted({name for name, _, _ in samples}):
        kind = "counter" if name.endswith("_total") else "gauge"
        lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} {kind}"]
        for labels, value in ((have, value) for found, have, value in samples if found == name):
            pairs = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
            lines.append(f"{name}{{{pairs}}} {value!r}" if pairs else f"{name} {value!r}")
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Return a label's value as the text format wants it."""
    return str(text).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def main(config_file: str) -> int:
    """Write the page whole or not at all."""
    config = json.loads(Path(config_file).read_text(encoding="utf-8"))
    target = Path(config["to"])
    candidate = target.with_name(f".{target.name}.new")
    candidate.write_text(page(collect(Path(config.get("root", "/")), config)), encoding="utf-8")
    candidate.replace(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
