"""The program that tells what only a host knows, on folders as operations leave them."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import importlib.util
import json
import os
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client.parser import text_string_to_metric_families
from rendering import ROOT

PROGRAM = ROOT / "roles/exporters/files/facts.py"
BOOT = "1f0c5f2e-0000-4000-8000-000000000000"
SYSTEMCTL = """#!/bin/sh
printf 'Id=nginx.service\\nLoadState=loaded\\nActiveState=active\\nNRestarts=2\\n\\n'
printf 'Id=certbot.service\\nLoadState=loaded\\nActiveState=failed\\nNRestarts=0\\n\\n'
printf 'Id=gone.service\\nLoadState=not-found\\nActiveState=inactive\\nNRestarts=0\\n'
"""


def load_program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("facts", PROGRAM)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


facts = load_program()


class Host:
    """A host's root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc/sys/kernel/random").mkdir(parents=True)
        (root / "proc/sys/kernel/random/boot_id").write_text(BOOT + "\n")
        self.config: dict[str, Any] = {"root": str(root), "units": ["*"], "certificates": []}
        self.config["to"] = str(root / "rackhand.prom")

    def serve(self, **models: Any) -> None:
        path = self.root / "etc/ansible/facts.d/engine.fact"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"models": models}))

    def operation(self, *entries: dict[str, Any]) -> Path:
        """Leave an operation open with such a journal; return the fleet's lock."""
        folder = self.root / facts.OPERATIONS
        (folder / "op-1").mkdir(parents=True)
        about = {"id": "op-1", "verb": "upgrade", "subject": "demo", "who": "ada"}
        (folder / "open.json").write_text(json.dumps(about))
        lines = "".join(json.dumps({"at": 100.0 + n, **e}) + "\n" for n, e in enumerate(entries))
        (folder / "op-1/journal.jsonl").write_text(lines)
        (folder / "lock").touch()
        return folder / "lock"

    def page(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """Run the program and read what it wrote, as Prometheus does."""
        config = self.root / "facts.json"
        config.write_text(json.dumps(self.config))
        assert facts.main(str(config)) == 0
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        text = Path(self.config["to"]).read_text()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
        return found


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "systemctl").write_text(SYSTEMCTL)
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    (tmp_path / "root").mkdir()
    return Host(tmp_path / "root")


def test_slots_are_told_with_revision_traffic_and_marks(host: Host) -> None:
    host.serve(
        demo={"active": "green", "revision": "r2", "traffic": {"blue": 90, "green": 10}},
        other={"active": "blue", "revision": "r1"},
    )
    held = host.root / "var/lib/rackhand/held"
    held.mkdir(parents=True)
    (held / "other").touch()
    page = host.page()
    assert page["rackhand_slot_active"] == [
        ({"model": "demo", "slot": "green", "revision": "r2"}, 1),
        ({"model": "other", "slot": "blue", "revision": "r1"}, 1),
    ]
    shares = {(row["model"], row["slot"]): v for row, v in page["rackhand_slot_traffic_ratio"]}
    assert shares == {
        ("demo", "blue"): 0.9,
        ("demo", "green"): 0.1,
        ("other", "blue"): 1,
        ("other", "green"): 0,
    }
    assert page["rackhand_model_held"] == [({"model": "demo"}, 0), ({"model": "other"}, 1)]
    assert page["rackhand_host_drained"] == [({}, 0)]
    (host.root / "var/lib/rackhand/drained").touch()
    assert host.page()["rackhand_host_drained"] == [({}, 1)]


def test_a_host_without_engines_or_operations_says_little(host: Host) -> None:
    page = host.page()
    assert "rackhand_slot_active" not in page
    assert "rackhand_operation_open" not in page
    assert page["rackhand_boot_info"] == [({"boot_id": BOOT}, 1)]
    assert {v for _, v in page["rackhand_facts_failed"]} == {0}
    assert abs(page["rackhand_facts_timestamp_seconds"][0][1] - time.time()) < 60


def test_units_that_failed_or_restarted_are_named(host: Host) -> None:
    page = host.page()
    assert page["rackhand_unit_failed"] == [
        ({"unit": "certbot.service"}, 1),
        ({"unit": "nginx.service"}, 0),
    ]
    assert ({"unit": "nginx.service"}, 2) in page["rackhand_unit_restarts_total"]


def test_an_operation_at_work_is_told_apart_from_one_that_was_left(host: Host) -> None:
    lock = host.operation({"event": "taken"}, {"event": "begin", "step": 0})
    labels = {"id": "op-1", "verb": "upgrade", "subject": "demo"}
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert host.page()["rackhand_operation_open"] == [({**labels, "status": "running"}, 1)]
    page = host.page()
    assert page["rackhand_operation_open"] == [({**labels, "status": "unfinished"}, 1)]
    assert page["rackhand_operation_open_since_timestamp_seconds"] == [(labels, 101)]


def test_a_stuck_operation_is_told_and_an_ended_one_is_not(host: Host) -> None:
    host.operation({"event": "taken"}, {"event": "stuck", "step": 0})
    (told,) = host.page()["rackhand_operation_open"]
    assert told[0]["status"] == "stuck"
    journal = host.root / facts.OPERATIONS / "op-1/journal.jsonl"
    journal.write_text(journal.read_text() + '{"at": 9, "event": "end"}\n{"at": 10, "eve')
    assert "rackhand_operation_open" not in host.page()


def test_looking_at_the_lock_does_not_keep_an_operation_from_it(host: Host) -> None:
    lock = host.operation({"event": "taken"})
    host.page()
    with lock.open("a") as taken:
        fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def serving(folder: Path, common_name: str, days: int) -> Iterator[int]:
    """Serve a self-signed certificate; yield the port."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "both.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    plain, _ = server.accept()
                    with contextlib.suppress(OSError):
                        context.wrap_socket(plain, server_side=True).close()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("subject", "placeholder"),
    [("agent.example.com", 0.0), ("placeholder until a certificate is issued", 1.0)],
)
def test_the_certificate_is_the_one_that_is_served(
    subject: str, placeholder: float, host: Host, tmp_path: Path
) -> None:
    with serving(tmp_path, subject, 10) as port:
        host.config |= {"certificates": ["agent.example.com"], "tls_port": port}
        page = host.page()
    ((labels, until),) = page["rackhand_certificate_expiry_timestamp_seconds"]
    assert labels == {"name": "agent.example.com"}
    assert until - time.time() == pytest.approx(10 * 86400, abs=60)
    assert page["rackhand_certificate_placeholder"] == [(labels, placeholder)]


def test_what_cannot_be_read_is_named_and_the_rest_is_told(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.config |= {"certificates": ["agent.example.com"], "tls_port": 1}
    page = host.page()
    failed = {row["part"] for row, value in page["rackhand_facts_failed"] if value}
    assert failed == {"certificates"}
    assert "rackhand_boot_info" in page
    assert "<4>certificates: " in capsys.readouterr().err


def test_the_page_is_for_the_node_exporter_to_read_and_all_of_it_is_described(host: Host) -> None:
    previous = os.umask(0o022)
    try:
        host.page()
    finally:
        os.umask(previous)
    target = Path(host.config["to"])
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert not list(target.parent.glob(".*.new"))
    done = subprocess.run(
        ["promtool", "check", "metrics"], stdin=target.open(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
