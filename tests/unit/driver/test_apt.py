"""How apt is read and asked, and how long a mirror in mid-sync is waited for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.rackhand.host.plugins.module_utils import driver_apt
from ansible_collections.rackhand.host.plugins.module_utils.driver_apt import (
    Apt,
    AptError,
    parse_installed,
    parse_steps,
    patiently,
)
from ansible_collections.rackhand.host.plugins.module_utils.driver_packages import (
    Plan,
    Refusal,
    Step,
)

SIMULATED = """NOTE: This is only a simulation!
Remv nvidia-utils-580-server [580.126.09-0ubuntu0.24.04.1]
Inst linux-image-6.8.0-94-generic (6.8.0-94.96 Ubuntu:noble-updates [amd64])
Inst libnvidia-ml1 [580.126.09-1] (580.178.04-1 NVIDIA CUDA [amd64])
Inst libc6:i386 (2.39 Ubuntu [i386])
Conf libnvidia-ml1 (580.178.04-1 NVIDIA CUDA [amd64])
"""


class Script:
    """Answers commands by their first matching words, and keeps what was asked."""

    def __init__(self, **answers: tuple[int, str, str]) -> None:
        self.answers, self.asked = answers, []

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        self.asked.append(" ".join(command))
        for words, answer in self.answers.items():
            if words in command:
                return answer
        return 0, "", ""


def test_a_simulation_is_read_as_steps() -> None:
    assert parse_steps(SIMULATED) == [
        Step("Remv", "nvidia-utils-580-server", "", "580.126.09-0ubuntu0.24.04.1"),
        Step("Inst", "linux-image-6.8.0-94-generic", "6.8.0-94.96"),
        Step("Inst", "libnvidia-ml1", "580.178.04-1", "580.126.09-1"),
        Step("Inst", "libc6", "2.39"),
    ]


def test_packages_that_were_removed_and_left_their_configuration_are_not_installed() -> None:
    assert parse_installed("a\t1\tii \nb\t2\trc \nc\t3\thi \n") == {"a": "1", "c": "3"}


def test_versions_come_from_the_wanted_repository_only(tmp_path: Path) -> None:
    out = (
        "x | 580.2-1ubuntu | http://m/cuda/ubuntu2404/x86_64  Packages\n"
        "x | 580.1-0ubuntu | http://m/ubuntu noble-updates/restricted amd64 Packages\n"
        "x | 580.1-0ubuntu | http://m/ubuntu noble-updates/restricted Sources\n"
    )
    apt = Apt(Script(madison=(0, out, "")), str(tmp_path), "pins")
    cuda = "http://m/cuda/ubuntu2404/x86_64/"
    assert apt.versions("x", url=cuda) == {"x": ["580.2-1ubuntu"]}
    assert apt.versions("x", without=cuda) == {"x": ["580.1-0ubuntu"]}
    assert apt.versions("x") == {"x": ["580.2-1ubuntu", "580.1-0ubuntu"]}


def test_a_simulation_goes_past_holds_and_pins_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "preferences.d"
    there.mkdir()
    (there / "site").write_text("theirs")
    (there / "nvidia-driver-pinning-595").write_text("an argument")
    (there / "pins").write_text("old")
    monkeypatch.setattr(driver_apt, "PREFERENCES_FOLDER", str(there))
    script = Script(**{"--simulate": (0, SIMULATED, "")})
    steps = Apt(script, str(tmp_path), "pins").simulate(["x=1"], "new")
    assert len(steps) == 4
    folder = tmp_path / "preferences"
    assert {p.name: p.read_text() for p in folder.iterdir()} == {"site": "theirs", "pins": "new"}
    assert "APT::Ignore-Hold=true" in script.asked[0]
    assert f"Dir::Etc::PreferencesParts={folder}" in script.asked[0]


def test_two_keys_for_one_repository_are_told_with_the_cure(tmp_path: Path) -> None:
    err = "E: Conflicting values set for option Signed-By regarding source http://m/ /: a != b\n"
    apt = Apt(Script(update=(100, "", err)), str(tmp_path), "pins")
    with pytest.raises(Refusal, match="give one repository two keys"):
        apt.update()


def test_unmet_dependencies_are_told_in_apts_own_words(tmp_path: Path) -> None:
    out = "The following packages have unmet dependencies:\n a : Depends: b (= 1) but 2 is to be\n"
    err = "E: Unable to correct problems, you have held broken packages.\n"
    apt = Apt(Script(**{"--simulate": (100, out, err)}), str(tmp_path), "pins")
    with pytest.raises(AptError, match=r"a : Depends: b \(= 1\)[^\n]*\nE: Unable to correct"):
        apt.simulate(["a"], "")


class Mirror(Apt):
    """An apt whose mirror is in mid-sync for some rounds."""

    def __init__(self, broken_rounds: int, words: str = "E: Hash Sum mismatch") -> None:
        self.left, self.words, self.rounds = broken_rounds, words, 0

    def update(self) -> None:
        self.rounds += 1

    def download(self, words: Sequence[str]) -> None:
        if self.left:
            self.left -= 1
            raise AptError(self.words)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    clock = [0.0]

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(driver_apt.time, "sleep", sleep)
    monkeypatch.setattr(driver_apt.time, "monotonic", lambda: clock[0])
    return waited


def test_a_mirror_in_mid_sync_is_waited_for_with_growing_patience(waits: list[float]) -> None:
    mirror = Mirror(broken_rounds=4)
    plans = iter(range(10))
    made = patiently(mirror, lambda: Plan(install={"a": str(next(plans))}), patience_s=300)
    assert waits == [5, 10, 20, 40]
    assert mirror.rounds == 5
    assert made.install == {"a": "4"}, "the plan is made anew from the lists of each round"


def test_patience_ends(waits: list[float]) -> None:
    with pytest.raises(AptError, match="Hash Sum"):
        patiently(Mirror(broken_rounds=99), lambda: Plan(install={"a": "1"}), patience_s=60)
    assert sum(waits) <= 60


@pytest.mark.parametrize(
    "words",
    [
        "E: Unable to locate package x",
        "E: Failed to fetch http://m/x.deb  Could not resolve 'm'",
        "E: Failed to fetch http://m/x.deb  Could not connect to m:80 (10.0.0.1). - connect",
    ],
)
def test_what_waiting_cannot_cure_is_told_at_once(waits: list[float], words: str) -> None:
    mirror = Mirror(broken_rounds=1, words=words)
    with pytest.raises(AptError):
        patiently(mirror, lambda: Plan(install={"a": "1"}), patience_s=300)
    assert waits == []


def test_check_mode_asks_once_and_downloads_nothing(waits: list[float]) -> None:
    mirror = Mirror(broken_rounds=1)
    assert patiently(mirror, lambda: Plan(install={"a": "1"}), patience_s=0).install == {"a": "1"}
    assert mirror.left == 1
