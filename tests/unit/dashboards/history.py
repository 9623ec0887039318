"""A past for a real Prometheus: a small fleet with a fault in it, made up and told as such.

Values follow a working day; shapes matter, numbers do not. What the metrics are called and which
labels they have is not made up: `test_dashboards.py` compares with recorded pages.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

Curve = Callable[[float], float]
HOSTS = ("edge1", "gpu1", "gpu2")
BOUNDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
HOSTILE = "</svg><script>alert(1)</script>"
"""A key's name as nobody should choose it."""


class History:
    """Samples of series from `start` to `end`, every `step` seconds."""

    def __init__(self, start: float, end: float, step: float) -> None:
        self.start, self.end, self.step = start, end, step
        self.lines: dict[str, list[str]] = {}

    def moments(self) -> Iterator[float]:
        for index in range(int((self.end - self.start) / self.step) + 1):
            yield self.start + index * self.step

    def write(self, name: str, labels: dict[str, str], at: float, value: float) -> None:
        inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
        line = f"{name}{{{inside}}} {value:.9g} {at:.3f}"
        self.lines.setdefault(name, []).append(line)

    def gauge(self, name: str, curve: Curve | float, /, **labels: str) -> None:
        for at in self.moments():
            value = curve(at) if callable(curve) else curve
            if not math.isnan(value):
                self.write(name, labels, at, value)

    def counter(self, name: str, rate: Curve | float, /, **labels: str) -> None:
        total = 0.0
        for at in self.moments():
            total += max(0.0, rate(at) if callable(rate) else rate) * self.step
            self.write(name, labels, at, total)

    def histogram(self, name: str, rate: Curve, median: Curve, /, **labels: str) -> None:
        totals = dict.fromkeys([*BOUNDS, math.inf], 0.0)
        for at in self.moments():
            happened = rate(at) * self.step
            for bound in totals:
                # Log-logistic, steep enough for a p95 of about three medians.
                share = 1.0 if bound == math.inf else 1 / (1 + (median(at) / bound) ** 2.6)
                totals[bound] += happened * share
                le = "+Inf" if bound == math.inf else f"{bound:g}"
                self.write(f"{name}_bucket", {**labels, "le": le}, at, totals[bound])

    def import_into(self, folder: Path) -> None:
        """Make blocks of Prometheus' own of it."""
        source = folder / "history.txt"
        with source.open("w") as stream:
            for lines in self.lines.values():
                stream.write("\n".join(lines) + "\n")
            stream.write("# EOF\n")
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(source)]
        done = subprocess.run([*command, str(folder / "data")], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def made_up(start: float, end: float, step: float) -> History:
    """A fleet of an edge with app and data, and two GPU hosts, one of which loses a GPU."""
    past = History(start, end, step)
    fault = start + 0.62 * (end - start)

    def day(at: float) -> float:
        phase = (at - start) / (end - start)
        return 0.25 + 0.75 * math.exp(-(((phase - 0.55) / 0.24) ** 2)) + 0.05 * math.sin(at / 700)

    def ups(job: str, host: str, curve: Curve | float = 1.0, **labels: str) -> None:
        target = {"job": job, "host": host, "instance": host, **labels}
        past.gauge("up", curve, **target)
        past.gauge("scrape_duration_seconds", lambda at: 0.01 + 0.02 * day(at), **target)

    for host in HOSTS:
        ups("node", host)
        of_node(past, host, day)
    for job in ("prometheus", "alertmanager", "postgres", "redis", "nginx", "blackbox"):
        ups(job, "edge1")
    of_data(past, day)
    of_edge(past, day, fault)
    for port in (8200, 8201):
        instance = f"agent_app@{port}"
        ups("agent_app", "edge1", instance=instance)
        of_app(past, day, instance)
    for host in HOSTS[1:]:
        ups("gpu", host)
        of_gpus(past, host, day, fault)
        for slot in ("blue", "green"):
            active = slot == "blue"
            labels = {"model": "assistant", "slot": slot, "instance": f"assistant-{slot}"}
            ups("engine", host, float(active), **labels)
            share = {"job": "node", "host": host, "model": "assistant", "slot": slot}
            past.gauge("rackhand_slot_traffic_ratio", float(active), instance=host, **share)
            if active:
                of_engine(past, host, day, labels)
    return past


def of_node(past: History, host: str, day: Curve) -> None:
    labels = {"job": "node", "host": host, "instance": host}
    for cpu in ("0", "1"):
        past.counter(
            "node_cpu_seconds_total", lambda at: 1 - 0.6 * day(at), cpu=cpu, mode="idle", **labels
        )
    past.gauge("node_memory_MemTotal_bytes", 64e9, **labels)
    past.gauge("node_memory_MemAvailable_bytes", lambda at: 64e9 * (0.7 - 0.3 * day(at)), **labels)
    disk = {"mountpoint": "/srv", "fstype": "ext4", "device": "/dev/sda1"}
    past.gauge("node_filesystem_size_bytes", 1e12, **disk, **labels)
    share = 0.12 if host == "gpu1" else 0.4
    past.gauge("node_filesystem_avail_bytes", lambda at: 1e12 * share, **disk, **labels)
    past.gauge("node_load5", lambda at: 2.2 * day(at), **labels)
    past.gauge("rackhand_host_drained", 0, **labels)
    past.gauge("rackhand_unit_failed", 0, unit="nginx.service", **labels)
    past.gauge("node_time_seconds", lambda at: at, **labels)
    past.gauge("node_boot_time_seconds", past.start - 9e5, **labels)
    for way in ("receive", "transmit"):
        past.counter(
            f"node_network_{way}_bytes_total", lambda at: 3e6 * day(at), device="eth0", **labels
        )
    past.counter(
        "node_disk_io_time_seconds_total", lambda at: 0.2 * day(at), device="sda", **labels
    )


def of_data(past: History, day: Curve) -> None:
    postgres = {"job": "postgres", "host": "edge1", "instance": "edge1"}
    past.gauge("pg_up", 1, **postgres)
    past.gauge("pg_settings_max_connections", 100, **postgres)
    past.gauge(
        "pg_stat_activity_count", lambda at: 8 + 20 * day(at), datname="rackhand", **postgres
    )
    past.gauge(
        "pg_database_size_bytes", lambda at: 4e9 + at - past.start, datname="rackhand", **postgres
    )
    past.counter(
        "pg_stat_database_xact_commit", lambda at: 60 * day(at), datname="rackhand", **postgres
    )
    past.counter("pg_stat_database_xact_rollback", 0.1, datname="rackhand", **postgres)
    for name, fill in (("cache", 0.8), ("state", 0.1)):
        redis = {"job": "redis", "host": "edge1", "instance": name}
        past.gauge("redis_up", 1, **redis)
        past.gauge("redis_memory_max_bytes", 512 * 2**20, **redis)
        past.gauge("redis_memory_used_bytes", fill * 512 * 2**20, **redis)
        past.counter("redis_commands_processed_total", lambda at: 90 * day(at), **redis)
        past.counter("redis_evicted_keys_total", 0, **redis)


def of_edge(past: History, day: Curve, fault: float) -> None:
    nginx = {"job": "nginx", "host": "edge1", "instance": "edge1"}
    past.gauge("nginx_up", 1, **nginx)
    past.counter("nginx_http_requests_total", lambda at: 9 * day(at), **nginx)
    for state in ("writing", "reading", "waiting"):
        past.gauge(f"nginx_connections_{state}", lambda at: 12 * day(at), **nginx)
    for what in ("accepted", "handled"):
        past.counter(f"nginx_connections_{what}", lambda at: 3 * day(at), **nginx)
    probe = {"job": "blackbox", "host": "edge1", "instance": "agent.example.com/ready"}
    past.gauge("probe_success", lambda at: float(not 0 <= at - fault < 240), **probe)
    past.gauge("probe_duration_seconds", lambda at: 0.04 + 0.02 * day(at), **probe)
    lapses = {"name": "agent.example.com", "job": "node", "host": "edge1", "instance": "edge1"}
    past.gauge("rackhand_certificate_expiry_timestamp_seconds", past.end + 41 * 86400, **lapses)
    for phase, seconds in {
        "resolve": 0.002,
        "connect": 0.004,
        "tls": 0.02,
        "processing": 0.03,
    }.items():
        past.gauge("probe_http_duration_seconds", seconds, phase=phase, **probe)
    alertmanager = {"job": "alertmanager", "host": "edge1", "instance": "edge1"}
    past.counter("alertmanager_notifications_failed_total", 0, integration="slack", **alertmanager)
    alert = {"alertname": "GpuLost", "alertstate": "firing", "severity": "critical", "host": "gpu2"}
    nothing = math.nan
    past.gauge("ALERTS", lambda at: 1 if fault + 60 <= at < fault + 5400 else nothing, **alert)
    disk = {"alertname": "DiskFull", "alertstate": "firing", "severity": "warning", "host": "gpu1"}
    past.gauge("ALERTS", 1, **disk)


def of_app(past: History, day: Curve, instance: str) -> None:
    app = {"job": "agent_app", "host": "edge1", "instance": instance}

    def asked(at: float) -> float:
        return 2.4 * day(at)

    for route in ("/chat", "/v1/chat/completions"):
        for status, share in {"200": 0.985, "429": 0.01, "500": 0.004, "503": 0.001}.items():
            past.counter(
                "agent_app_requests_total", lambda at, share=share: asked(at) * share,
                route=route, method="POST", status=status, **app,
            )  # fmt: skip
        past.histogram(
            "agent_app_request_seconds", asked, lambda at: 2 + 3 * day(at),
            route=route, method="POST", **app,
        )  # fmt: skip
    model = {"model": "assistant", **app}
    past.histogram("agent_app_first_token_seconds", asked, lambda at: 0.2 + 0.4 * day(at), **model)
    past.histogram("agent_app_token_gap_seconds", asked, lambda at: 0.02 + 0.01 * day(at), **model)
    past.histogram(
        "agent_app_engine_wait_seconds", asked, lambda at: 0.02 * day(at) + 0.005, **model
    )
    for kind, many in {"prompt": 900, "completion": 260}.items():
        past.counter("agent_app_tokens_total", lambda at, n=many: n * asked(at), kind=kind, **model)
        for key in ("crm", "support-bot", HOSTILE):
            past.counter(
                "agent_app_key_tokens_total", lambda at, n=many: n * asked(at) / 3,
                kind=kind, key=key, **model,
            )  # fmt: skip
    for key in ("crm", "support-bot", HOSTILE):
        past.counter("agent_app_key_engine_seconds_total", asked, key=key, **model)
    for outcome, share in {"completed": 0.98, "failed": 0.004, "cancelled": 0.016}.items():
        past.counter(
            "agent_app_runs_total", lambda at, share=share: asked(at) * share,
            outcome=outcome, **model,
        )  # fmt: skip
    of_its_parts(past, day, app)


def of_its_parts(past: History, day: Curve, app: dict[str, str]) -> None:
    model = {"model": "assistant", **app}

    def asked(at: float) -> float:
        return 2.4 * day(at)

    past.gauge("agent_app_runs_in_flight", lambda at: round(12 * day(at)), **app)
    past.gauge(
        "agent_app_engine_in_flight", lambda at: round(9 * day(at)), endpoint="gpu1", **model
    )
    past.gauge("agent_app_queue_length", lambda at: max(0, round(14 * day(at) - 9)), **model)
    for tool in ("knowledge", "query_database", "tickets"):
        past.counter(
            "agent_app_tool_calls_total", lambda at: 0.4 * asked(at), tool=tool, outcome="ok", **app
        )
        past.histogram("agent_app_tool_seconds", asked, lambda at: 0.06, tool=tool, **app)
    past.counter(
        "agent_app_cache_total",
        lambda at: 0.2 * asked(at),
        kind="exact",
        outcome="hit",
        reason="",
        **app,
    )
    past.gauge("agent_app_jobs", 2, status="queued", **app)
    past.gauge("agent_app_job_queue_age_seconds", lambda at: 40 * day(at), **app)
    past.histogram("agent_app_event_loop_lag_seconds", lambda at: 10, lambda at: 0.004, **app)
    for state in ("idle", "used"):
        past.gauge(
            "agent_app_database_connections", lambda at: round(6 * day(at)), state=state, **app
        )
    past.gauge("agent_app_database_waiting", 0, **app)
    past.gauge("agent_app_audit_behind_seconds", 0.4, **app)
    past.counter("agent_app_cloud_cost_total", lambda at: 0.00004 * asked(at), cloud="big", **app)


def of_gpus(past: History, host: str, day: Curve, fault: float) -> None:
    target = {"job": "gpu", "host": host, "instance": host}

    def lost(gpu: str, at: float) -> bool:
        return host == "gpu2" and gpu == "1" and fault <= at < fault + 5400

    past.gauge("gpu_expected", 2, **target)
    past.gauge("gpu_present", lambda at: 2.0 - lost("1", at), **target)
    past.gauge("gpu_driver_info", 1, driver_version="580.95.05", cuda_version="13.0", **target)
    for gpu in ("0", "1"):
        labels = {"gpu": gpu, "uuid": f"GPU-{host}-{gpu}", **target}

        def there(curve: Curve, gpu: str = gpu) -> Curve:
            return lambda at: math.nan if lost(gpu, at) else curve(at)

        def wave(at: float, gpu: str = gpu) -> float:
            return day(at) * (0.94 if gpu == "0" else 0.86)

        past.gauge("gpu_up", lambda at, gpu=gpu: float(not lost(gpu, at)), **labels)
        past.gauge("gpu_utilization_ratio", there(lambda at: min(1.0, wave(at))), **labels)
        past.gauge("gpu_memory_total_bytes", there(lambda at: 80 * 2**30), **labels)
        past.gauge("gpu_memory_used_bytes", there(lambda at: 73 * 2**30), **labels)
        past.gauge("gpu_orphaned_memory_bytes", 0, cause="unknown_unit", **labels)
        past.gauge(
            "gpu_process_memory_bytes",
            there(lambda at: 72 * 2**30),
            unit="engine@assistant-blue.service",
            **labels,
        )
        past.gauge(
            "gpu_clock_hertz", there(lambda at: 1.98e9 - 1e8 * day(at)), clock="sm", **labels
        )
        past.counter("gpu_pcie_received_bytes_total", lambda at: 4e7 * day(at), **labels)
        past.counter("gpu_pcie_transmitted_bytes_total", lambda at: 2e7 * day(at), **labels)
        past.gauge("gpu_reading_duration_seconds", 0.004, **labels)
        past.gauge(
            "gpu_temperature_celsius", there(lambda at: 41 + 43 * wave(at)), sensor="gpu", **labels
        )
        past.gauge("gpu_temperature_margin_celsius", there(lambda at: 48 - 43 * wave(at)), **labels)
        past.gauge("gpu_power_watts", there(lambda at: 90 + 560 * wave(at)), **labels)
        past.gauge("gpu_power_limit_watts", 700, limit="enforced", **labels)
        past.counter("gpu_energy_joules_total", lambda at: 90 + 560 * wave(at), **labels)
        of_faults(past, day, labels)
        fell = {"xid": "79", "class": "reboot", **labels}
        broken = host == "gpu2" and gpu == "1"
        past.gauge("gpu_xid_errors_total", lambda at, b=broken: float(b and at >= fault), **fell)


def of_faults(past: History, day: Curve, labels: dict[str, str]) -> None:
    for reason in ("hw_thermal", "hw_power_brake"):
        past.gauge("gpu_throttle_reason", 0, reason=reason, **labels)
    for cause in ("power", "thermal"):
        past.counter(
            "gpu_throttled_seconds_total", lambda at: 0.02 * day(at), cause=cause, **labels
        )
    past.gauge("gpu_ecc_errors_total", 0, error="uncorrected", scope="volatile", **labels)
    past.gauge("gpu_remapped_rows", 0, cause="corrected", **labels)
    past.counter("gpu_nvlink_errors_total", 0, error="crc", **labels)


def of_engine(past: History, host: str, day: Curve, slot: dict[str, str]) -> None:
    labels = {
        "job": "engine", "host": host, "model_name": "assistant", "engine": "0", **slot,
    }  # fmt: skip

    def asked(at: float) -> float:
        return 2.3 * day(at)

    past.gauge("vllm:num_requests_running", lambda at: round(14 * day(at)), **labels)
    past.gauge("vllm:num_requests_waiting", lambda at: max(0, round(9 * day(at) - 7)), **labels)
    past.gauge("vllm:kv_cache_usage_perc", lambda at: 0.8 * day(at), **labels)
    past.counter("vllm:prompt_tokens_total", lambda at: 900 * asked(at), **labels)
    past.counter("vllm:generation_tokens_total", lambda at: 260 * asked(at), **labels)
    past.counter("vllm:num_preemptions_total", 0, **labels)
    past.counter("vllm:prefix_cache_queries_total", lambda at: 900 * asked(at), **labels)
    past.counter("vllm:prefix_cache_hits_total", lambda at: 510 * asked(at), **labels)
    for reason, share in {"stop": 0.9, "length": 0.09, "abort": 0.01}.items():
        past.counter(
            "vllm:request_success_total", lambda at, share=share: asked(at) * share,
            finished_reason=reason, **labels,
        )  # fmt: skip
    for name, median in {
        "time_to_first_token_seconds": 0.3, "inter_token_latency_seconds": 0.02,
        "e2e_request_latency_seconds": 4.0, "request_queue_time_seconds": 0.02,
    }.items():  # fmt: skip
        past.histogram(f"vllm:{name}", asked, lambda at, m=median: m * (0.6 + day(at)), **labels)
