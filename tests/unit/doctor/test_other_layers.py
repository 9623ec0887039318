"""The rules of the other layers: each case by its evidence, and nothing beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ops.doctor.finding import Finding
from ops.doctor.judge import catalogue, judge
from ops.operations.plan import Plan
from tests.unit.doctor import test_driver_and_gpu
from tests.unit.doctor.healthy import GIB, NOW, unit

Change = Callable[[dict[str, Any]], Any]
DAY = 86400
AGAIN = "engine@chat-blue.service: Scheduled restart job, restart counter is at 3."
OPERATION: dict[str, Any] = {
    "id": "20261126-101500-chat",
    "plan": Plan("model upgrade", "chat", ("blue-green",), ()).as_record(),
    "entries": [{"event": "taken", "at": NOW - 9000}],
    "held": False,
    "owner": {"who": "ann", "machine": "laptop"},
}


def findings(evidence: dict[str, Any]) -> list[Finding]:
    report = judge("gpu1", evidence)
    assert report.complaints == ()
    return list(report.findings)


def of(evidence: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in evidence["units"] if one["unit"] == name)


def down(name: str, *log: str, **more: Any) -> Change:
    def change(evidence: dict[str, Any]) -> None:
        values = {"active": "failed", "sub": "failed", "result": "exit-code", "log": list(log)}
        of(evidence, name).update({**values, **more})

    return change


def slot(evidence: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = evidence["engines"]["slots"][0]
    return found


ENGINE, APP = "engine@chat-blue.service", "agent_app@8200.service"


def young(evidence: dict[str, Any], seconds: float) -> None:
    of(evidence, ENGINE).update(active_seconds=seconds)
    slot(evidence).update(answers=None)


def answers(**more: Any) -> Change:
    return lambda e: slot(e)["answers"].update(more)


def stolen(evidence: dict[str, Any], port: str, process: str, owner: str) -> None:
    evidence["ports"][port] = {"address": "0.0.0.0", "process": process, "pid": "77", "unit": owner}


def disk(evidence: dict[str, Any], used: int, **more: Any) -> None:
    evidence["machine"]["disks"][1].update(used=used * GIB, **more)


def second_slot(evidence: dict[str, Any]) -> None:
    """Another engine on the same GPUs."""
    other = {**slot(evidence), "model": "code", "unit": "engine@code-blue.service"}
    evidence["engines"]["slots"].append({**other, "port": "8102"})
    evidence["engines"]["fact"]["code"] = {"active": "blue", "revision": "1"}
    evidence["units"].append(unit("engine@code-blue.service"))


def certificate(**more: Any) -> Change:
    return lambda e: e["certificate"].update(more)


def expires(days: float) -> Change:
    ends = NOW + days * DAY
    return lambda e: (e["certificate"].update(expires=ends), e["certificate"]["served"].update(
        expires=ends))  # fmt: skip


def kernel(text: str) -> Change:
    return lambda e: e["machine"]["kernel_log"].append(f"{NOW - 60:.0f} {text}")


CASES: dict[str, Change] = {
    "weights-not-whole": lambda e: slot(e)["weights"].update(
        wrong_size=["model.safetensors: 1 bytes, 9 in the manifest"]
    ),
    "weights-absent": lambda e: slot(e)["weights"].update(there=False),
    "tokenizer-absent": lambda e: slot(e)["weights"].update(tokenizer=False),
    "vllm-environment-absent": lambda e: slot(e).update(command_there=False),
    "active-slot-stopped": down(ENGINE, active="inactive", result="success"),
    "engine-loading": lambda e: young(e, 60),
    "engine-never-ready": lambda e: young(e, 2000),
    "engine-unhealthy": answers(health=503),
    "engine-makes-no-token": answers(token=0, seconds=20.0),
    "engine-stalled": answers(running=3.0, tokens_apart=0.0),
    "engine-restarts": lambda e: of(e, ENGINE).update(
        restarts=2, active_seconds=300.0, log_before=[AGAIN]
    ),
    "port-taken": lambda e: stolen(e, "8100", "python3", "session-2.scope"),
    "gpu-share-overbooked": lambda e: (
        slot(e)["flags"].update({"gpu-memory-utilization": "0.9"}), second_slot(e)
    ),
    "host-memory-small-for-weights": lambda e: slot(e)["weights"].update(size=400 * GIB),
    "slot-wants-absent-gpus": lambda e: slot(e).update(gpus="2,3"),
    "cuda-out-of-memory-at-load": down(ENGINE, "torch.OutOfMemoryError: CUDA out of memory."),
    "redis-down": down("redis-server@cache.service", "Bad directive or wrong number"),
    "redis-does-not-answer": lambda e: e["redis"][1].update(said="no answer: timed out"),
    "redis-refuses": lambda e: e["redis"][1].update(said="-LOADING Redis is loading the dataset"),
    "postgres-down": down("postgresql@16-main.service"),
    "postgres-refuses": lambda e: e["postgres"].update(said="FATAL:  sorry, too many clients"),
    "backup-old": lambda e: e["backup"].update(now=e["backup"]["now"] + 30 * 3600),
    "backup-unproven": lambda e: e["backup"].update(rackhand_backup_verify_success=0.0),
    "postgres-connections-full": lambda e: e["postgres"].update(connections=195),
    "nginx-config-invalid": lambda e: e["nginx"].update(
        status=1, said=['nginx: [emerg] unknown directive "sever" in /etc/nginx/nginx.conf:9']
    ),
    "nginx-down": down("nginx.service", active="inactive"),
    "edge-port-taken": lambda e: (
        down("nginx.service")(e), stolen(e, "443", "apache2", "apache2.service")
    ),
    "certificate-expires": expires(9),
    "certificate-expired": expires(-2),
    "certificate-renewal-failed": down("certbot.service", "urn:ietf:params:acme:error:dns"),
    "certificate-renewal-off": down("certbot.timer", active="inactive"),
    "certificate-placeholder": certificate(kind="placeholder"),
    "certificate-not-taken-up": lambda e: e["certificate"]["served"].update(fingerprint="CC"),
    "app-down": down(APP, active="inactive"),
    "app-restarts": lambda e: of(e, APP).update(
        restarts=3, active_seconds=60.0, log_before=[AGAIN]
    ),
    "app-does-not-answer": lambda e: e["app"][0].update(status=0),
    "app-cannot-reach-engine": lambda e: e["app"][0].update(
        status=503, not_ready={"engine chat": "no answer"}
    ),
    "app-cannot-reach-database": lambda e: e["app"][0].update(
        status=503, not_ready={"database": "connection refused"}
    ),
    "app-cannot-reach-redis": lambda e: e["app"][0].update(
        status=503, not_ready={"redis state": "connection refused"}
    ),
    "app-not-ready": lambda e: e["app"][0].update(status=503, not_ready={"tools": "none"}),
    "app-degraded": lambda e: e["app"][0].update(degraded={"semantic search": "no pgvector"}),
    "app-migration-failed": lambda e: e["units"].append(
        unit("agent_app_migrate@current.service", active="failed", log=["no such role"])
    ),
    "operation-unfinished": lambda e: e.update(operation=OPERATION),
    "operation-running-long": lambda e: e.update(operation={**OPERATION, "held": True}),
    "host-left-drained": lambda e: e["traffic"].update(drained="ann: driver", drained_seconds=9e3),
    "model-left-held": lambda e: e["traffic"].update(held={"chat": "ann: upgrade"}),
    "inventory-differs": lambda e: e.update(inventory={"chat": "def"}),
    "model-not-on-host": lambda e: e.update(inventory={"chat": "abc", "code": "1"}),
    "fact-file-broken": lambda e: e.update(facts=["/etc/ansible/facts.d/x.fact: Expecting"]),
    "disk-filling": lambda e: disk(e, 800),
    "inodes-running-out": lambda e: disk(e, 300, inodes_free=10),
    "disk-read-only": kernel("EXT4-fs (nvme0n1p2): Remounting filesystem read-only"),
    "memory-short": lambda e: e["machine"]["memory"].update(available=8 * GIB),
    "out-of-memory-kill": kernel("Out of memory: Killed process 4711 (vllm) total-vm:1kB"),
    "shared-memory-small": lambda e: e["machine"]["memory"].update(
        shm_total=64 << 20, shm_free=60 << 20
    ),
    "clock-not-kept": lambda e: e["machine"]["clock"].update(NTPSynchronized="no"),
    "clock-off": lambda e: e.update(clock_off_seconds=-75.0),
    "packages-half-configured": lambda e: e["machine"]["packages"].update(
        audit="The following packages are only half configured:\n nvidia-dkms-580  NVIDIA DKMS"
    ),
    "reboot-required": lambda e: e["machine"].update(reboot_required=True),
    "names-not-resolved": lambda e: e.update(names={"agent.example.com": "no address"}),
    "unit-failed": lambda e: e["units"].append(unit("backup.service", active="failed")),
    "tasks-hang-in-kernel": kernel("INFO: task kworker:1 blocked for more than 120 seconds."),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_case_is_named_alone_and_its_texts_are_whole(
    healthy: dict[str, Any], case: str
) -> None:
    CASES[case](healthy)
    found = findings(healthy)
    assert {finding.case for finding in found} == {case}
    texts = (found[0].symptom, found[0].cause, found[0].cure)
    assert not any("{" in text for text in texts), texts
    assert found[0].evidence


def test_every_case_of_the_catalogue_is_caused_by_a_test() -> None:
    from ops.doctor.rules.engine_logs import CASES as LOGS

    known = {case.name for some in catalogue().values() for case in some}
    by_logs = {case.name for case in LOGS}
    elsewhere = {"gpu-lost", "operation-stuck", "idle-slot-failed"}
    assert known - by_logs <= {*CASES, *test_driver_and_gpu.CASES} | elsewhere
    assert len(known) == sum(map(len, catalogue().values())), "two cases have one name"


def test_a_fresh_error_of_a_log_explains_a_port_that_is_silent(healthy: dict[str, Any]) -> None:
    """Restarted by systemd after the failure: the run before tells."""
    error = "ValueError: No available memory for the cache blocks. Try"
    of(healthy, ENGINE).update(
        restarts=3, active_seconds=2.0, log=["Started"], log_before=[error, AGAIN]
    )
    slot(healthy).update(answers=None)
    (found,) = findings(healthy)
    assert (found.case, found.severity) == ("no-memory-for-kv-cache", "critical")
    assert found.evidence[0] == error


def test_files_that_are_cut_are_told_once_and_not_by_the_log_again(
    healthy: dict[str, Any],
) -> None:
    slot(healthy)["weights"].update(wrong_size=["model.safetensors: 1 bytes"])
    down(ENGINE, "safetensors_rust.SafetensorError: Error while deserializing header")(healthy)
    assert [found.case for found in findings(healthy)] == ["weights-not-whole"]


def test_a_slot_that_is_stopped_and_does_not_serve_is_no_finding(healthy: dict[str, Any]) -> None:
    healthy["engines"]["fact"]["chat"]["active"] = "green"
    down(ENGINE, active="inactive", result="success")(healthy)
    assert findings(healthy) == []


def test_a_failed_slot_that_does_not_serve_is_a_warning(healthy: dict[str, Any]) -> None:
    healthy["engines"]["fact"]["chat"]["active"] = "green"
    down(ENGINE, "something")(healthy)
    assert [(f.case, f.severity) for f in findings(healthy)] == [("idle-slot-failed", "warning")]


def test_drained_while_an_operation_works_is_no_finding(healthy: dict[str, Any]) -> None:
    healthy["traffic"].update(drained="ann: driver", drained_seconds=60.0)
    assert findings({**healthy, "fleet_busy": True}) == []


def test_a_stuck_operation_says_why(healthy: dict[str, Any]) -> None:
    stuck = {"event": "stuck", "at": NOW, "why": "no answer"}
    healthy["operation"] = {**OPERATION, "entries": [*OPERATION["entries"], stuck]}
    (found,) = findings(healthy)
    assert found.case == "operation-stuck"
    assert "no answer" in found.cause


@pytest.mark.parametrize(("used", "severity"), [(800, "warning"), (880, "critical")])
def test_a_disk_is_as_bad_as_it_is_full_and_names_what_fills_it(
    healthy: dict[str, Any], used: int, severity: str
) -> None:
    disk(healthy, used)
    healthy["machine"]["takers"] = {"/srv/models": 700 * GIB, "/var/log/journal": 900 * GIB}
    (found,) = findings(healthy)
    assert (found.severity, found.subject) == (severity, "/srv")
    assert found.cause == "/srv/models holds 700.0 GiB of it"
    assert found.cure.startswith("ops model prune")


def test_the_worst_comes_first_and_a_cause_before_what_it_brings_about(
    healthy: dict[str, Any],
) -> None:
    test_driver_and_gpu.CASES["driver-not-loaded"](healthy)
    CASES["reboot-required"](healthy)
    down(ENGINE, "RuntimeError: No CUDA GPUs are available")(healthy)
    CASES["app-cannot-reach-engine"](healthy)
    assert [found.case for found in findings(healthy)] == [
        "driver-not-loaded", "engine-sees-no-gpu", "app-cannot-reach-engine", "reboot-required",
    ]  # fmt: skip


def test_a_host_without_the_data_group_is_not_asked_for_redis(healthy: dict[str, Any]) -> None:
    healthy["groups"] = ["agent", "edge", "gpu"]
    down("redis-server@cache.service")(healthy)
    assert findings(healthy) == []


def test_another_cause_of_a_log_is_told_beside_what_the_files_show(
    healthy: dict[str, Any],
) -> None:
    CASES["tokenizer-absent"](healthy)
    down(ENGINE, "RuntimeError: Could not find nvcc and default cuda_home")(healthy)
    cases = [found.case for found in findings(healthy)]
    assert cases == ["tokenizer-absent", "cuda-toolkit-missing"]


def test_evidence_that_one_layer_cannot_read_hides_no_other(healthy: dict[str, Any]) -> None:
    CASES["redis-down"](healthy)
    healthy["inventory"] = {}
    del healthy["engines"]["fact"]
    report = judge("gpu1", healthy)
    assert [found.case for found in report.findings] == ["redis-down"]
    assert [each[:15] for each in report.complaints] == ["rules of engine"]


def test_an_app_without_its_credential_is_told_so(healthy: dict[str, Any]) -> None:
    down(APP, "Failed to set up credentials: No such file or directory")(healthy)
    (found,) = findings(healthy)
    assert (found.case, found.cause) == ("app-down", "a credential's file is missing")
    assert found.cure == "ops provision --tags agent_app --limit gpu1"


def test_what_a_person_mended_and_started_again_is_past(healthy: dict[str, Any]) -> None:
    log = ["[Errno 98] error while attempting to bind on address"]
    of(healthy, ENGINE).update(restarts=3, active_seconds=30.0, log_before=log)
    assert findings(healthy) == []


def test_an_old_error_is_not_why_a_person_stopped_an_engine(healthy: dict[str, Any]) -> None:
    log = ["torch.OutOfMemoryError: CUDA out of memory."]
    down(ENGINE, active="inactive", result="success", log_before=log)(healthy)
    assert [found.case for found in findings(healthy)] == ["active-slot-stopped"]


def test_an_engine_that_crashed_and_came_back_by_itself_is_a_warning_with_its_cause(
    healthy: dict[str, Any],
) -> None:
    error = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    lines = ["INFO:     Application startup complete.", error, AGAIN]
    of(healthy, ENGINE).update(restarts=1, active_seconds=30.0, log_before=lines)
    (found,) = findings(healthy)
    assert (found.case, found.severity) == ("cuda-out-of-memory-at-run", "warning")


def test_an_engine_whose_settings_were_mended_is_well_though_systemd_started_it(
    healthy: dict[str, Any],
) -> None:
    lines = ["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", AGAIN]
    of(healthy, ENGINE).update(
        restarts=4, active_seconds=30.0, log_before=lines, log_before_at=NOW - 60
    )
    (found,) = findings(healthy)
    assert found.case == "cuda-out-of-memory-at-load"
    healthy["engines"]["slots"][0]["settings_at"] = NOW - 40
    assert findings(healthy) == []
