"""The page in the names of NVIDIA's dcgm-exporter, for dashboards and rules that know those.

Names, units and labels are those of its default-counters.csv (github.com/NVIDIA/dcgm-exporter),
with the counters that it has commented out; `DCGM_FI_PROF_*` needs DCGM's own profiling.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.core import Metric as Family

from ops.gpu_exporter.metric import Metric
from ops.gpu_exporter.signals import (
    clocks,
    ecc,
    links,
    memory,
    pcie,
    power,
    rows,
    temperature,
    throttling,
    utilization,
)

if TYPE_CHECKING:
    from ops.gpu_exporter.page import Row

MEBI = 1 / (1 << 20)
MEGA = 1e-6
MILLI = 1e3
MICRO = 1e6
PERCENT = 100


class Name(NamedTuple):
    """A name of dcgm-exporter, and the metric of ours behind it, with its labels."""

    name: str
    metric: Metric
    labels: tuple[str, ...] = ()
    scale: float = 1
    unit: str = ""

    @property
    def help(self) -> str:
        """The metric's own, with the unit that this name has."""
        return self.metric.help + (f" In {self.unit}." if self.unit else "")


NAMES = (
    Name("SM_CLOCK", clocks.NOW, ("sm",), MEGA, "MHz"),
    Name("MEM_CLOCK", clocks.NOW, ("memory",), MEGA, "MHz"),
    Name("GPU_TEMP", temperature.CELSIUS, ("gpu",)),
    Name("MEMORY_TEMP", temperature.CELSIUS, ("memory",)),
    Name("SLOWDOWN_TEMP", temperature.THRESHOLD, ("slowdown",)),
    Name("SHUTDOWN_TEMP", temperature.THRESHOLD, ("shutdown",)),
    Name("POWER_USAGE", power.DRAW),
    Name("ENFORCED_POWER_LIMIT", power.LIMIT, ("enforced",)),
    Name("TOTAL_ENERGY_CONSUMPTION", power.ENERGY, (), MILLI, "mJ"),
    Name("PCIE_REPLAY_COUNTER", pcie.REPLAYS),
    Name("GPU_UTIL", utilization.GPU, (), PERCENT, "%"),
    Name("MEM_COPY_UTIL", utilization.MEMORY, (), PERCENT, "%"),
    Name("ENC_UTIL", utilization.ENGINE, ("encoder",), PERCENT, "%"),
    Name("DEC_UTIL", utilization.ENGINE, ("decoder",), PERCENT, "%"),
    Name("POWER_VIOLATION", throttling.SECONDS, ("power",), MICRO, "us"),
    Name("THERMAL_VIOLATION", throttling.SECONDS, ("thermal",), MICRO, "us"),
    Name("FB_TOTAL", memory.TOTAL, (), MEBI, "MiB"),
    Name("FB_FREE", memory.FREE, (), MEBI, "MiB"),
    Name("FB_USED", memory.USED, (), MEBI, "MiB"),
    Name("FB_RESERVED", memory.RESERVED, (), MEBI, "MiB"),
    Name("ECC_SBE_VOL_TOTAL", ecc.ERRORS, ("corrected", "volatile")),
    Name("ECC_DBE_VOL_TOTAL", ecc.ERRORS, ("uncorrected", "volatile")),
    Name("ECC_SBE_AGG_TOTAL", ecc.ERRORS, ("corrected", "aggregate")),
    Name("ECC_DBE_AGG_TOTAL", ecc.ERRORS, ("uncorrected", "aggregate")),
    Name("RETIRED_SBE", rows.PAGES, ("corrected",)),
    Name("RETIRED_DBE", rows.PAGES, ("uncorrected",)),
    Name("RETIRED_PENDING", rows.PAGES_PENDING),
    Name("CORRECTABLE_REMAPPED_ROWS", rows.ROWS, ("corrected",)),
    Name("UNCORRECTABLE_REMAPPED_ROWS", rows.ROWS, ("uncorrected",)),
    Name("ROW_REMAP_FAILURE", rows.FAILED),
    Name("NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", links.ERRORS, ("crc",)),
    Name("NVLINK_REPLAY_ERROR_COUNT_TOTAL", links.ERRORS, ("replay",)),
    Name("NVLINK_RECOVERY_ERROR_COUNT_TOTAL", links.ERRORS, ("recovery",)),
)
BY_SOURCE = {(each.metric, each.labels): each for each in NAMES}
PREFIX = "DCGM_FI_DEV_"
LABELS = (
    *("gpu", "UUID", "pci_bus_id", "device", "modelName", "Hostname"),
    "DCGM_FI_DRIVER_VERSION",
)


def families(page: Iterable[Row], driver_version: str) -> Iterator[Family]:
    """Our page's GPUs under those names.

    Args:
        page: GPUs with their samples.
        driver_version: For the label.
    """
    found: dict[str, Family] = {}
    last_xid = _family(found, "XID_ERRORS", "gauge", "Value of the last XID error encountered.")
    for row in page:
        labels = _labels(row, driver_version)
        for metric, value, extra in row.samples:
            if name := BY_SOURCE.get((metric, extra)):
                family = _family(found, name.name, name.metric.kind, name.help)
                family.add_sample(PREFIX + name.name, labels, value * name.scale)
        if row.gpu:
            last_xid.add_sample(f"{PREFIX}XID_ERRORS", labels, row.gpu.xids.latest)
    yield from (family for family in found.values() if family.samples)


def _family(found: dict[str, Family], name: str, kind: str, text: str) -> Family:
    """The family of a name; counters are untyped, for these names do not end with `_total`."""
    if name not in found:
        found[name] = Family(PREFIX + name, text, "unknown" if kind == "counter" else kind)
    return found[name]


def _labels(row: Row, driver_version: str) -> dict[str, str]:
    identity = row.identity
    values = (
        str(identity.index),
        identity.uuid,
        identity.pci_bus_id,
        f"nvidia{identity.index}",
        identity.name,
        platform.node(),
        driver_version,
    )
    return dict(zip(LABELS, values, strict=True))
