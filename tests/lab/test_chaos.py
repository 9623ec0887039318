"""`ops chaos` on bare hosts: a fault is there, ends, and outlives neither its time nor its lab."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from stack import Lab, until

from ops.chaos import keeper, network, record
from ops.lab import power
from ops.lab.fleet_plan import require_plan

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(600)]

FOLDER = "/srv/data"
BOOT = "systemctl show -P UserspaceTimestamp"
UNIT = "[Service]\\nExecStart=/bin/sh -c \\x27while :; do {}; sleep 0.1; done\\x27\\n"


@pytest.fixture(scope="module")
def lab(labs: Callable[..., Lab]) -> Lab:
    return labs(2, "bookworm", purpose="chaos")


def serve(lab: Lab, host: str, name: str, does: str) -> None:
    """Have a host run a unit that does something ten times a second."""
    path = f"/etc/systemd/system/{name}.service"
    text = UNIT.format(does)
    lab.ssh(host, f"echo -e '{text}' >{path}; systemctl daemon-reload; systemctl start {name}")


def chaos(lab: Lab, *words: str, status: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        ["ops", "chaos", *words, "--json", "-i", str(lab.inventory)],
        cwd=lab.checkout, env=lab.environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return found | {"stderr": done.stderr}


def now(lab: Lab) -> list[str]:
    return [f"{found['fault']} {found['target']}" for found in chaos(lab, "list")["now"]]


def reaches(lab: Lab, host: str, other: str) -> bool:
    return lab.ssh(host, f"ping -c1 -W1 {other} >/dev/null && echo yes", check=False) == "yes"


def test_a_folder_is_filled_survives_a_power_cut_and_comes_back_whole(lab: Lab) -> None:
    lab.ssh("node1", f"mkdir -p {FOLDER}; echo kept >{FOLDER}/before")
    serve(lab, "node1", "writer", f"exec 3>>{FOLDER}/log; date >&3")
    chaos(lab, "inject", "disk-full", f"node1:{FOLDER}")
    assert "No space left" in lab.ssh("node1", f"(echo more >{FOLDER}/more) 2>&1", check=False)
    boot = lab.ssh("node1", BOOT)
    chaos(lab, "inject", "power-cut", "node1")
    until(lambda: lab.ssh("node1", BOOT, check=False) not in ("", boot), 60)
    assert lab.ssh("node1", f"cat {FOLDER}/before; mountpoint -q {FOLDER} && echo small") == (
        "kept\nsmall"
    )
    chaos(lab, "end", "disk-full")
    assert lab.ssh("node1", f"cd {FOLDER}; ls before log; cat before; echo x >more") == (
        "before\nlog\nkept"
    )
    left = "ls -A /var/lib/rackhand-chaos; ls /etc/systemd/system | grep chaos"
    assert lab.ssh("node1", f"mountpoint {FOLDER}; {left}", check=False).splitlines() == [
        f"{FOLDER} is not a mountpoint"
    ]


def test_a_cut_ends_at_its_time_though_whoever_made_it_is_gone(lab: Lab) -> None:
    chaos(lab, "inject", "net-cut", "node1:node2", "--for", "8")
    assert not reaches(lab, "node1", "node2")
    assert reaches(lab, "node1", "outside"), "only the two are apart"
    until(lambda: now(lab) == [], 20)
    assert reaches(lab, "node1", "node2")


def test_what_is_lost_and_late_is_so_on_the_wire(lab: Lab) -> None:
    chaos(lab, "inject", "net-loss", "node1:node2", "--amount", "60")
    told = lab.ssh("node1", "ping -c40 -i0.05 -W1 node2 | grep received", check=False)
    assert 0 < int(told.split(",")[1].split()[0]) < 40, told
    chaos(lab, "end", "net-loss")
    said = chaos(lab, "inject", "net-delay", "node1", "--amount", "200")["said"]
    assert said in ("netem", "tbf")
    # Full packets one upon another: even where a narrow link stands for the delay they wait.
    took = "ping -c20 -i0.05 -s1400 node1 | tail -1 | cut -d/ -f6"
    assert float(lab.ssh("node2", took)) > 150
    chaos(lab, "end", "net-delay")
    assert float(lab.ssh("node2", took)) < 50


def test_a_unit_hangs_and_goes_on_and_a_pattern_that_fits_none_is_told(lab: Lab) -> None:
    serve(lab, "node2", "beat", "date +%%N >/run/beat")
    assert chaos(lab, "inject", "hang", "node2:bea*")["units"] == ["beat.service"]
    chaos(lab, "inject", "hang", "node2:bea*")
    still = "cat /run/beat; sleep 0.5; cat /run/beat"
    assert len(set(lab.ssh("node2", still).split())) == 1
    assert now(lab) == ["hang node2:bea*"]
    chaos(lab, "end", "hang")
    assert len(set(lab.ssh("node2", still).split())) == 2
    refused = chaos(lab, "inject", "kill", "node2:nothing-like-it*", status=1)
    assert "no unit" in refused["stderr"]


def test_a_host_stays_off_until_its_time_and_a_clock_is_wrong_for_a_unit_alone(lab: Lab) -> None:
    plan = require_plan(lab.name)
    chaos(lab, "inject", "power-off", "node2", "--for", "6")
    assert not power.answers(plan, "node2")
    until(lambda: power.answers(plan, "node2"), 40)
    serve(lab, "node1", "clock", "date +%%s >/run/told")
    chaos(lab, "inject", "clock", "node1:clock.service", "--amount", "86400")
    ahead = "sleep 0.5; echo $(( $(cat /run/told) - $(date +%s) ))"
    assert abs(int(lab.ssh("node1", ahead)) - 86400) < 5
    chaos(lab, "end", "clock")
    assert abs(int(lab.ssh("node1", ahead))) < 5


def test_the_lab_takes_its_faults_along(lab: Lab) -> None:
    plan = require_plan(lab.name)
    chaos(lab, "inject", "net-cut", "node2", "--for", "600")
    assert keeper.group(lab.name).pids()
    subprocess.run(["ops", "lab", "down", "--name", lab.name], check=True, timeout=120)
    assert not keeper.group(lab.name).path.exists()
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert network.table(plan) not in tables.stdout
    assert record.load(lab.name) == []
