"""The GPU exporter as its role leaves it on a host: sandboxed, truthful, and in time."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest
from gpu_host import GpuHost, fresh
from stack import Lab

from tests.unit.gpu_exporter.scraped import Scrape, parse

pytestmark = pytest.mark.lab

PAGE = "curl -sf --max-time 8 --retry 20 --retry-delay 1 --retry-connrefused -w '|%{time_total}'"
ADDRESS = "http://127.0.0.1:9835/metrics"
TAGS = "nvidia_driver,gpu_exporter"
SOON_S = 20.0
MIB = 1 << 20


class Host(GpuHost):
    """A host with the exporter."""

    def scrape(self) -> Scrape:
        text, _, seconds = self.sh(f"{PAGE} {ADDRESS}").rpartition("|")
        return parse(text, float(seconds))

    def until(self, holds: Callable[[Scrape], bool]) -> Scrape:
        end = time.monotonic() + SOON_S
        while not holds(page := self.scrape()):
            assert time.monotonic() < end, page.text
            time.sleep(0.5)
        return page

    def gpu(self, *words: str) -> None:
        self.lab_command("gpu", *words)

    def verify(self) -> tuple[int, str]:
        command = ["ops", "verify", "-i", str(self.lab.inventory), "gpu_exporter"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def host(labs: Callable[..., Lab]) -> Host:
    lab = labs(1, "ubuntu-24.04-facade", "H100:2")
    bare = fresh(lab)
    run = bare.play("--check", "--diff", tags=TAGS)
    assert run.status == 0, run.output[-6000:]
    assert "/opt/gpu_exporter/releases/" in run.output
    run = bare.play(tags=TAGS)
    assert run.status == 0, run.output[-6000:]
    return Host(bare.lab, bare.name)


@pytest.fixture(autouse=True)
def _healed(host: Host) -> None:
    host.gpu("reset", host.name)


def test_a_second_run_changes_nothing(host: Host) -> None:
    run = host.play("--diff", tags=TAGS)
    assert (run.status, run.total("changed")) == (0, 0), run.output[-3000:]


def test_it_sees_the_gpus_from_a_sandbox_without_root(host: Host) -> None:
    page = host.until(lambda page: page.values("gpu_xid_watch_up") == [1.0, 1.0])
    assert (page("gpu_driver_up"), page("gpu_expected"), page("gpu_present")) == (1, 2, 2)
    assert page.labels("gpu_driver_info")["module_version"] == host.loaded
    pid = host.sh("systemctl show -p MainPID --value gpu_exporter")
    assert host.sh(f"stat -c %U /proc/{pid}") != "root"
    said = host.sh("systemd-analyze security gpu_exporter --no-pager | tail -1")
    assert float(said.split()[-3]) < 2.5, said
    assert host.sh("ss -Hltn 'sport = 9835' | awk '{print $4}'") == "127.0.0.1:9835"


def test_verify_proves_it_and_says_what_is_wrong(host: Host) -> None:
    status, said = host.verify()
    assert status == 0, said
    host.gpu("set", host.name, "1", "state=lost")
    status, said = host.verify()
    assert status == 1
    assert "1 of 2 GPUs answer" in said


def test_processes_have_the_unit_and_slot_that_systemd_says(host: Host) -> None:
    host.sh("systemd-run -q --unit=engine@qwen-3-blue.service --collect sleep 600")
    engine = host.sh("systemctl show -p MainPID --value engine@qwen-3-blue.service")
    stray = host.sh("setsid -f sleep 601 </dev/null >/dev/null 2>&1; pgrep -nf '^sleep 601'")
    try:
        for process in (f"{engine}:9000:vllm", f"{stray}:2000:sleep", "999999:500:gone"):
            host.gpu("set", host.name, "0", f"process={process}")
        page = host.scrape()
    finally:
        host.sh(f"systemctl stop engine@qwen-3-blue.service; kill {stray}")
    owner = page.labels("gpu_process_memory_bytes", pid=engine)
    assert owner["unit"] == "engine@qwen-3-blue.service"
    assert (owner["model"], owner["slot"], owner["known"]) == ("qwen-3", "blue", "true")
    assert owner["process"] == "sleep"
    assert page.labels("gpu_process_memory_bytes", pid=stray)["known"] == "false"
    rows = page.samples["gpu_orphaned_memory_bytes"]
    orphaned = {row["cause"]: value / MIB for row, value in rows if row["gpu"] == "0"}
    assert orphaned == {"unknown_unit": 2000, "dead_process": 500, "no_process": 0}


def test_an_xid_is_counted_once_and_named_in_the_journal(host: Host) -> None:
    before = host.scrape()("gpu_xid_errors_total", gpu="1", xid="48")
    host.gpu("xid", host.name, "1", "48")
    page = host.until(lambda page: page("gpu_xid_errors_total", gpu="1", xid="48") > before)
    time.sleep(1.5)
    assert host.scrape()("gpu_xid_errors_total", gpu="1", xid="48") == before + 1
    assert page("gpu_ecc_errors_total", gpu="1", error="uncorrected", scope="volatile") == 1
    assert "XID 48, Double bit ECC error: reset" in host.sh("journalctl -u gpu_exporter --no-pager")


def test_a_gpu_that_hangs_is_marked_within_the_deadline(host: Host) -> None:
    host.gpu("set", host.name, "0", "state=hang")
    page = host.scrape()
    assert page.seconds < 4
    assert (page.condition("0"), page.condition("1")) == ("hung", "ok")
    assert page("gpu_stale", gpu="0") == 1
    assert host.scrape().seconds < 1
    host.gpu("reset", host.name)
    host.until(lambda page: page.condition("0") == "ok")
    said = host.sh("journalctl -u gpu_exporter --no-pager")
    assert "GPU 0 does not answer: the driver hangs" in said
    assert "GPU 0 answers again" in said


def test_a_gpu_that_is_gone_after_a_reboot_is_missing_by_name(host: Host) -> None:
    uuid = host.scrape().labels("gpu_info", gpu="1")["uuid"]
    conf = "/etc/rackhand-simulator/gpus.conf"
    host.sh(f"cp {conf} {conf}.whole; sed -i '/^\\[gpu 1\\]/,$d' {conf}")
    host.reboot()
    page = host.until(lambda page: page("gpu_driver_up") == 1)
    assert (page("gpu_expected"), page("gpu_present")) == (2, 1)
    assert page.condition("1") == "missing"
    assert page.labels("gpu_info", gpu="1")["uuid"] == uuid
    host.sh(f"mv {conf}.whole {conf}; systemctl restart gpu_exporter")
    host.until(lambda page: page("gpu_present") == 2)
