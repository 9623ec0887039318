"""Engines: why a slot does not start, ends or does not answer; whether its weights are whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ops.doctor.finding import CRITICAL, INFO, WARNING, Case, Finding, Severity
from ops.doctor.rules import engine_logs
from ops.doctor.rules.host import size

LOADING_FACTOR = 1.5
"""System memory that loading wants, by the size of the weights: the mission's preflight."""
LOADING_SECONDS = 600.0
"""An engine that loads for longer without a word is looked at; large models take minutes."""
WEIGHTS_SHORT = Case(
    "weights-not-whole",
    CRITICAL,
    "the weights at {path} are not whole",
    "{why}",
    "on {host}: mv {path} {path}.staging; then ops model stage {model} fetches what is missing or "
    "wrong, and systemctl restart {unit}",
)
WEIGHTS_ABSENT = Case(
    "weights-absent",
    CRITICAL,
    "the folder of the weights is not there: {path}",
    "they were never staged on this host, or were removed",
    "ops model stage {model} --limit {host}",
)
NO_TOKENIZER = Case(
    "tokenizer-absent",
    CRITICAL,
    "there is no tokenizer at {path}",
    "the revision was staged without it: vLLM starts all the same, and answers nonsense",
    "on {host}: mv {path} {path}.staging; then ops model stage {model} from a source that has it",
)
NO_COMMAND = Case(
    "vllm-environment-absent",
    CRITICAL,
    "{path} does not exist",
    "the vLLM environment that the slot names is not on this host",
    "ops provision --tags engine --limit {host}",
)
STOPPED = Case(
    "active-slot-stopped",
    CRITICAL,
    "{unit} should serve and is {state}",
    "somebody stopped it, or it reached its limit of restarts",
    "systemctl reset-failed {unit}; systemctl start {unit}",
)
STOPPING = Case(
    "idle-slot-failed",
    WARNING,
    "{unit} has failed; its slot does not serve",
    "{why}",
    "journalctl -b -u {unit}; not wanted any more? systemctl reset-failed {unit}",
)
LOADING = Case(
    "engine-loading",
    INFO,
    "{unit} loads since {seconds} seconds",
    "weights are read and kernels compiled; large models take minutes",
    "journalctl -fu {unit}",
)
NEVER_READY = Case(
    "engine-never-ready",
    CRITICAL,
    "{unit} runs for {seconds} seconds and does not answer",
    "it hangs while loading: a disk that does not answer, GPUs that do not reach one another, or a "
    "model too large for its time-out",
    "journalctl -b -u {unit}; then ops restart engine {model} --limit {host}",
)
SICK = Case(
    "engine-unhealthy",
    CRITICAL,
    "{unit} listens and its health is {status}",
    "the engine's core is dead or hangs while its web server lives",
    "ops restart engine {model} --limit {host}",
)
NO_TOKEN = Case(
    "engine-makes-no-token",
    CRITICAL,
    "{unit} is healthy by its own word and gives no token ({status})",
    "{why}",
    "journalctl -b -u {unit}; then ops restart engine {model} --limit {host}",
)
STALLED = Case(
    "engine-stalled",
    CRITICAL,
    "{unit} has {running} requests and makes no tokens",
    "its core hangs, as a rule on a GPU or between GPUs",
    "ops restart engine {model} --limit {host}; ops doctor {host} names a GPU that failed",
)
CRASHES = Case(
    "engine-restarts",
    WARNING,
    "{unit} was started again {restarts} times",
    "it ended by itself, and runs again",
    "journalctl -b -u {unit}",
)
PORT_OWNER = Case(
    "port-taken",
    CRITICAL,
    "port {port} of {unit} belongs to {owner}",
    "it was started by hand, or by another unit, and listens where ours should",
    "{how}, then: systemctl restart {unit}",
)
OVERBOOKED = Case(
    "gpu-share-overbooked",
    WARNING,
    "engines claim {share} % of GPU {index}",
    "gpu_memory_utilization is a share of all memory for each engine: the next start is refused",
    "lower gpu_memory_utilization of {models} to a sum of 0.95, then ops provision --tags engine "
    "--limit {host} -e engine_accept_restart=true",
)
SMALL_HOST = Case(
    "host-memory-small-for-weights",
    WARNING,
    "{memory} of memory for weights of {weights}",
    "loading wants 1.5 times the weights: it swaps, is slow, or is killed",
    "add memory, or take a quantized model: ops fit MODEL --gpu GPU",
)
FEW_GPUS = Case(
    "slot-wants-absent-gpus",
    CRITICAL,
    "{unit} is given GPUs {gpus}; the host has {count}",
    "gpus of the model in the inventory names GPUs that are not there (or are lost)",
    "set gpus and tensor_parallel of the model, then ops provision --tags engine --limit {host} "
    "-e engine_accept_restart=true",
)
CASES = (
    *engine_logs.CASES, WEIGHTS_SHORT, WEIGHTS_ABSENT, NO_TOKENIZER, NO_COMMAND, STOPPED, STOPPING,
    LOADING, NEVER_READY, SICK, NO_TOKEN, STALLED, CRASHES, PORT_OWNER, FEW_GPUS, OVERBOOKED,
    SMALL_HOST,
)  # fmt: skip
AGAIN = "Scheduled restart job"
"""systemd's word on a unit that it starts again."""
YOUNG_SECONDS = 900.0
RUNNING = ("active", "activating", "reloading")


def judge(host: str, evidence: Mapping[str, Any]) -> Iterator[Finding]:
    """Find what ails the engines."""
    engines = evidence.get("engines") or {}
    units = {unit["unit"]: unit for unit in evidence.get("units", [])}
    for slot in engines.get("slots", []):
        unit = units.get(slot["unit"], {"unit": slot["unit"], "active": "inactive", "sub": "dead",
                                        "result": "success", "restarts": 0, "log": [],
                                        "log_before": [], "log_before_at": 0.0,
                                        "active_seconds": None})  # fmt: skip
        active = engines["fact"].get(slot["model"], {}).get("active") == slot["slot"]
        yield from _slot(host, slot, unit, active, evidence)

    yield from _shares(host, engines.get("slots", []), units)
    largest = max((slot["weights"]["size"] for slot in engines.get("slots", []) if slot["weights"]),
                  default=0)  # fmt: skip
    total = ((evidence.get("machine") or {}).get("memory") or {}).get("total", 0)
    if total and largest * LOADING_FACTOR > total:
        line = f"{size(largest)} x {LOADING_FACTOR} > {size(total)}"
        yield SMALL_HOST.found(host, "memory", line, memory=size(total), weights=size(largest))


def _shares(
    host: str, slots: Sequence[Mapping[str, Any]], units: Mapping[str, Mapping[str, Any]]
) -> Iterator[Finding]:
    """What engines that run claim of each GPU's memory."""
    claims: dict[str, dict[str, float]] = {}
    for slot in slots:
        if units.get(slot["unit"], {}).get("active") not in RUNNING or not slot["gpus"]:
            continue
        if "kv-cache-memory-bytes" in slot["flags"]:
            continue  # sized by bytes, not by a share
        share = float(slot["flags"].get("gpu-memory-utilization") or 0)
        for index in slot["gpus"].split(","):
            claims.setdefault(index, {})[slot["model"] + "-" + slot["slot"]] = share
    for index, claim in claims.items():
        if sum(claim.values()) > 1:
            lines = [f"{name}: {share}" for name, share in claim.items()]
            yield OVERBOOKED.found(host, f"GPU {index}", *lines, index=index,
                                   share=round(100 * sum(claim.values())),
                                   models=", ".join(claim))  # fmt: skip


def _slot(
    host: str,
    slot: Mapping[str, Any],
    unit: Mapping[str, Any],
    active: bool,
    evidence: Mapping[str, Any],
) -> Iterator[Finding]:
    """One slot: first what its own files and port say, then its log, then its answers."""
    wanted = active or unit["active"] in RUNNING or unit["active"] == "failed"
    if not wanted:
        return
    known: dict[str, Any] = {"unit": slot["unit"], "model": slot["model"]}
    sick = [*_files(host, slot, known), *_port(host, slot, evidence)]
    sick += _gpus(host, slot, evidence)
    yield from sick
    down = unit["active"] != "active" or unit["sub"] == "auto-restart"
    told = None
    stopped = unit["active"] == "inactive" and unit["result"] == "success"  # by a person
    if not stopped and (down or slot["answers"] is None):
        told = engine_logs.read_log(unit["log"])
    if not told and not stopped and (down or _came_back(unit, slot)):
        told = engine_logs.read_log(unit["log_before"])
    severity = _severity(unit, slot, active)
    if told and not _same(sick, told):
        line = told.line or unit["log"][-1]
        lines = [line, *[each for each in unit["log"][-3:] if each != line]]
        yield told.case.found(host, slot["unit"], *lines, severity=severity, **told.values)
    if told or sick:
        return
    if down:
        yield from _down(host, unit, active, known)
    else:
        yield from _answers(host, slot, unit, known)


def _came_back(unit: Mapping[str, Any], slot: Mapping[str, Any]) -> bool:
    """Whether it ended a moment ago and systemd, not a person who mended it, started it again.

    Where its settings changed since the run that ended began, somebody mended them, though systemd
    may have been the quicker one to start it.
    """
    young = (unit["active_seconds"] or 0.0) < YOUNG_SECONDS
    by_itself = any(AGAIN in line for line in unit["log_before"])
    mended = slot["settings_at"] > unit["log_before_at"] > 0
    return bool(unit["restarts"] and young and by_itself and not mended)


def _severity(unit: Mapping[str, Any], slot: Mapping[str, Any], active: bool) -> Severity:
    """How bad an error of a log is: what answers again, or does not serve, is a warning."""
    answers = slot["answers"] or {}
    well = unit["active"] == "active" and answers.get("health") == 200
    return CRITICAL if active and not well else WARNING


COVERED = {
    "weights-not-whole": ("weights-broken", "weights-missing", "model-not-found",
                          "weights-of-another-model", "tokenizer-unreadable"),
    "weights-absent": ("model-not-found", "weights-missing"),
    "vllm-environment-absent": ("engine-environment-missing",),
    "tokenizer-absent": ("tokenizer-unreadable",),
    "port-taken": ("engine-port-taken",),
    "slot-wants-absent-gpus": ("too-few-gpus", "engine-sees-no-gpu"),
}  # fmt: skip
"""What files or sockets show, and what a log then says of it: told once."""


def _same(found: list[Finding], told: engine_logs.Told) -> bool:
    return any(told.case.name in COVERED.get(finding.case, ()) for finding in found)


def _files(host: str, slot: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether what the slot names is on the disk, and whole."""
    weights = slot["weights"]
    if slot["command"] and not slot["command_there"]:
        yield NO_COMMAND.found(host, slot["unit"], slot["arguments"], path=slot["command"])
    if weights is None:
        return
    path = weights["path"]
    if not weights["there"]:
        yield WEIGHTS_ABSENT.found(host, slot["unit"], slot["arguments"], path=path, **known)
    elif weights["missing"] or weights["wrong_size"]:
        why = f"{len(weights['missing'])} files are missing, {len(weights['wrong_size'])} are cut"
        lines = [*(f"missing: {name}" for name in weights["missing"]), *weights["wrong_size"]]
        yield WEIGHTS_SHORT.found(host, slot["unit"], *lines[:5], path=path, why=why, **known)
    elif not weights["tokenizer"] and not {"tokenizer", "skip-tokenizer-init"} & set(slot["flags"]):
        line = f"{path} has no tokenizer.json, tokenizer.model or their like"
        yield NO_TOKENIZER.found(host, slot["unit"], line, path=path, **known)


def _port(host: str, slot: Mapping[str, Any], evidence: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether somebody else listens at the slot's port."""
    holder = (evidence.get("ports") or {}).get(slot["port"])
    if not holder or not holder["pid"] or holder["unit"] == slot["unit"]:
        return
    unit = holder["unit"]
    own = unit.endswith(".service") and not unit.startswith(("user@", "ssh"))
    how = f"systemctl stop {unit}" if own else f"kill {holder['pid']}"
    owner = f"{holder['process']} (pid {holder['pid']}, {unit or 'no unit'})"
    line = f"{holder['address']}:{slot['port']} {owner}"
    yield PORT_OWNER.found(
        host, slot["unit"], line, port=slot["port"], unit=slot["unit"], owner=owner, how=how
    )


def _gpus(host: str, slot: Mapping[str, Any], evidence: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the slot is given GPUs that there are."""
    wanted = [int(index) for index in slot["gpus"].split(",") if index.strip().isdigit()]
    gpu = evidence.get("gpu") or {}
    if not wanted or not gpu.get("loaded") or gpu.get("lost"):
        return
    count = len(gpu.get("gpus") or [])
    if count and max(wanted) >= count:
        line = f"CUDA_VISIBLE_DEVICES={slot['gpus']}"
        yield FEW_GPUS.found(
            host, slot["unit"], line, unit=slot["unit"], gpus=slot["gpus"], count=count
        )


def _down(
    host: str, unit: Mapping[str, Any], active: bool, known: Mapping[str, Any]
) -> Iterator[Finding]:
    """A unit that is not active, and whose log tells no error."""
    lines = unit["log"][-4:]
    state = f"{unit['active']} ({unit['sub']}, {unit['result']})"
    if active:
        yield STOPPED.found(host, unit["unit"], state, *lines, state=state, **known)
    elif unit["active"] == "failed":
        why = "; ".join(lines[-1:]) or "its log says nothing"
        yield STOPPING.found(host, unit["unit"], state, *lines, why=why, **known)


def _answers(
    host: str, slot: Mapping[str, Any], unit: Mapping[str, Any], known: Mapping[str, Any]
) -> Iterator[Finding]:
    """A unit that is active: does it answer, and does it make tokens?"""
    answers, seconds = slot["answers"], unit["active_seconds"] or 0.0
    lines, name = unit["log"][-3:], unit["unit"]
    if answers is None or (answers["health"] == 0 and seconds < LOADING_SECONDS):
        case = LOADING if seconds < LOADING_SECONDS else NEVER_READY
        yield case.found(host, name, f"port {slot['port']}: nobody listens", *lines,
                         seconds=round(seconds), **known)  # fmt: skip
    elif answers["health"] != 200:
        status = answers["health"] or "no answer"
        line = f"GET /health at port {slot['port']}: {status}"
        yield SICK.found(host, name, line, *lines, status=status, **known)
    elif answers.get("tokens_apart") == 0:
        line = f"running {answers['running']:.0f}, waiting {answers['waiting']:.0f}, no new tokens"
        yield STALLED.found(host, name, line, *lines, running=round(answers["running"]), **known)
    elif "token" in answers and answers["token"] != 200:
        why = "the model's name, its weights or its core: the answer says more"
        if not answers["token"]:
            why = f"no answer in {answers['seconds']:.0f} s: its core hangs"
        status = answers["token"] or "no answer"
        yield NO_TOKEN.found(host, name, f"POST /v1/completions: {status}", answers["said"],
                             status=status, why=why, **known)  # fmt: skip
    if _came_back(unit, slot) and answers is not None:
        line = f"NRestarts={unit['restarts']}, active for {seconds:.0f} s"
        yield CRASHES.found(host, name, line, *lines, restarts=unit["restarts"], **known)
