"""Two hosts in miniature: a server and fetchers as processes, with a fleet's own certificates."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rendering import init_plugin_loader  # finds the collection

from ops.weights.job import LOADER, make_job
from ops.weights.manifest import MANIFEST, describe, digest, seal
from tests.ports import free_port

assert init_plugin_loader
ADDRESS = "127.0.0.1"
TOKEN = "a" * 64
FILES = {
    "config.json": b"{}",
    "tokenizer/vocab with space.txt": b"one\ntwo\n",
    "empty": b"",
    "model-00001.safetensors": bytes(range(256)) * 40_000,
    "model-00002.safetensors": b"\x07" * 3_000_000,
}


@dataclass
class Pair:
    """One that has a revision and one that is to have it."""

    root: Path
    port: int = field(default_factory=free_port)
    digest: str = ""

    def __post_init__(self) -> None:
        for name, data in FILES.items():
            path = self.root / "building" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (self.root / "there").mkdir()
        (self.root / "here").mkdir()
        files = describe(str(self.root / "building"))
        self.digest = digest(files)
        seal(str(self.root / "building"), str(self.source), "hf://org/name", files)
        from ansible_collections.rackhand.host.plugins.lookup.fleet_certificate import Authority

        authority = Authority({})
        authority.ensure_ca()
        authority.ensure_host("gpu1", [ADDRESS, "gpu1"])
        for name, entry in authority.entries.items():
            path = self.root / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(entry["value"])

    @property
    def source(self) -> Path:
        return self.root / "there" / "v2"

    @property
    def target(self) -> Path:
        return self.root / "here" / "v2"

    @property
    def staging(self) -> Path:
        return self.root / "here" / "v2.staging"

    def start_server(self, **changes: Any) -> subprocess.Popen[str]:
        """Start it as the transient unit would, and wait until it says that it listens."""
        credentials = self.root / "credentials"
        credentials.mkdir(exist_ok=True)
        values = {
            "address": ADDRESS, "port": self.port, "path": str(self.source), "token": TOKEN,
            "allowed": [ADDRESS], "certificate": str(self.root / "tls/gpu1.crt"),
            "idle_seconds": 60, "deadline": time.time() + 600, **changes,
        }  # fmt: skip
        (credentials / "job").write_text(make_job("serve_program.py", values))
        (credentials / "key").write_bytes((self.root / "tls/gpu1.key").read_bytes())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            place = self.root / "notify"
            place.unlink(missing_ok=True)
            notified.bind(str(place))
            notified.settimeout(20)
            process = subprocess.Popen(
                [sys.executable, "-c", LOADER], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env={**os.environ, "CREDENTIALS_DIRECTORY": str(credentials),
                     "NOTIFY_SOCKET": str(place)}, text=True,
            )  # fmt: skip
            assert notified.recv(64) == b"READY=1"
        return process

    @contextmanager
    def server(self, **changes: Any) -> Iterator[subprocess.Popen[str]]:
        process = self.start_server(**changes)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def start_fetcher(self, **changes: Any) -> subprocess.Popen[str]:
        values = {
            "host": ADDRESS, "port": self.port, "path": str(self.target), "digest": self.digest,
            "token": TOKEN, "ca_file": str(self.root / "tls/ca.crt"), "pause": 0.01, **changes,
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-c", LOADER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(make_job("fetch_program.py", values))
        process.stdin.flush()
        return process

    def fetch(self, **changes: Any) -> dict[str, Any]:
        """Fetch to the end; the last line."""
        return last_line(self.start_fetcher(**changes))

    def assert_arrived(self) -> None:
        """The same, byte by byte, manifest included, with the modes that the module gives."""
        assert not self.staging.exists()
        for name, data in FILES.items():
            assert (self.target / name).read_bytes() == data
            assert (self.target / name).stat().st_mode & 0o777 == 0o444
        assert (self.target / MANIFEST).read_bytes() == (self.source / MANIFEST).read_bytes()


def last_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a fetcher said last; its input stays open until then."""
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    process.wait(30)
    assert process.stdin is not None
    process.stdin.close()
    assert lines, "the fetcher said nothing"
    try:
        found: dict[str, Any] = json.loads(lines[-1])
    except ValueError:
        raise AssertionError("\n".join(lines)) from None
    return found


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
