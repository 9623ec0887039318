"""From a bare GPU host to a loaded driver, and a second run, beside a person with plain apt."""

from __future__ import annotations

import subprocess
from functools import partial

import pytest
from gpu_host import GpuHost, fresh
from results import median_seconds, write_result
from stack import Lab

from ops.places import ROOT

pytestmark = pytest.mark.bench

LAB = "bench-gpu"
IMAGE = "ubuntu-24.04-facade"
TIMES = 3
VERSION = "580.178.04"
INSTALL = (
    "install nvidia-headless-no-dkms-580-server-open linux-modules-nvidia-580-server-open-generic "
    "nvidia-utils-580-server"
)
NO_NOUVEAU = "printf 'blacklist nouveau\\n' > /etc/modprobe.d/no-nouveau.conf"


def lab(*words: str) -> None:
    command = ["ops", "lab", *words, "--name", LAB]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def by_role(host: GpuHost) -> None:
    run = host.play()
    assert run.status == 0, run.output[-4000:]


def by_hand(host: GpuHost) -> None:
    """What a guide tells a person to type."""
    host.reach_restricted()
    worked, said = host.apt(INSTALL)
    assert worked, said
    host.sh(f"{NO_NOUVEAU} && update-initramfs -u")
    host.reboot()


def test_a_bare_host_and_a_second_run_beside_plain_apt() -> None:
    lab("up", "--image", IMAGE, "--gpu", "H100:2")
    try:
        made = Lab(LAB, ROOT / "inventories" / f"lab-{LAB}", ["node1"])
        spent: dict[str, list[float]] = {"role": [], "hand": []}
        for _ in range(TIMES):
            for name, act in (("hand", by_hand), ("role", by_role)):
                host = fresh(made)
                spent[name].append(median_seconds(partial(act, host), times=1))
                assert host.loaded == VERSION
        role, hand = (sorted(spent[name])[TIMES // 2] for name in ("role", "hand"))
        again = median_seconds(lambda: by_role(host), TIMES)
        without = median_seconds(lambda: host.play(tags="none"), TIMES)
        asked = median_seconds(lambda: host.apt(INSTALL), TIMES)
    finally:
        lab("down")
    write_result(
        "driver",
        "The GPU layer's speed",
        ("from, to", "role nvidia_driver", "by hand", "role / hand"),
        [
            ("bare host, loaded driver", f"{role:.1f} s", f"{hand:.1f} s", f"{role / hand:.2f}"),
            (
                "second run",
                f"{again:.1f} s ({again - without:.1f} s over a run of preflight alone)",
                f"{asked:.1f} s",
                f"{again / asked:.2f}",
            ),
        ],
        f"Ubuntu 24.04's packages on a lab host with two simulated H100; medians of {TIMES}; the "
        "reboot that nouveau makes needed is within. By hand: the same packages by apt-get over "
        "SSH, a blacklist, the initramfs and a reboot; the second time the same apt-get. The role "
        "also judges the host, pins, keeps a record and proves the loaded version. The packages "
        "are the mirror's and small: a real driver adds its download and unpacking to both.",
    )
