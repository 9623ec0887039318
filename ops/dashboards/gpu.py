"""GPUs: load, heat, faults, and who holds their memory.

What each metric means: docs/gpu-exporter.md.
"""

from ops.dashboards.panel import (
    Dashboard,
    Job,
    Kind,
    Row,
    critical,
    graph,
    stat,
    state,
    table,
    warning,
)
from ops.dashboards.unit import (
    BYTES,
    BYTES_PER_SECOND,
    CELSIUS,
    COUNT,
    FREE,
    HERTZ,
    SECONDS,
    SHARE,
    WATTS,
)

HOST = 'host=~"$host"'
GPU = "{{host}} GPU {{gpu}}"
NOT_EVERY_GPU = "these GPUs have no such sensor"

FIRST = Row(
    "Condition",
    (
        stat(
            "GPUs missing",
            "Expected by the inventory or seen before, and not answering now.",
            Job.GPU,
            f"sum(gpu_expected{{{HOST}}} - gpu_present{{{HOST}}})",
            thresholds=(critical(1),),
        ),
        stat(
            "GPU memory in use",
            "Share of all GPUs' memory. vLLM takes its share at the start, 90 % by default.",
            Job.GPU,
            f"sum(gpu_memory_used_bytes{{{HOST}}}) / sum(gpu_memory_total_bytes{{{HOST}}})",
            unit=SHARE,
            thresholds=(warning(0.95),),
        ),
        stat(
            "Orphaned memory",
            "Held by processes that no unit of ours owns, or by nobody: docs/gpu-exporter.md.",
            Job.GPU,
            f"sum(gpu_orphaned_memory_bytes{{{HOST}}})",
            unit=BYTES,
            thresholds=(warning(2**30),),
        ),
        state(
            "GPUs that answer",
            "Whether each GPU ever seen answers in time. One that does not is lost, missing or "
            "hangs: gpu_condition says which.",
            Job.GPU,
            f"max by (host, gpu) (gpu_up{{{HOST}}})",
            GPU,
        ),
        graph(
            "XIDs",
            "Errors that the driver reported, in each interval. Classes reset and reboot take the "
            "GPU out of service.",
            Job.GPU,
            (
                "sum by (host, gpu, xid, class) "
                f"(increase(gpu_xid_errors_total{{{HOST}}}[$__rate_interval])) > 0",
                GPU + " XID {{xid}} ({{class}})",
            ),
            events=True,
        ),
        table(
            "Drivers",
            "On how many hosts each version is loaded.",
            Job.GPU,
            f"count by (driver_version, cuda_version) (gpu_driver_info{{{HOST}}})",
            "{{driver_version}}, CUDA {{cuda_version}}",
        ),
    ),
)

LOAD = Row(
    "Load",
    (
        graph(
            "Use",
            "Share of the time in which a kernel ran; not how much of the GPU it used.",
            Job.GPU,
            (f"gpu_utilization_ratio{{{HOST}}}", GPU),
            unit=SHARE,
            largest=1,
        ),
        graph(
            "Memory",
            "Share of each GPU's memory that is taken.",
            Job.GPU,
            (f"gpu_memory_used_bytes{{{HOST}}} / gpu_memory_total_bytes{{{HOST}}}", GPU),
            unit=SHARE,
            largest=1,
            thresholds=(warning(0.95),),
        ),
        graph(
            "Memory by owner",
            "Who holds it, by systemd unit.",
            Job.GPU,
            (
                f"sum by (host, gpu, unit) (gpu_process_memory_bytes{{{HOST}}})",
                GPU + " {{unit}}",
            ),
            unit=BYTES,
            kind=Kind.STACK,
            optional="no process is on a GPU",
        ),
        graph(
            "Clock",
            "Of the streaming multiprocessors; a clock that sags under load is being throttled.",
            Job.GPU,
            (f'gpu_clock_hertz{{clock="sm", {HOST}}}', GPU),
            unit=HERTZ,
        ),
        graph(
            "PCIe",
            "Bytes per second between host and GPU.",
            Job.GPU,
            (
                f"rate(gpu_pcie_received_bytes_total{{{HOST}}}[$__rate_interval])",
                GPU + " in",
            ),
            (
                f"rate(gpu_pcie_transmitted_bytes_total{{{HOST}}}[$__rate_interval])",
                GPU + " out",
            ),
            unit=BYTES_PER_SECOND,
            optional="these drivers do not count it",
        ),
        graph(
            "Time of a reading",
            "How long NVML takes to tell a GPU's condition; it grows before a driver hangs.",
            Job.GPU,
            (f"gpu_reading_duration_seconds{{{HOST}}}", GPU),
            unit=SECONDS,
            thresholds=(warning(1),),
        ),
    ),
)

HEAT = Row(
    "Heat and power",
    (
        graph(
            "Temperature",
            "Of the chip. The alert's fixed 85 °C is a floor; the margin fits each model.",
            Job.GPU,
            (f'gpu_temperature_celsius{{sensor="gpu", {HOST}}}', GPU),
            unit=CELSIUS,
            thresholds=(warning(85),),
        ),
        graph(
            "Margin",
            "Degrees left until the GPU slows itself down.",
            Job.GPU,
            (f"gpu_temperature_margin_celsius{{{HOST}}}", GPU),
            unit=CELSIUS,
            thresholds=(warning(5, below=True),),
            optional=NOT_EVERY_GPU,
        ),
        graph(
            "Power",
            "Draw of each GPU.",
            Job.GPU,
            (f"gpu_power_watts{{{HOST}}}", GPU),
            unit=WATTS,
        ),
        graph(
            "Share of the power limit",
            "Draw by the limit in force; at 100 % the clock follows the power.",
            Job.GPU,
            (
                f"gpu_power_watts{{{HOST}}} / on (host, gpu) "
                f'gpu_power_limit_watts{{limit="enforced", {HOST}}}',
                GPU,
            ),
            unit=SHARE,
            largest=1,
        ),
        state(
            "Slowed by a fault",
            "Whether cooling (hw_thermal) or supply (hw_power_brake) holds the clocks down.",
            Job.GPU,
            "1 - max by (host, gpu, reason) "
            f'(gpu_throttle_reason{{reason=~"hw_thermal|hw_power_brake", {HOST}}})',
            GPU + " {{reason}}",
            unit=FREE,
        ),
        graph(
            "Time slowed",
            "Share of the time in which power or heat held the clocks down.",
            Job.GPU,
            (
                f"rate(gpu_throttled_seconds_total{{{HOST}}}[$__rate_interval])",
                GPU + " {{cause}}",
            ),
            unit=SHARE,
            largest=1,
            span=12,
            optional=NOT_EVERY_GPU,
        ),
    ),
)

FAULTS = Row(
    "Memory and links",
    (
        graph(
            "Uncorrected ECC errors",
            "Since the driver was loaded. Above 0: drain the GPU and reset it.",
            Job.GPU,
            (
                "sum by (host, gpu) (gpu_ecc_errors_total"
                f'{{error="uncorrected", scope="volatile", {HOST}}})',
                GPU,
            ),
            thresholds=(critical(1),),
            optional="these GPUs have no ECC, or it is off",
        ),
        graph(
            "Rows remapped",
            "Rows of memory replaced by spare ones, in the GPU's life.",
            Job.GPU,
            (f"sum by (host, gpu, cause) (gpu_remapped_rows{{{HOST}}})", GPU + " {{cause}}"),
            unit=COUNT,
            optional="only GPUs since Ampere remap rows",
        ),
        graph(
            "NVLink errors",
            "In each interval, over all links of a GPU.",
            Job.GPU,
            (
                "sum by (host, gpu, error) "
                f"(increase(gpu_nvlink_errors_total{{{HOST}}}[$__rate_interval]))",
                GPU + " {{error}}",
            ),
            thresholds=(warning(1),),
            optional="these GPUs have no NVLink",
        ),
    ),
)

GPU_DASHBOARD = Dashboard(
    "gpu",
    "GPUs",
    "Does each GPU answer, how hot and how busy is it, and which one is about to fail?",
    (FIRST, LOAD, HEAT, FAULTS),
)
