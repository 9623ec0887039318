"""Answers of `look_program.py` as a fleet of four hosts gives them, two looks ten seconds apart."""

from typing import Any

from ops.fleet.model import Fleet, Host, Model
from ops.live.operation import view
from ops.live.rates import History
from ops.live.state import HostState, read_look, silent
from ops.live.watch import Look
from ops.places import ROOT

AT = 1795212734.0
GIB = 1 << 30
MODEL = Model("assistant", "file:///x", "9f1c2e7", 0)
HOSTS = (
    Host("edge1", "198.51.100.10", frozenset({"edge", "agent"}), "10.0.0.10"),
    Host("gpu1", "198.51.100.11", frozenset({"gpu"}), "10.0.0.11", (MODEL,)),
    Host("gpu2", "198.51.100.12", frozenset({"gpu"}), "10.0.0.12", (MODEL,)),
    Host("data1", "198.51.100.13", frozenset({"data", "monitoring"}), "10.0.0.13"),
)
FLEET = Fleet(ROOT / "inventories/fleet", "agent.example.com", HOSTS)
STEPS = [
    {"kind": "engine.shift", "host": "gpu1", "title": title, "values": {}}
    for title in ("gpu1: weights are staged", "gpu1: green starts", "gpu1: green gets 10 %",
                  "gpu1: green serves", "gpu1: blue stays ready for 60 min")
]  # fmt: skip
PLAN = {"format": 1, "verb": "model upgrade", "subject": "assistant", "summary": [],
        "warnings": [], "why": "answers in Dutch", "steps": STEPS}  # fmt: skip
ENTRIES = [
    {"at": AT - 130, "event": "taken", "how": "begin", "by": "ada@desk"},
    {"at": AT - 129, "event": "begin", "step": 0},
    {"at": AT - 100, "event": "done", "step": 0},
    {"at": AT - 100, "event": "begin", "step": 1},
    {"at": AT - 40, "event": "done", "step": 1},
    {"at": AT - 40, "event": "begin", "step": 2},
]
OPERATION = {
    "id": "20261125-212244-model-upgrade-assistant",
    "plan": PLAN,
    "entries": ENTRIES,
    "held": True,
    "owner": {"who": "ada", "machine": "desk"},
}
UNITS_OF = {
    "edge1": ("agent_app@8200.service", "agent_app@8201.service", "nginx.service", "certbot.timer"),
    "gpu1": ("engine@assistant-blue.service", "engine@assistant-green.service", "nginx.service"),
    "gpu2": ("engine@assistant-blue.service", "nginx.service"),
    "data1": ("postgresql@17-main.service", "redis-server@cache.service"),
}


def answer(host: str, later: float = 10.0, **changes: Any) -> dict[str, Any]:
    """What a host answers so many seconds after the first look."""
    found: dict[str, Any] = {
        "monotonic": 5000.0 + later,
        "now": AT,
        "units": {unit: {"active": "active", "sub": "running"} for unit in UNITS_OF[host]},
        "models": {},
        "drained": "",
        "held": {},
        "load": [3.4, 32.0],
        "memory": {"used": 61 * GIB, "total": 256 * GIB},
        "disks": {"/": {"used": 41 * GIB, "total": 100 * GIB},
                  "/srv": {"used": 1260 * GIB, "total": 2000 * GIB}},
        "certificate": None,
        "operation": None,
        "instances": {},
        "refused": 0,
        "gpus": {"listed": [], "complaint": ""},
        "complaints": [],
    }  # fmt: skip
    if host == "edge1":
        found["certificate"] = {"expires": AT + 61.4 * 86400}
        found["instances"] = {
            port: {"metrics_port": 8300, "metrics": {
                "in_flight": 7.0, "queued": queued, "requests": 100 + 6.2 * later, "failed": 0.0}}
            for port, queued in (("8200", 0.0), ("8201", 2.0))
        }  # fmt: skip
    if host.startswith("gpu"):
        active, share = "blue", {"gpu1": 90, "gpu2": 100}[host]
        found["models"] = {
            "assistant": {"active": active, "slots": {
                "blue": slot("blue", "9f1c2e7", share, 0.1 * share * later),
                "green": slot("green", "c04be11", 100 - share, 0.1 * (100 - share) * later,
                              environment="0.33.0-cuda")}}
        }  # fmt: skip
        found["gpus"] = {"complaint": "", "listed": [gpu(0, "61"), gpu(1, "[N/A]")]}
    if host == "gpu2":
        found["models"]["assistant"]["slots"]["green"] = {
            **slot("green", "77aa001", 0, 0.0), "kept_until": AT + 1800,
        }  # fmt: skip
    if host == "data1":
        found["operation"] = OPERATION
    return {**found, **changes}


def slot(
    name: str, revision: str, share: int, requests: float, environment: str = "0.32.0-cuda"
) -> dict[str, Any]:
    count = round(requests)
    return {
        "unit": f"engine@assistant-{name}.service",
        "state": "active",
        "share": share,
        "revision": revision,
        "environment": environment,
        "kept_until": None,
        "log": {"requests": 1000 + count, "failed": 3 + count // 40},
        "metrics": {
            "running": 4.0, "waiting": 1.0 if share == 100 else 0.0, "kv_cache": 0.31,
            "prompt_tokens": 5e6 + 900 * requests, "generation_tokens": 1e6 + 210 * requests,
            "finished": 997.0 + count,
            "first_token": {"0.1": 500.0, "0.25": 900.0 + 0.8 * count, "0.5": 1000.0 + count,
                            "+Inf": 1000.0 + count},
        },
    }  # fmt: skip


def gpu(index: int, temperature: str) -> dict[str, str]:
    return {
        "index": str(index),
        "name": "NVIDIA H100 80GB HBM3",
        "uuid": f"GPU-{index}",
        "memory.total": "81559",
        "memory.used": "70211",
        "temperature.gpu": temperature,
        "utilization.gpu": "93",
        "driver_version": "580.178.04",
    }


def states(later: float = 10.0, **changes: Any) -> list[HostState]:
    """All hosts; `changes` by host, a text is why it does not answer."""
    found = []
    for host in HOSTS:
        change = changes.get(host.name, {})
        if isinstance(change, str):
            found.append(silent(host, change))
        else:
            found.append(read_look(host, answer(host.name, later, **change)))
    return found


def look(later: float = 10.0, **changes: Any) -> Look:
    hosts = tuple(states(later, **changes))
    records = [state.operation for state in hosts if state.operation]
    return Look(AT, hosts, view(records[0] if records else None))


def looked_twice(**changes: Any) -> tuple[Look, History]:
    """Two looks, ten seconds apart."""
    history = History()
    history.add(states(0.0))
    found = look(**changes)
    history.add(list(found.hosts))
    return found, history


SICK: dict[str, Any] = {
    "gpu2": "gpu2 cannot be reached over SSH: timed out",
    "gpu1": {
        "units": {"engine@assistant-blue.service": {"active": "active", "sub": ""},
                  "engine@assistant-green.service": {"active": "failed", "sub": ""},
                  "nginx.service": {"active": "active", "sub": ""}},
        "models": {"assistant": {"active": "blue", "slots": {
            "blue": slot("blue", "9f1c2e7", 100, 90),
            "green": {**slot("green", "c04be11", 0, 0), "state": "failed", "metrics": None}}}},
        "drained": "ops driver upgrade to 595 by ada@desk",
        "gpus": {"listed": [], "complaint": "nvidia-smi has not answered for 12 s"},
    },
    "edge1": {"certificate": {"expires": AT + 5 * 86400}},
    "data1": {"disks": {"/": {"used": 93 * GIB, "total": 100 * GIB}},
              "operation": {**OPERATION, "held": False}},
}  # fmt: skip
