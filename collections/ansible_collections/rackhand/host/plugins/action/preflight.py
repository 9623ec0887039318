# Copyright: the Rackhand founders
"""Judge a host's survey before anything on it changes; one report, for people and machines."""

from __future__ import annotations

import fnmatch
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.rackhand.host.plugins.module_utils import model_fit
from ansible_collections.rackhand.host.plugins.module_utils.driver_judgement import (
    choose_module,
    judge_request,
)
from ansible_collections.rackhand.host.plugins.module_utils.driver_packages import (
    Host,
    Refusal,
    Wanted,
)

GIB = 2**30
SUPPORTED = {("debian", "12"), ("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04")}
#: Weights pass through memory on their way to the GPU (mission A2).
MEMORY_PER_WEIGHTS = 1.5
CLOCK_WARN_S, CLOCK_FAIL_S = 5, 60

Finding = dict[str, str]


def finding(level: str, name: str, what: str, cure: str = "") -> Finding:
    """One line of the report; level is ok, warn or fail."""
    return {"level": level, "check": name, "what": what, "cure": cure}


class ActionModule(ActionBase):
    """Survey, judge, report."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the survey and its judgement; fails when a finding does."""
        super().run(tmp, task_vars)
        del tmp
        args = self._task.args
        asked = time.time()
        result: dict[str, Any] = self._execute_module(
            module_name="rackhand.host.survey",
            module_args={
                "disks": [d["path"] for d in args["disks"]],
                "names": args["names"],
                "configs": [path for m in args.get("models", []) if (path := config_on_host(m))],
            },
            task_vars=task_vars,
        )
        if result.get("failed"):
            return result
        survey = result["survey"]
        survey["clock_offset"] = offset(survey["time"], asked, time.time())
        findings = list(judge(survey, args))
        host = str((task_vars or {})["inventory_hostname"])
        write_report(args.get("report"), host, survey, findings)
        failed = [f for f in findings if f["level"] == "fail"]
        text = "\n".join(line(f) for f in findings if f["level"] != "ok") or "sound"
        head = f"{host}: {len(failed)} problem(s); nothing was changed.\n" if failed else ""
        return {
            "changed": False,
            "failed": bool(failed),
            "msg": head + text,
            "findings": findings,
            "ansible_facts": {
                "fleet_host_gpus": len(survey["devices"]),
                "fleet_host_machine": survey["architecture"],
            },
        }


def offset(there: float, before: float, after: float) -> float:
    """Seconds by which the host's clock is outside of the call's own span; 0 when inside."""
    return there - after if there > after else min(0.0, there - before)


def line(f: Finding) -> str:
    """A finding as a person reads it."""
    return f"[{f['level']}] {f['check']}: {f['what']}" + (
        f" Cure: {f['cure']}." if f["cure"] else ""
    )


def judge(survey: dict[str, Any], args: dict[str, Any]) -> Iterator[Finding]:
    """All findings about one host, in the order a person would ask."""
    yield judge_system(survey)
    yield from judge_operation(survey["operation"], str(args.get("operation", "")))
    yield from judge_disks(survey, args["disks"])
    yield judge_memory(survey, float(args["weights_gb"]))
    yield from judge_ports(survey["listeners"], args["ports"])
    yield from judge_names(survey["names"], bool(args["names_required"]))
    yield judge_clock(survey["clock_offset"])
    yield judge_gpus(survey, int(args["gpus_wanted"]))
    if survey["devices"] and args.get("driver"):
        yield from judge_driver(survey, args["driver"])
    if survey["devices"]:
        for model in args.get("models", []):
            yield from judge_model(survey, model)


def judge_system(survey: dict[str, Any]) -> Finding:
    """The distribution and its release."""
    release = survey["os"]
    text = f"{release.get('PRETTY_NAME', 'unknown')}, kernel {survey['kernel']}"
    if not survey["systemd"]:
        return finding("fail", "system", f"{text}, not booted with systemd", "boot with systemd")
    if (release.get("ID", ""), release.get("VERSION_ID", "")) in SUPPORTED:
        return finding("ok", "system", text)
    names = ", ".join(" ".join(pair) for pair in sorted(SUPPORTED))
    return finding("fail", "system", f"{text} is not supported", f"use one of {names}")


def judge_operation(open_one: dict[str, Any], ours: str) -> Iterator[Finding]:
    """An operation that `ops` has open: roles must not run in between, but for its own."""
    name = open_one.get("id", "")
    if name and name != ours:
        who = f"{open_one.get('who')}@{open_one.get('machine')}"
        what = f"{name} of {who} is not finished ({open_one.get('why')})"
        yield finding("fail", "operation", what, f"wait for it, or: ops resume, ops abort {name}")


def judge_disks(survey: dict[str, Any], wanted: list[dict[str, Any]]) -> Iterator[Finding]:
    """Free space where the weights and the rest go."""
    for rule, found in zip(wanted, survey["disks"], strict=True):
        if rule.get("driver") and not survey["devices"]:
            continue
        free, need = found["free"] / GIB, float(rule["free_gb"])
        text = f"{found['path']} has {free:.1f} GiB free, {need:.1f} wanted"
        if free >= need:
            yield finding("ok", "disk", text)
        else:
            cure = f"free or add space for {found['path']}, or lower {rule['variable']}"
            yield finding("fail", "disk", text, cure)


def judge_memory(survey: dict[str, Any], weights_gb: float) -> Finding:
    """System memory against the largest model's weights."""
    have, need = survey["memory"] / GIB, weights_gb * MEMORY_PER_WEIGHTS
    text = f"{have:.1f} GiB, {need:.1f} wanted for weights of {weights_gb:.1f} GiB"
    if have >= need:
        return finding("ok", "memory", text)
    return finding("fail", "memory", text, "add memory or choose a smaller model")


def judge_ports(listeners: dict[str, str], wanted: list[dict[str, Any]]) -> Iterator[Finding]:
    """Ports that Rackhand needs, held by something else."""
    for rule in wanted:
        holder = listeners.get(str(rule["port"]))
        if holder is None or fnmatch.fnmatch(holder, rule["unit"]):
            continue
        yield finding(
            "fail", "port", f"{rule['port']} is taken by {holder}; {rule['unit']} needs it",
            f"stop {holder} or move {rule['variable']}",
        )  # fmt: skip


def judge_names(names: dict[str, list[str]], required: bool) -> Iterator[Finding]:
    """DNS of the names that the edge answers to."""
    for name, addresses in names.items():
        if addresses:
            yield finding("ok", "dns", f"{name} is {', '.join(addresses)}")
        else:
            yield finding(
                "fail" if required else "warn", "dns", f"{name} does not resolve on this host",
                f"add an A or AAAA record for {name}",
            )  # fmt: skip


def judge_clock(offset_s: float) -> Finding:
    """The clock against the control machine's; TLS and tokens depend on it."""
    text = f"{offset_s:+.1f} s from the control machine"
    if abs(offset_s) < CLOCK_WARN_S:
        return finding("ok", "clock", text)
    level = "warn" if abs(offset_s) < CLOCK_FAIL_S else "fail"
    return finding(level, "clock", text, "set the time, and let NTP keep it")


def judge_gpus(survey: dict[str, Any], wanted: int) -> Finding:
    """GPUs on the bus against those that the inventory pins."""
    have = len(survey["devices"])
    kinds = ", ".join(dict.fromkeys(survey["architectures"]))
    text = f"{have} on the bus{f' ({kinds})' if kinds else ''}, {wanted} named by the inventory"
    if have >= wanted:
        return finding("ok", "gpus", text)
    return finding("fail", "gpus", text, "seat the missing ones, or correct models[].gpus")


def judge_driver(survey: dict[str, Any], driver: dict[str, str]) -> Iterator[Finding]:
    """Whether this host takes the driver that the inventory names: modules, firmware, headers."""
    wanted = Wanted(
        channel=driver["channel"],
        branch=driver["branch"],
        version=driver["version"],
        module=driver["module"],
    )
    host = Host(
        distribution=survey["os"].get("ID", ""),
        devices=survey["devices"],
        secure_boot=survey["secure_boot"],
        key_enrolled=survey["key_enrolled"],
    )
    try:
        judge_request(host, wanted)
        module = choose_module(wanted, survey["devices"])
    except Refusal as refusal:
        yield finding("fail", "driver", refusal.message, refusal.cure)
        return
    kernel = survey["kernels"][-1]
    text = f"branch {wanted.branch}, {module} modules, channel {wanted.channel}, kernel {kernel}"
    if wanted.channel == "cuda" and survey["headers"] == "missing":
        yield finding(
            "fail", "driver", f"{text}: DKMS needs linux-headers-{kernel}, which no repository has",
            "boot a kernel that the repositories have headers for, or add its repository",
        )  # fmt: skip
    else:
        yield finding("ok", "driver", text)


def config_on_host(model: Mapping[str, Any]) -> str:
    """Where a model's config.json lies on the host; empty for one of the control machine."""
    source = str(model["source"])
    if source.startswith("file://"):
        return ""
    folder = f"/srv/models/{model['name']}/{model['revision']}"
    if source.startswith("host://"):
        folder = source.removeprefix("host://")
    return f"{folder}/config.json"


def read_config(survey: dict[str, Any], model: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """A model's config.json and the size of its weights in bytes; nothing where it is not at hand."""
    folder = Path(str(model["source"]).removeprefix("file://"))
    here = config_on_host(model)
    try:
        text = survey["configs"][here] if here else (folder / "config.json").read_text("utf-8")
        config = json.loads(text)
    except (OSError, ValueError):
        return {}, 0
    sizes = [] if here else [p.stat().st_size for p in folder.glob("*.safetensors")]
    return config, sum(sizes)


def judge_model(survey: dict[str, Any], model: Mapping[str, Any]) -> Iterator[Finding]:
    """A model against the memory of the GPUs that it is pinned to; none pinned, none judged."""
    memory = [survey["memory_mib"][i] for i in model.get("gpus") or ()
              if i < len(survey["memory_mib"])]  # fmt: skip
    name = model["name"]
    if not memory:
        return
    config, weights = read_config(survey, model)
    if not config or not min(memory):
        what = "the GPU's memory is" if config else "its config.json is"
        yield finding("ok", "vram", f"{name} cannot be judged before {what} known: see `ops fit`")
        return
    try:
        verdict = model_fit.judge_memory(
            model, config, min(memory), len(memory), weights_bytes=weights
        )
    except ValueError as error:
        yield finding("warn", "vram", f"{name} cannot be judged: {error}", "ask `ops fit`")
        return
    room = f"{verdict.needed / GIB:.1f} of {verdict.budget / GIB:.1f} GiB on each GPU"
    if verdict.fits:
        yield finding("ok", "vram", f"{name} needs {room}")
    else:
        cure = "ask `ops fit` with this inventory what to change"
        yield finding("fail", "vram", f"{name} needs {room}: {verdict.reason}", cure)


def write_report(
    folder: str | None, host: str, survey: dict[str, Any], findings: list[Finding]
) -> None:
    """The machine-readable report, one file per host, on the control machine."""
    if not folder:
        return
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"host": host, "findings": findings, "survey": survey}, indent=1)
    (path / f"{host}.json").write_text(content + "\n", encoding="utf-8")
