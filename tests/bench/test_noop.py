"""A second site.yml against the floor of SSH and against pyinfra on an equal no-op.

The engine is the stand-in: six real ones would not fit this machine's memory.
"""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from results import median_seconds, write_result
from stack import STAND_IN

from ops.fleet import Fleet, load
from ops.places import ROOT
from ops.remote import ssh_config

SIZES = (1, 3, 6)
TIMES = 3
PACKAGES = "nginx postgresql-1? redis-server certbot ssl-cert openssl ca-certificates libgomp1"
DESCRIBE = (
    f"dpkg-query -W -f '${{db:Status-Status}} ${{Package}}\\n' {PACKAGES} 2>/dev/null "
    "| awk '$1 == \"installed\" {print $2}'; echo --; "
    "grep -rlI 'Laid down by Rackhand' /etc /usr/local/bin 2>/dev/null | while read -r f; do "
    "stat -c '%n %U %G %a' \"$f\"; done; echo --; "
    "systemctl list-units --plain --no-legend 'engine@*' 'agent_app@*' 'redis-server@*' "
    "nginx.service postgresql.service certbot.timer | awk '{print $1}'"
)

pytestmark = pytest.mark.bench


def run(*words: str, **variables: str) -> str:
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **variables}
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def site(inventory: Path) -> str:
    return run("ansible-playbook", "-i", str(inventory), "playbooks/site.yml", "-e", STAND_IN)


class Floor:
    """Raw SSH on persistent connections, all hosts at once."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        config = folder / "ssh_config"
        config.write_text(ssh_config(fleet))
        control = ["-o", "ControlMaster=auto", "-o", f"ControlPath={folder}/%n"]
        self.ssh = ["ssh", "-F", str(config), *control, "-o", "ControlPersist=60s"]
        self.names = [host.name for host in fleet.hosts]

    def ask(self, name: str, command: str) -> str:
        return run(*self.ssh, name, command)

    def round_trip(self) -> None:
        running = [subprocess.Popen([*self.ssh, name, "true"]) for name in self.names]
        assert all(process.wait() == 0 for process in running)

    def close(self) -> None:
        for name in self.names:
            subprocess.run([*self.ssh, "-O", "exit", name], capture_output=True, check=False)


def describe(floor: Floor, folder: Path) -> dict[str, Any]:
    """What each host has that site.yml put there, with copies of the files."""
    state = {}
    for name in floor.names:
        packages, laid, units = floor.ask(name, DESCRIBE).split("--\n")
        files = {}
        for line in laid.splitlines():
            path, user, group, mode = line.rsplit(" ", 3)
            copy = folder / f"{name}-{len(files)}"
            copy.write_text(floor.ask(name, f"cat {path}"))
            files[path] = {"copy": str(copy), "user": user, "group": group, "mode": mode}
        state[name] = {"packages": packages.split(), "files": files, "units": units.split()}
    return state


def pyinfra_inventory(fleet: Fleet, folder: Path) -> Path:
    hosts = []
    for host in fleet.hosts:
        known = next(a for a in host.ssh_arguments if "UserKnownHostsFile" in a).split("=", 1)[1]
        data = {
            "ssh_hostname": host.address,
            "ssh_user": host.user,
            "ssh_key": host.key_file,
            "ssh_known_hosts_file": known,
        }
        hosts.append((host.name, data))
    path = folder / "inventory.py"
    path.write_text(f"hosts = {hosts!r}\n")
    return path


def measure(size: int, folder: Path) -> tuple[str, ...]:
    inventory = ROOT / "inventories" / f"lab-bench-{size}"
    fleet = load(inventory)
    site(inventory)
    recap = site(inventory)
    assert re.findall(r"changed=(\d+)", recap) == ["0"] * size
    tasks = max(int(count) for count in re.findall(r"ok=(\d+)", recap))
    ours = median_seconds(lambda: site(inventory), TIMES)
    floor = Floor(fleet, folder)
    try:
        floor.round_trip()
        trip = median_seconds(floor.round_trip, 10)
        state = describe(floor, folder)
    finally:
        floor.close()
    laid = [len(entry["files"]) for entry in state.values()]
    assert sum(laid) >= 20, f"pyinfra would be let off lightly: {laid} files"
    (folder / "state.json").write_text(json.dumps(state))
    words = ["pyinfra", "-y", str(pyinfra_inventory(fleet, folder)), "tests/bench/deploy.py"]
    variables = {"RACKHAND_BENCH_STATE": str(folder / "state.json")}
    output = run(*words, **variables)
    assert "Error" not in output
    peer = median_seconds(lambda: run(*words, **variables), TIMES)
    kinds = ("packages", "files", "units")
    things = sum(len(entry[kind]) for entry in state.values() for kind in kinds)
    return (
        str(size),
        str(tasks),
        f"{ours:.1f} s",
        f"{ours / size:.1f} s",
        f"{trip * 1000:.0f} ms",
        f"{ours / trip:.0f}",
        f"{peer:.1f} s",
        f"{ours / peer:.2f}",
        str(things),
    )


def test_a_second_run_beside_ssh_and_pyinfra(tmp_path: Path) -> None:
    rows = []
    for size in SIZES:
        lab = ["--name", f"bench-{size}"]
        run("ops", "lab", "up", *lab, "--hosts", str(size))
        try:
            folder = tmp_path / str(size)
            folder.mkdir()
            rows.append(measure(size, folder))
        finally:
            if os.environ.get("RACKHAND_KEEP_LAB") != "1":
                run("ops", "lab", "down", *lab)
    write_result(
        "noop",
        "A second site.yml: nothing to change",
        (
            "hosts",
            "tasks on the busiest host",
            "site.yml",
            "per host",
            "SSH round trip",
            "site.yml / SSH",
            "pyinfra",
            "site.yml / pyinfra",
            "things pyinfra checks",
        ),
        rows,
        "Medians of 3 (SSH: of 10, persistent connections, all hosts at once). Control machine and "
        "hosts share the cores. pyinfra checks the packages, every file with content, owner and "
        "mode, and every unit that site.yml laid down; site.yml also checks database roles, "
        "checksums of weights, environments, certificate, inventory, and that the stack answers.",
    )
