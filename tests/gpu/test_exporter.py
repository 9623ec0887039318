"""The exporter on a real GPU: `make test-gpu`, on a host that has one, with PyTorch.

It writes what it saw to docs/results/<date>-real-gpu.md, and the page, without what names the
board, to tests/unit/gpu_exporter/pages/, where the simulator is held against it.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from on_gpu import ON_GPU, note
from results import add_to_result
from scraping import HEADINGS, IDLE_S, SCRAPES, cells, measure, running, scrape

from ops.places import ROOT
from tests.ports import free_port
from tests.unit.gpu_exporter.scraped import Scrape, parse

pytestmark = pytest.mark.gpu

PAGES = ROOT / "tests/unit/gpu_exporter/pages"
GIB = 1 << 30
MIB = 1 << 20
SOON_S = 15.0
FIELDS = {
    "temperature.gpu": ("gpu_temperature_celsius", {"sensor": "gpu"}, 1.0, 3.0),
    "temperature.memory": ("gpu_temperature_celsius", {"sensor": "memory"}, 1.0, 3.0),
    "memory.total": ("gpu_memory_total_bytes", {}, 1 / MIB, 1.0),
    "memory.used": ("gpu_memory_used_bytes", {}, 1 / MIB, 8.0),
    "memory.reserved": ("gpu_memory_reserved_bytes", {}, 1 / MIB, 8.0),
    "power.draw": ("gpu_power_watts", {}, 1.0, 15.0),
    "enforced.power.limit": ("gpu_power_limit_watts", {"limit": "enforced"}, 1.0, 0.5),
    "clocks.max.sm": ("gpu_clock_max_hertz", {"clock": "sm"}, 1e-6, 0.5),
    "clocks.max.memory": ("gpu_clock_max_hertz", {"clock": "memory"}, 1e-6, 0.5),
    "pcie.link.width.current": ("gpu_pcie_link_width", {}, 1.0, 0.0),
    "ecc.errors.uncorrected.volatile.total":
        ("gpu_ecc_errors_total", {"error": "uncorrected", "scope": "volatile"}, 1.0, 0.0),
}  # fmt: skip
"""Field of nvidia-smi: our metric, its labels, ours to its unit, the difference that is none."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    at = free_port()
    with running([sys.executable, "-m", "ops.gpu_exporter", "--port", str(at)], None, at):
        yield at


@contextmanager
def process(what: str) -> Iterator[subprocess.Popen[str]]:
    """A process that does something to the GPU, from its word on until the block ends."""
    with subprocess.Popen(
        [sys.executable, str(ON_GPU), what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None and child.stdout.readline(), f"{what} did not start"
        try:
            yield child
        finally:
            child.kill()


def page(port: int) -> Scrape:
    return parse(scrape(port))


def until(port: int, holds: object) -> Scrape:
    end = time.monotonic() + SOON_S
    while not holds(found := page(port)):  # type: ignore[operator]
        assert time.monotonic() < end, found.text
        time.sleep(0.2)
    return found


def test_the_page_says_what_nvidia_smi_says(port: int) -> None:
    found = page(port)
    said = subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits", "-i=0"],
        capture_output=True, text=True, check=True,
    ).stdout.strip().split(", ")  # fmt: skip
    apart, told = [], []
    for (field, (name, labels, unit, most)), text in zip(FIELDS.items(), said, strict=True):
        ours = [value * unit for value in found.values(name, gpu="0", **labels)]
        try:
            theirs = float(text)
        except ValueError:  # [N/A]
            apart += [f"{field}: {text}, ours {ours}"] if ours else []
            told.append(f"{field} {text}, absent")
            continue
        told.append(f"{field} {theirs:g}, {ours[0]:g}" if ours else f"{field} {theirs:g}, absent")
        if not ours or abs(ours[0] - theirs) > most:
            apart.append(told[-1])
    note("nvidia-smi, our page", "; ".join(told))
    assert apart == []


def test_every_signal_can_be_read_and_xids_are_listened_for(port: int) -> None:
    found = page(port)
    failed = [
        labels["signal"] for labels, value in found.samples.get("gpu_signal_failed", []) if value
    ]
    watch = found.values("gpu_xid_watch_up", gpu="0")
    count = sum(len(rows) for rows in found.samples.values())
    note(
        "the page of an idle GPU",
        f"{count} samples, {len(found.samples)} names; failed signals: {failed or 'none'}; "
        f"XIDs listened for: {watch or 'no such events here'}",
    )
    PAGES.mkdir(exist_ok=True)
    (PAGES / "real-gpu.txt").write_text(without_names(found.text), encoding="utf-8")
    assert found.condition("0") == "ok"
    assert failed == []


def without_names(text: str) -> str:
    """Take out what names one board: UUIDs, serial numbers."""
    text = re.sub(r"GPU-[0-9a-f-]{36}", "GPU-00000000-0000-0000-0000-000000000000", text)
    return re.sub(r'serial="\d+"', 'serial="0000000000000"', text)


def test_a_process_is_seen_with_its_memory_and_no_unit(port: int) -> None:
    with process("hold") as child:
        found = until(
            port, lambda found: sum(found.values("gpu_process_memory_bytes", gpu="0")) > 4 * GIB
        )
        rows = found.samples["gpu_process_memory_bytes"]
        orphaned = found("gpu_orphaned_memory_bytes", gpu="0", cause="unknown_unit")
        note(
            "a process that holds 4 GiB",
            f"{[(dict(labels), round(value / MIB)) for labels, value in rows]}; orphaned "
            f"{orphaned / MIB:.0f} MiB",
        )
        pids = {labels["pid"] for labels, _ in rows}
        assert str(child.pid) in pids
        assert orphaned > 4 * GIB
    until(port, lambda found: not found.values("gpu_process_memory_bytes", gpu="0"))


def test_load_shows_as_use_power_and_heat(port: int) -> None:
    before = page(port)
    with process("load"):
        time.sleep(8)
        found = page(port)
    names = ("gpu_utilization_ratio", "gpu_power_watts")
    rows = [f"{name} {before(name, gpu='0'):g} to {found(name, gpu='0'):g}" for name in names]
    heat = [each("gpu_temperature_celsius", gpu="0", sensor="gpu") for each in (before, found)]
    reasons = [labels["reason"] for labels, on in found.samples["gpu_throttle_reason"] if on]
    note(
        "8 s of load",
        f"{'; '.join(rows)}; {heat[0]:g} to {heat[1]:g} °C; clocks held down by: "
        f"{reasons or 'nothing'}",
    )
    assert found("gpu_utilization_ratio", gpu="0") > 0.5
    assert found("gpu_power_watts", gpu="0") > before("gpu_power_watts", gpu="0")
    assert heat[1] > heat[0]


def test_an_xid_is_counted_once(port: int) -> None:
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not here")
    if not page(port).values("gpu_xid_watch_up", gpu="0"):
        pytest.skip("this GPU has no XID events")

    def xids(found: Scrape) -> dict[str, float]:
        rows = found.samples["gpu_xid_errors_total"]
        return {f"{row['xid']} ({row['class']})": value for row, value in rows if value}

    before = xids(page(port))
    done = subprocess.run([sys.executable, str(ON_GPU), "wild"], capture_output=True, text=True)
    assert done.returncode != 0
    end = time.monotonic() + SOON_S
    while (after := xids(page(port))) == before and time.monotonic() < end:
        time.sleep(0.2)
    kernel = subprocess.run(["dmesg"], capture_output=True, text=True).stdout
    lines = [line for line in kernel.splitlines() if "Xid" in line]
    note(
        "a kernel that writes where nobody may",
        f"{done.stderr.strip().splitlines()[-1][:120]}; counted {after or 'nothing'}; "
        f"kernel log: {lines[-1:] or 'nothing to read'}",
    )
    assert sum(after.values()) == sum(before.values()) + 1


def test_pytorch_says_out_of_memory_in_these_words() -> None:
    done = subprocess.run([sys.executable, str(ON_GPU), "too_much"], capture_output=True, text=True)
    words = done.stderr.strip().splitlines()[-1]
    note("more memory than there is", words)
    assert "CUDA out of memory" in words


@pytest.mark.parametrize("name", ["gpu-exporter", "nvitop-exporter", "nvidia-smi -q"])
def test_what_a_scrape_costs(name: str) -> None:
    if name == "nvitop-exporter" and importlib.util.find_spec("nvitop_exporter") is None:
        pytest.skip("nvitop-exporter is not here")
    at = free_port()
    command = {
        "gpu-exporter": ["-m", "ops.gpu_exporter", "--port", str(at)],
        "nvitop-exporter": ["-m", "nvitop_exporter", "--port", str(at)],
        "nvidia-smi -q": [str(ROOT / "tests/bench/smi_exporter.py"), str(at), "nvidia-smi"],
    }[name]
    with running([sys.executable, *command], None, at) as pid:
        each = measure(pid, at)
    add_to_result(
        "real-gpu-exporter",
        "The GPU exporter on a real GPU",
        HEADINGS,
        [(name, *cells(each))],
        f"{SCRAPES} scrapes, one a second, after {IDLE_S:.0f} s without; CPU per sample is that of "
        "a second with a scrape. `nvidia-smi -q` starts anew at every scrape; nvitop-exporter "
        "reads in the background.",
    )
    assert each.samples > 0
