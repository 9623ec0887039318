"""A driver's life on a host: installed, run again, upgraded, taken back; in check mode at each."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from gpu_host import GpuHost, fresh
from stack import Lab, SiteRun

pytestmark = pytest.mark.lab

FACADE = "ubuntu-24.04-facade"
OLD, NEW = "580.178.04", "595.91.07"
TO_595 = ("-e", "nvidia_driver_branch=595")
DEBIAN = [pytest.param(image, marks=pytest.mark.long) for image in ("bookworm", "trixie")]


@dataclass
class Stage:
    """One run of a playbook, and what the host was afterwards."""

    run: SiteRun
    seconds: float
    reboots: int
    loaded: str
    kernel: str
    packages: dict[str, str]


class Journey:
    """The stages that a host went through, by name."""

    def __init__(self, host: GpuHost) -> None:
        self.host = host
        self.stages: dict[str, Stage] = {}
        self.bare = host.packages

    def go(self, name: str, *arguments: str, playbook: str = "site") -> None:
        before, since = self.host.boots, time.monotonic()
        run = self.host.play(*arguments, playbook=playbook)
        assert run.status == 0, f"{name}\n{run.output[-6000:]}"
        self.stages[name] = Stage(
            run,
            time.monotonic() - since,
            self.host.boots - before,
            self.host.loaded,
            self.host.sh("uname -r"),
            self.host.packages,
        )

    def __getitem__(self, name: str) -> Stage:
        return self.stages[name]


@pytest.fixture(scope="module", params=[FACADE, *DEBIAN])
def journey(request: pytest.FixtureRequest, labs: Callable[..., Lab]) -> Journey:
    """A bare host that gets 580, then 595, then 580 again, looked at after every run."""
    host = fresh(labs(1, request.param, "H100:2"))
    going = Journey(host)
    going.go("check of a bare host", "--check", "--diff")
    going.go("first run", "--diff")
    going.go("second run", "--diff")
    going.go("check of a converged host", "--check", "--diff")
    going.go("check of the upgrade", *TO_595, "--check", "--diff", playbook="driver")
    going.go("upgrade", *TO_595, "--diff", playbook="driver")
    going.go("upgrade again", *TO_595, "--diff", playbook="driver")
    before = {f"nvidia_driver_{key}": value for key, value in host.fact["previous"].items()}
    back = ("-e", json.dumps(before))
    going.go("check of the way back", *back, "--check", "--diff", playbook="driver")
    going.go("way back", *back, "--diff", playbook="driver")
    going.go("site after the way back")
    return going


def test_check_mode_is_true_on_a_bare_host_and_changes_nothing(journey: Journey) -> None:
    checked = journey["check of a bare host"]
    assert checked.run.total("changed") > 0
    assert OLD in checked.run.output, "the diff names the version that a real run installs"
    assert checked.packages == journey.bare
    assert (checked.reboots, checked.loaded) == (0, "")


def test_check_mode_foretells_what_the_run_then_does(journey: Journey) -> None:
    for name, checked in {
        "first run": "check of a bare host",
        "upgrade": "check of the upgrade",
        "way back": "check of the way back",
    }.items():
        told = packages_in_diff(journey[checked].run.output)
        done = packages_in_diff(journey[name].run.output)
        assert told == done, name
        assert done, name


def test_a_bare_host_gets_the_driver_with_the_one_reboot_that_nouveau_asks_for(
    journey: Journey,
) -> None:
    first = journey["first run"]
    assert first.loaded == OLD
    assert first.reboots == 1
    assert "nouveau" not in journey.host.sh("ls /sys/module")
    print(f"bare host to loaded driver: {first.seconds:.1f} s")


@pytest.mark.parametrize(
    "name", ["second run", "check of a converged host", "upgrade again", "site after the way back"]
)
def test_a_run_with_nothing_to_do_changes_nothing(journey: Journey, name: str) -> None:
    stage = journey[name]
    assert stage.run.total("changed") == 0, stage.run.output[-3000:]
    assert stage.reboots == 0
    print(f"{name}: {stage.seconds:.1f} s")


def test_an_upgrade_moves_everything_and_reboots_once(journey: Journey) -> None:
    stage = journey["upgrade"]
    assert (stage.loaded, stage.reboots) == (NEW, 1)
    assert versions_of_driver(stage.packages) == {NEW}


def test_the_way_back_restores_every_version_and_reboots_once(journey: Journey) -> None:
    stage, first = journey["way back"], journey["first run"]
    assert (stage.loaded, stage.reboots) == (OLD, 1)
    assert stage.kernel == first.kernel
    kept = journey.host.fact["packages"]
    assert {name: first.packages[name] for name in kept} == kept
    assert versions_of_driver(stage.packages) == {OLD}


def test_the_checks_on_the_way_touched_nothing(journey: Journey) -> None:
    assert journey["check of the upgrade"].packages == journey["second run"].packages
    assert journey["check of the way back"].packages == journey["upgrade again"].packages
    assert journey["check of the upgrade"].reboots == 0
    assert journey["check of the way back"].reboots == 0


def test_the_gpus_answer_and_stay_awake(journey: Journey) -> None:
    assert journey.host.sh("nvidia-smi -L").count("H100") == 2
    assert journey.host.sh("nvidia-smi -q | grep -c 'Persistence Mode.*Enabled'") == "2"
    user = journey.host.sh("ps -o user= -C python3,nvidia-persistenced | sort -u")
    assert "nvidia-" in user or "nvidia+" in user, user


def packages_in_diff(output: str) -> set[str]:
    """Lines of a diff that tell a package and its version."""
    lines = re.findall(r"^[+-]([a-z0-9][a-z0-9.+-]+ \d\S+)$", output, re.MULTILINE)
    return {line for line in lines if "nvidia" in line or line.startswith("linux-")}


def versions_of_driver(packages: dict[str, str]) -> set[str]:
    """The driver's versions among the packages that carry one."""
    names = [n for n in packages if "nvidia" in n and not n.startswith("linux-")]
    return {packages[name].split("-")[0] for name in names}
