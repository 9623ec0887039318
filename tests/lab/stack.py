"""A converged stack of a lab, and a client of it as its users are."""

import contextlib
import json
import os
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from ops.demo.chat import events
from ops.demo.prepare import ensure_key, ingest_knowledge
from ops.fleet import Fleet, load
from ops.lab.fleet_plan import require_plan
from ops.lab.inventory import ssh_options
from ops.places import ROOT
from ops.verify.trust import lab_root

READY_SECONDS = 240
#: Arguments of `-e`: the stand-in where real engines would not fit this machine's memory.
STAND_IN = json.dumps(
    {
        "engine_kind": "stand_in",
        "engine_environment": "stand-in",
        "engine_find_links": ["/srv/wheelhouse"],
    }
)
Event = tuple[str, dict[str, Any]]
SITE_SECONDS = 1500
RECAP = re.compile(r"^(\S+)\s+: (ok=\d+.*)$", re.MULTILINE)


@dataclass(frozen=True)
class SiteRun:
    """What a run of site.yml ended with: counts such as {"node1": {"ok": 40, "changed": 0}}."""

    status: int
    output: str
    hosts: dict[str, dict[str, int]]

    def total(self, count: str) -> int:
        return sum(host[count] for host in self.hosts.values())


@dataclass
class Lab:
    """A lab that is up; `checkout` is the one of this repository that commands run from."""

    name: str
    inventory: Path
    nodes: list[str] = field(default_factory=list)
    checkout: Path = ROOT

    @property
    def environment(self) -> dict[str, str]:
        """Variables of commands that run with the checkout's own code."""
        return {**os.environ, "ANSIBLE_NOCOLOR": "1", "PYTHONPATH": str(self.checkout)}

    def ssh(self, host: str, command: str, *, check: bool = True) -> str:
        """Run a shell command on a host as root."""
        words = ["ops", "lab", "ssh", "--name", self.name, host, "--", command]
        result = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
        )
        assert not check or result.returncode == 0, f"{host}: {command}\n{result.stderr}"
        return result.stdout.strip()


def run_site(lab: Lab, *arguments: str, playbook: str = "site") -> SiteRun:
    """Run a playbook of this repository on a lab, as a person would."""
    command = ["ansible-playbook", "-i", str(lab.inventory), f"playbooks/{playbook}.yml"]
    command += arguments
    done = subprocess.run(
        command,
        cwd=lab.checkout,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SITE_SECONDS,
        env=lab.environment,
    )
    hosts = {
        name: {key: int(value) for key, value in (pair.split("=") for pair in counts.split())}
        for name, counts in RECAP.findall(done.stdout)
    }
    return SiteRun(done.returncode, done.stdout + done.stderr, hosts)


@dataclass
class Stack:
    """A lab that site.yml was run on, with what each run said."""

    lab: Lab
    runs: dict[str, SiteRun] = field(default_factory=dict)
    key: str = ""

    @property
    def fleet(self) -> Fleet:
        return load(self.lab.inventory)

    @property
    def roots(self) -> str:
        return lab_root(self.lab.name)

    def converge(self) -> None:
        """Check a fresh host, provision it, and look whether a second run has anything to do."""
        for name, arguments in {
            "check of a fresh host": ["--check", "--diff"],
            "first run": [],
            "second run": ["--diff"],
            "check of a converged host": ["--check", "--diff"],
        }.items():
            self.runs[name] = run_site(self.lab, *arguments)
            assert self.runs[name].status == 0, f"{name}\n{self.runs[name].output[-6000:]}"
        ingest_knowledge(self.fleet)
        self.key = ensure_key(self.fleet, require_plan(self.lab.name).paths.root / "test_key")

    @contextlib.contextmanager
    def client(self) -> Iterator[httpx2.Client]:
        """An HTTPS client that trusts the lab's ACME root and nothing else."""
        address = self.fleet.first("edge").address
        domain = self.fleet.domain
        with httpx2.Client(
            base_url=f"https://{address}",
            verify=ssl.create_default_context(cadata=self.roots),
            headers={"Host": domain, "Authorization": f"Bearer {self.key}"},
            timeout=120,
        ) as client:
            yield client

    @contextlib.contextmanager
    def stream(self, path: str, body: dict[str, Any]) -> Iterator[httpx2.Response]:
        """POST and hold the open response."""
        sni = {"sni_hostname": self.fleet.domain}
        with (
            self.client() as client,
            client.stream("POST", path, json=body, extensions=sni) as response,
        ):
            yield response

    def chat(self, body: dict[str, Any], on_event: Callable[[Event], None] = id) -> list[Event]:
        """Chat and return the events; a connection that breaks ends them."""
        heard: list[Event] = []
        with contextlib.suppress(httpx2.TransportError), self.stream("/chat", body) as response:
            assert response.status_code == 200, response.read()
            for event in events(response.iter_lines()):
                heard.append(event)
                on_event(event)
        return heard

    def chat_when_back(self, body: dict[str, Any], seconds: float = READY_SECONDS) -> list[Event]:
        """Chat, trying again while the edge or the app is on its way back."""
        end = time.monotonic() + seconds
        while True:
            try:
                return self.chat(body)
            except (AssertionError, httpx2.TransportError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    def wait_until_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait for the app's own word, through the edge."""
        end = time.monotonic() + seconds
        last = "no answer"
        while time.monotonic() < end:
            with contextlib.suppress(httpx2.TransportError), self.client() as client:
                sni = {"sni_hostname": self.fleet.domain}
                answer = client.get("/ready", extensions=sni)
                last = answer.text
                if answer.status_code == 200:
                    return
            time.sleep(1)
        raise AssertionError(f"not ready after {seconds} s: {last}")

    def sql(self, statement: str) -> str:
        """Ask the database on its host."""
        host = self.fleet.first("data").name
        return self.lab.ssh(host, f'sudo -u postgres psql -d rackhand -Atc "{statement}"')


END = "-- end of answer --"
PROCESSES_OF_ENGINES = "find /proc -maxdepth 1 -user engine -name '[0-9]*' -printf '%f '"
STOP_AND_GO = "while :; do kill -STOP $P; sleep 0.2; kill -CONT $P; sleep 0.002; done"


@dataclass
class Shell:
    """A root shell that stays open on a host: a command takes effect within milliseconds."""

    process: subprocess.Popen[str]

    def tell(self, command: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def ask(self, command: str) -> str:
        """Run a command and return what it prints."""
        self.tell(f"{command}; echo; echo {END}")
        assert self.process.stdout
        return "".join(iter(self.process.stdout.readline, f"{END}\n"))


@contextlib.contextmanager
def shell(lab: Lab, host: str) -> Iterator[Shell]:
    """Open a shell on a host; the warm-up makes sure that it listens."""
    plan = require_plan(lab.name)
    with subprocess.Popen(
        ["ssh", *ssh_options(plan), plan.address(host), "bash"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        opened = Shell(process)
        opened.tell("echo listening")
        assert process.stdout and process.stdout.readline() == "listening\n"
        yield opened
        assert process.stdin
        process.stdin.close()


@contextlib.contextmanager
def slow_engine(lab: Lab, host: str) -> Iterator[None]:
    """Let a host's engine run only now and then, so that there is a middle of a short answer."""
    with shell(lab, host) as opened:
        opened.tell(f"P=$({PROCESSES_OF_ENGINES}); {STOP_AND_GO} & T=$!; echo slowed")
        assert opened.process.stdout and opened.process.stdout.readline() == "slowed\n"
        try:
            yield
        finally:
            opened.tell("kill $T; wait $T 2>/dev/null; kill -CONT $P 2>/dev/null; echo freed")
            opened.process.stdout.readline()


def until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.5)


def text_of(heard: list[Event]) -> str:
    """The answer as a reader saw it: pieces of text, without those that were retracted."""
    text = ""
    for name, data in heard:
        if name == "retract":
            text = ""
        elif name == "token":
            text += data["text"]
    return text


def final_of(heard: list[Event]) -> str:
    """The whole answer, from the closing event."""
    assert heard and heard[-1][0] == "done", json.dumps(heard[-3:])
    return str(heard[-1][1]["content"])
