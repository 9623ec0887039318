"""PostgreSQL and Redis of this machine, started for the tests in a folder of their own."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import redis

from tests.ports import free_port

PASSWORD = "only-for-tests"

ROLES = f"""
CREATE ROLE rackhand_owner LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE agent_app LOGIN PASSWORD '{PASSWORD}';
"""
SCHEMAS = """
CREATE SCHEMA app AUTHORIZATION rackhand_owner;
CREATE SCHEMA checkpoints AUTHORIZATION rackhand_owner;
CREATE SCHEMA audit AUTHORIZATION rackhand_owner;
CREATE SCHEMA analytics AUTHORIZATION rackhand_owner;
GRANT USAGE ON SCHEMA app, checkpoints, audit, analytics TO agent_app;
ALTER DEFAULT PRIVILEGES FOR ROLE rackhand_owner IN SCHEMA app, checkpoints, analytics
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO agent_app;
ALTER DEFAULT PRIVILEGES FOR ROLE rackhand_owner IN SCHEMA audit
    GRANT SELECT, INSERT ON TABLES TO agent_app;
"""


def wait_until(holds: Callable[[], bool], *, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not happen within {seconds} s")
        time.sleep(0.02)


class Postgres:
    """One cluster; `stop` and `start` may be called again.

    Args:
        folder: Where it lives.
        binaries: Which PostgreSQL; by default the newest of this machine.
    """

    def __init__(self, folder: Path, binaries: Path | None = None) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        if not found and binaries is None:
            pytest.fail("PostgreSQL is missing. Cure: apt-get install postgresql")
        self._binaries = binaries or found[0]
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.chmod(0o755)
        self._data = folder / "data"
        self._data.mkdir(mode=0o700)
        shutil.chown(self._data, "postgres", "postgres")
        self._run("initdb", "-D", str(self._data), "--auth=trust", "-N", "--locale=C.UTF-8")
        self.start()
        with self.admin("postgres") as connection:
            connection.execute(ROLES)

    def _run(self, binary: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._binaries / binary), *arguments],
            check=True, user="postgres", group="postgres", cwd="/", capture_output=True,
        )  # fmt: skip

    def start(self) -> None:
        log = (self._folder / "log").open("ab")
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "fsync": "off",
                   "unix_socket_directories": "", "max_connections": 200}  # fmt: skip
        self._process = subprocess.Popen(
            [str(self._binaries / "postgres"), "-D", str(self._data)]
            + [f"-c{name}={value}" for name, value in options.items()],
            user="postgres", group="postgres", cwd="/", stdout=log, stderr=log,
        )  # fmt: skip
        wait_until(self._answers, seconds=20, what="PostgreSQL's start")

    def _answers(self) -> bool:
        try:
            self.admin("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(20)

    def crash(self) -> None:
        """End it without a checkpoint or a goodbye: its next start recovers from the log."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(20)

    def admin(self, database: str) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(
            f"host=127.0.0.1 port={self.port} user=postgres dbname={database}", autocommit=True
        )

    def make_database(self, name: str) -> None:
        """Make a database as the postgres role leaves it: schemas, but no tables."""
        with self.admin("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER rackhand_owner")
        with self.admin(name) as connection:
            connection.execute(SCHEMAS)

    def copy_database(self, template: str, name: str) -> None:
        with self.admin("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")

    def drop_database(self, name: str) -> None:
        with self.admin("postgres") as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


class RedisServer:
    """One Redis; `stop` and `start` may be called again."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("redis-server") is None:
            pytest.fail("Redis is missing. Cure: apt-get install redis-server")
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--dir", str(self._folder), "--requirepass", PASSWORD,
             "--enable-debug-command", "local"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(self._listens, seconds=10, what="Redis's start")

    def _listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def empty(self) -> None:
        """Forget all keys: those of the tests before, whose apps may have died with leases."""
        with redis.Redis(port=self.port, password=PASSWORD) as client:
            client.flushall()

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)
