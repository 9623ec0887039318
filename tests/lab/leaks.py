"""Looks for secrets wherever they must not be: on a host, and on the machine that runs commands.

The search itself is GNU grep's, with the forms of all secrets as fixed strings.
"""

from __future__ import annotations

import base64
import contextlib
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stack import Lab

from ops.lab.fleet_plan import require_plan
from ops.lab.inventory import ssh_options

SHORTEST = 12
"""Characters; anything shorter would be found by chance."""
HOME = "/run/leak-hunt"
SAMPLER = """
import glob, os, sys, time
seen = set()
while not os.path.exists(sys.argv[1] + "/over"):
    for path in glob.glob("/proc/[0-9]*"):
        try:
            owner = os.stat(path).st_uid
            seen.add(open(path + "/cmdline", "rb").read())
            if owner:  # root's environment is root's alone
                seen.add(open(path + "/environ", "rb").read())
        except OSError:
            pass
    time.sleep(0.01)
with open(sys.argv[1] + "/processes", "wb") as stream:
    stream.write(b"\\n".join(sorted(seen)))
"""
#: What is searched on a host: a name for people, and a command that prints it.
PLACES = {
    "journal": "journalctl --no-pager -a -o export",
    "/var/log": "find /var/log -type f ! -path '/var/log/journal/*' -exec cat {} +",
    "processes, sampled throughout": f"cat {HOME}/processes",
    "fact files": "find /etc/ansible -type f -exec cat {} +",
    "operations: plans and journals": "find /var/lib/rackhand/operations -type f -exec cat {} +",
    "Prometheus: configuration, targets, rules, flags": (
        "for what in status/config targets rules status/flags alerts; do "
        "curl -sf http://127.0.0.1:9090/api/v1/$what; done"
    ),
    "Alertmanager: status": "curl -sf http://127.0.0.1:9093/api/v2/status",
    "metrics of the app and exporters": (
        "for port in 8300 8301 9100 9187 9121 9113; do curl -s http://127.0.0.1:$port/metrics; done"
    ),
    "units as systemd shows them": "systemctl show --all '*.service' '*.timer'",
    "files of others' or a group's": (
        "find / -xdev -type f ! -path '/proc/*' ! -path '/sys/*' ! -path '/usr/*' "
        f"! -path '/opt/vllm/*' ! -path '/srv/*' ! -path '{HOME}/*' ! -path '/var/log/journal/*' "
        # pgBackRest reads its passphrase as PostgreSQL's archiver does, by the group `postgres`.
        "! -path /etc/pgbackrest/conf.d/rackhand-secrets.conf "
        "\\( -perm /go=r \\) -exec cat {} +; "
        "find /usr/local /run -xdev -type f ! -path '/run/leak-hunt/*' ! -path '/run/log/*' "
        "! -path '/run/credentials/*' -perm /go=r -exec cat {} +"
    ),
    "database, but for the app's rows": (
        "runuser -u postgres -- psql -XAt -c 'SELECT * FROM pg_authid' "
        "-c 'SELECT * FROM pg_settings' -c 'SELECT query FROM pg_stat_activity'"
    ),
}
#: Puts a secret where it must not be, in each of those places.
PLANT = f"""
logger -t leak-hunt "canary $C"
echo "$C" > /var/log/leak-hunt.log
sh -c 'sleep 1; : "$1"' leak "$C"
echo "$C64" > /etc/ansible/facts.d/leak_hunt.fact.off
mkdir -p /var/lib/rackhand/operations/leak-hunt
echo "$CURL" > /var/lib/rackhand/operations/leak-hunt/note
install -m 0644 /dev/null /etc/leak-hunt && echo "$C" > /etc/leak-hunt
mkdir -p {HOME}
"""
CLEAR = (
    "rm -rf /var/log/leak-hunt.log /etc/ansible/facts.d/leak_hunt.fact.off /etc/leak-hunt "
    "/var/lib/rackhand/operations/leak-hunt"
)
PLANTED = (
    *("journal", "/var/log", "processes, sampled throughout", "fact files"),
    *("operations: plans and journals", "files of others' or a group's"),
)


def forms(value: str) -> set[str]:
    """A secret as it may be written: as it is, in base64 at each offset, in a URL, in JSON."""
    lines = [line for line in value.splitlines() if line and not line.startswith("-----")]
    found = set()
    for line in lines:
        found |= {line, urllib.parse.quote(line, safe=""), urllib.parse.quote_plus(line)}
        for offset in range(3):
            text = base64.b64encode(b"\0" * offset + line.encode()).decode()
            first = 0 if offset == 0 else 4  # characters that depend on what is before
            found.add(text[first : len(text) - 4])  # and on what is behind
    return {form for form in found if len(form) >= SHORTEST}


@dataclass
class Found:
    """What a search saw: bytes by place, and by place the secrets that were there."""

    bytes: dict[str, int] = field(default_factory=dict)
    secrets: dict[str, dict[str, int]] = field(default_factory=dict)

    def of(self, place: str) -> dict[str, int]:
        return self.secrets.get(place, {})


class Hunt:
    """Searches for secrets by name; more may be added until the search begins."""

    def __init__(self, lab: Lab, host: str) -> None:
        self.lab, self.host = lab, host
        self.values: dict[str, set[str]] = {}
        self.found = Found()
        plan = require_plan(lab.name)
        self._ssh = ["ssh", *ssh_options(plan), plan.address(host)]

    def add(self, secrets: Mapping[str, str]) -> None:
        for name, value in secrets.items():
            self.values.setdefault(name, set()).add(value)

    def patterns(self) -> dict[str, str]:
        """Form → secret."""
        return {
            form: name
            for name, values in self.values.items()
            for value in values
            for form in forms(value)
        }

    def on_host(self, script: str, text: str = "") -> str:
        done = subprocess.run(
            [*self._ssh, script], input=text, capture_output=True, text=True, timeout=600,
            errors="replace",
        )  # fmt: skip
        return done.stdout

    def search_host(self) -> None:
        """Search all places of the host."""
        self.on_host(
            f"umask 077; mkdir -p {HOME}; cat > {HOME}/patterns", "\n".join(self.patterns())
        )
        for place, command in PLACES.items():
            said = self.on_host(
                f"({command}) 2>/dev/null | tee >(wc -c > {HOME}/bytes) "
                f"| grep -aoFf {HOME}/patterns | sort | uniq -c; "
                f"sleep 0.1; echo BYTES $(cat {HOME}/bytes)"
            )
            self._note(place, said)

    def search_texts(self, place: str, texts: list[bytes], scratch: Path) -> None:
        """Search what was read on this machine."""
        content = b"\n".join(texts)
        patterns = scratch / "patterns"
        patterns.touch(0o600)
        patterns.write_text("\n".join(self.patterns()))
        done = subprocess.run(["grep", "-aoFf", patterns], input=content, capture_output=True)
        counted: dict[str, int] = {}
        for form in done.stdout.decode(errors="replace").splitlines():
            counted[form] = counted.get(form, 0) + 1
        lines = [f"{count} {form}" for form, count in counted.items()]
        self._note(place, "\n".join([*lines, f"BYTES {len(content)}"]))

    def _note(self, place: str, said: str) -> None:
        names = self.patterns()
        for line in said.splitlines():
            count, _, form = line.strip().partition(" ")
            if count == "BYTES":
                self.found.bytes[place] = int(form)
            elif form in names:
                there = self.found.secrets.setdefault(place, {})
                there[names[form]] = there.get(names[form], 0) + int(count)

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        """Watch the host's processes meanwhile."""
        self.on_host(f"umask 077; rm -rf {HOME}; mkdir -p {HOME}")
        with subprocess.Popen(
            [*self._ssh, f"python3 - {HOME}"], stdin=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            process.stdin.write(SAMPLER)
            process.stdin.close()
            try:
                yield
            finally:
                self.on_host(f"touch {HOME}/over")
                process.wait(60)


class Watcher:
    """This machine's processes, and what ansible-runner leaves while it works."""

    def __init__(self) -> None:
        self.commands: set[bytes] = set()
        self.artifacts: dict[Path, bytes] = {}
        self._over = threading.Event()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.commands.add(path.read_bytes())
            for folder in Path("/tmp").glob("rackhand-run-*"):
                self._take(folder)

    def _take(self, folder: Path) -> None:
        with contextlib.suppress(OSError):
            for path in folder.rglob("*"):
                if path.is_file() and "project" not in path.parts:
                    with contextlib.suppress(OSError):
                        self.artifacts[path] = path.read_bytes()

    def __enter__(self) -> Watcher:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()


def tree(folder: Path, leave_out: frozenset[str]) -> list[bytes]:
    """The content of a folder's files."""
    return [
        path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not leave_out & {*path.relative_to(folder).parts}
    ]


def wait(seconds: float) -> None:
    """Let the samplers see what was started."""
    time.sleep(seconds)
