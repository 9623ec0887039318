"""The GPUs that a simulated machine can have, and how each reads while it is healthy and idle."""

from __future__ import annotations

import uuid
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from ops.errors import InputError
from ops.lab.gpu.description import MOST_GPUS, Gpu, Machine
from ops.lab.gpu.keys import readings

CATALOGUE = Path(__file__).with_name("catalogue.yml")
NAMESPACE = uuid.UUID("5a7f9d4e-6f1c-4c39-9a5f-8f0b1d2c3e4a")  # of simulated GPUs' UUIDs
ALIASES = {"A100": "A100-80", "V100": "V100-32", "H100-SXM": "H100", "RTXPRO6000": "RTX-PRO-6000"}
FULL_BOARD = 8  # GPUs of a board that NVSwitches join
HBM_BUS = 2048  # bits; a wider memory bus than this is HBM
REMAP_BANKS = {"hopper": 2560}  # groups of spare rows, as a real H100 counts them
REMAP_BANKS_BEFORE = 640  # as an A100 does
ROW_REMAPPING = ("ampere", "ada", "hopper", "blackwell")  # older ones retire pages
Triple = tuple[int, int, int]


class Model(BaseModel):
    """A product. Units: MiB, W, MHz, °C, MB/s, bits.

    Attributes:
        power_w: Lowest limit, default limit, highest limit.
        thresholds: Shutdown, slowdown, memory (None: no sensor), highest working temperature.
        clocks: Highest graphics and memory clock.
        video_mhz: Highest clock of the video engines; None: 0.9 of the graphics clock.
        pcie: Highest generation of the link.
        fans: Fans on the board; none on passive ones.
        mig: Compute slices, and the memory in GB that profile names divide.
        nvlink: Links, NVML's number of the version, speed of one link.
        fabric: The GPU joins an NVSwitch fabric where there is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    device_id: str
    architecture: str
    compute: str
    memory_mib: int
    multiprocessors: int
    cores: int
    bus: int
    power_w: Triple
    thresholds: tuple[int, int, int | None, int]
    clocks: tuple[int, int]
    video_mhz: int | None = None
    pcie: int
    ecc: bool = False
    fans: int = 0
    mig: tuple[int, int] | None = None
    nvlink: Triple | None = None
    fabric: bool = False

    @property
    def hbm(self) -> bool:
        """Stacked memory: it has a sensor of its own and keeps its clock while idle."""
        return self.bus > HBM_BUS

    @property
    def bar1_mib(self) -> int:
        """Data centre boards map all memory: the next power of two."""
        small = self.architecture == "turing" or "GeForce" in self.name
        return 256 if small else 1 << (self.memory_mib - 1).bit_length()


@cache
def models() -> dict[str, Model]:
    """Every product, by the name that `--gpu` takes."""
    return {key: Model(**values) for key, values in yaml.safe_load(CATALOGUE.read_text()).items()}


def find_model(name: str) -> Model:
    """The product of a name such as `H100` or `a100-40-pcie`; case does not matter.

    Raises:
        InputError: The catalogue has no such product.
    """
    known = {key.lower(): model for key, model in models().items()}
    known |= {alias.lower(): models()[key] for alias, key in ALIASES.items()}
    if name.lower() not in known:
        raise InputError(f"No GPU is called {name!r}", cure=f"known: {', '.join(models())}")
    return known[name.lower()]


def parse_gpus(text: str, host: str = "") -> Machine:
    """The healthy machine behind `H100:2` or `H100:1,L4:2`.

    Args:
        text: Products and how many of each; at most eight in all.
        host: Gives each host's GPUs UUIDs and serial numbers of their own, the same each time.

    Raises:
        InputError: Unknown product, or a number that no machine has.
    """
    wanted: list[Model] = []
    for word in text.split(","):
        name, colon, count = word.strip().partition(":")
        if colon and not (count.isdecimal() and int(count)):
            raise InputError(f"{word!r} is no number of GPUs", cure="H100:2, or H100:1,L4:2")
        wanted += [find_model(name)] * int(count or 1)
    if len(wanted) > MOST_GPUS:
        raise InputError(f"{text} are {len(wanted)} GPUs", cure=f"at most {MOST_GPUS}")
    nvswitch = len(wanted) == FULL_BOARD and all(model.fabric for model in wanted)
    gpus = (healthy(model, index, host, nvswitch) for index, model in enumerate(wanted))
    return Machine(tuple(gpus), nvswitch=nvswitch)


def healthy(model: Model, index: int, host: str = "", nvswitch: bool = False) -> Gpu:
    """A GPU without faults, idle, as it reads after a boot.

    Args:
        model: The product.
        index: Its place; gives it its PCI address and minor number.
        host: See parse_gpus.
        nvswitch: A fabric manager has joined it to its fabric.
    """
    identity = uuid.uuid5(NAMESPACE, f"{host}/{index}/{model.name}")
    texts = {
        "name": model.name,
        "uuid": f"GPU-{identity}",
        "pci": f"0000:{index + 1:02x}:00.0",
        "device_id": model.device_id,
        "architecture": model.architecture,
        "serial": str(identity.int % 10**13).zfill(13) if model.ecc else "",
        "board_part_number": "900-SIMULATED-000",
        "vbios_version": "00.00.00.00.01",
        "compute_capability": model.compute,
    }
    values = {
        **_hardware(model, index),
        **_idle(model),
        **_memory_errors(model),
        **_links(model, nvswitch),
    }
    return Gpu(
        texts={key: text for key, text in texts.items() if text},
        values={key: values.get(key) for key in readings()},
    )


def repaired(gpu: Gpu, index: int, nvswitch: bool = False) -> Gpu:
    """The same GPU, healthy again: every reading as after a boot, no processes, MIG as it is off.

    Raises:
        InputError: Its name is not in the catalogue.
    """
    for model in models().values():
        if model.name == gpu.name:
            fresh = healthy(model, index, nvswitch=nvswitch)
            return Gpu(gpu.texts, {**fresh.values, "minor_number": gpu.values.get("minor_number")})
    raise InputError(f"{gpu.name} is not in the catalogue", place=str(CATALOGUE))


def _hardware(model: Model, index: int) -> dict[str, int | None]:
    lowest, default, highest = (watts * 1000 for watts in model.power_w)
    shutdown, slowdown, memory, working = model.thresholds
    graphics, memory_clock = model.clocks
    slices, gigabytes = model.mig or (None, None)
    mode = None if model.mig is None else 0
    return {
        "minor_number": index,
        "numa_node": 0,
        "memory_mib": model.memory_mib,
        "memory_reserved_mib": model.memory_mib // 150,
        "memory_bus_bits": model.bus,
        "bar1_mib": model.bar1_mib,
        "bar1_used_mib": 1,
        "multiprocessor_count": model.multiprocessors,
        "core_count": model.cores,
        "temperature_shutdown": shutdown,
        "temperature_slowdown": slowdown,
        "temperature_memory_max": memory,
        "temperature_gpu_max": working,
        "clock_max_graphics_mhz": graphics,
        "clock_max_sm_mhz": graphics,
        "clock_max_memory_mhz": memory_clock,
        "clock_max_video_mhz": model.video_mhz or graphics * 9 // 10,
        "clock_application_graphics_mhz": graphics if model.ecc else None,
        "clock_application_memory_mhz": memory_clock if model.ecc else None,
        "power_limit_mw": default,
        "power_default_limit_mw": default,
        "power_min_limit_mw": lowest,
        "power_max_limit_mw": highest,
        "pcie_generation_max": model.pcie,
        "pcie_width_max": 16,
        "mig_mode": mode,
        "mig_mode_pending": mode,
        "mig_slices": slices,
        "mig_memory_gb": gigabytes,
    }


def _idle(model: Model) -> dict[str, int | None]:
    modern = 0 if model.architecture in ROW_REMAPPING else None
    return {
        "memory_used_mib": 0,
        "temperature": 34,
        "temperature_memory": 38 if model.hbm else None,
        "utilization_gpu": 0,
        "utilization_memory": 0,
        "utilization_encoder": 0,
        "utilization_decoder": 0,
        "utilization_jpeg": modern,
        "utilization_ofa": modern,
        "clock_graphics_mhz": 345,
        "clock_sm_mhz": 345,
        "clock_memory_mhz": model.clocks[1] if model.hbm else 405,
        "clock_video_mhz": 765,
        "clocks_event_reasons": 1,
        "violation_power_ns": 0,
        "violation_thermal_ns": 0,
        "performance_state": 0 if model.hbm else 8,
        "power_usage_mw": model.power_w[1] * 100,
        "energy_mj": 0,
        "fan_count": model.fans,
        "fan_speed": 30 if model.fans else None,
        "persistence_mode": 0,
        "compute_mode": 0,
        "display_active": 0,
        "pcie_generation": model.pcie if model.hbm else 1,
        "pcie_width": 16,
        "pcie_tx_kbps": 0,
        "pcie_rx_kbps": 0,
        "pcie_tx_bytes": modern,
        "pcie_rx_bytes": modern,
        "pcie_replays": 0,
        "recovery_action": 0,
    }


def _memory_errors(model: Model) -> dict[str, int | None]:
    if not model.ecc:
        return {}
    values: dict[str, int | None] = {"ecc_mode": 1, "ecc_mode_pending": 1}
    values |= dict.fromkeys(("ecc_corrected", "ecc_uncorrected", "ecc_corrected_aggregate"), 0)
    values |= dict.fromkeys(("ecc_uncorrected_aggregate", "ecc_uncorrected_sram"), 0)
    if model.architecture not in ROW_REMAPPING:
        kinds = ("corrected", "uncorrected", "pending")
        return values | {f"retired_pages_{kind}": 0 for kind in kinds}
    values |= {f"remapped_rows_{k}": 0 for k in ("corrected", "uncorrected", "pending", "failure")}
    values |= {f"remap_banks_{kind}": 0 for kind in ("high", "partial", "low", "none")}
    banks = REMAP_BANKS.get(model.architecture, REMAP_BANKS_BEFORE)
    return values | {"remap_banks_max": banks, "ecc_sram_threshold_exceeded": 0}


def _links(model: Model, nvswitch: bool) -> dict[str, int | None]:
    if model.nvlink is None:
        return {}
    count, version, speed = model.nvlink
    return {
        "nvlink_count": count,
        "nvlink_version": version,
        "nvlink_speed_mbps": speed,
        "nvlink_down": 0,
        "nvlink_replay_errors": 0,
        "nvlink_recovery_errors": 0,
        "nvlink_crc_errors": 0,
        "fabric_state": (3 if nvswitch else 0) if model.fabric else None,
        "fabric_health_mask": 0 if model.fabric else None,
    }
