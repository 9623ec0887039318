"""From the inventory's words to one transaction, over an index that is made up here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.rackhand.host.plugins.module_utils import driver_apt
from ansible_collections.rackhand.host.plugins.module_utils.driver_apt import Apt, AptError
from ansible_collections.rackhand.host.plugins.module_utils.driver_packages import (
    Host,
    Refusal,
    Step,
    Wanted,
)
from ansible_collections.rackhand.host.plugins.module_utils.driver_resolution import (
    Resolution,
    abi,
)

U = "-0ubuntu0.24.04.1"
K90, K94 = "6.8.0-90-generic", "6.8.0-94-generic"
H100 = "0x2330"


def archive(branch: str, version: str) -> dict[str, list[str]]:
    """What Ubuntu's archive offers of a branch with open modules, for two kernels."""
    server = f"{branch}-server"
    modules = f"linux-modules-nvidia-{server}-open"
    return {
        f"nvidia-headless-no-dkms-{server}-open": [version + U],
        f"nvidia-utils-{server}": [version + U],
        f"{modules}-generic": ["6.8.0-94.96+1", "6.8.0-90.91+1"],
        "linux-image-generic": ["6.8.0-94.96", "6.8.0-90.91"],
    }


class Index(Apt):
    """An apt that offers what it is told, and does what it is asked."""

    def __init__(self, offered: dict[str, list[str]], refuses: str = "", stub: str = "") -> None:
        self.offered, self.refuses, self.stub = offered, refuses, stub
        self.asked: list[Sequence[str]] = []

    def names(self, prefix: str) -> list[str]:
        return [name for name in self.offered if name.startswith(prefix)]

    def versions(self, *names: str, url: str = "", without: str = "") -> dict[str, list[str]]:
        return {name: self.offered.get(name, []) for name in names}

    def simulate(self, words: Sequence[str], preferences: str) -> list[Step]:
        self.asked.append(words)
        if self.refuses and self.refuses in words:
            raise AptError(f"{self.refuses} : Depends: something else")
        if self.stub:
            return [Step("Inst", f"libnvidia-compute-{self.stub[:3]}-server", self.stub)]
        steps = []
        for word in words:
            name, _, version = word.partition("=")
            if word.endswith("-"):
                steps.append(Step("Remv", word[:-1]))
            elif word.startswith("/"):
                name, version = Path(word).name.split("_")[:2]
                steps.append(Step("Inst", name, version))
            else:
                steps.append(Step("Inst", name, version or self.offered[name][0]))
            if name.startswith("linux-modules-nvidia") and not word.endswith("-"):
                kernel = K94 if "94" in version else K90
                exact = name.removesuffix("generic") + kernel
                steps.append(Step("Inst", exact, version))
                steps.append(Step("Inst", f"linux-image-{kernel}", "1"))
        return steps


def ask(wanted: Wanted, **more: object) -> Resolution:
    settings: dict[str, object] = {
        "host": Host("ubuntu", devices=[H100], kernels=[K90]),
        "wanted": wanted,
        "module": "open",
        "installed": {},
    } | more
    return Resolution(**settings)  # type: ignore[arg-type]


def test_a_first_installation_keeps_the_kernel_that_boots_next() -> None:
    plan = ask(Wanted("archive", "580")).plan(Index(archive("580", "580.178.04")))
    assert plan.install["nvidia-utils-580-server"] == f"580.178.04{U}"
    assert plan.install["linux-modules-nvidia-580-server-open-generic"] == "6.8.0-90.91+1"
    assert plan.install["linux-image-generic"] == "6.8.0-90.91"


def test_an_update_takes_the_newest_kernel_along_in_the_same_transaction() -> None:
    plan = ask(Wanted("archive", "580"), update=True).plan(Index(archive("580", "580.178.04")))
    assert plan.install["linux-modules-nvidia-580-server-open-generic"] == "6.8.0-94.96+1"
    assert plan.install["linux-image-generic"] == "6.8.0-94.96"


def test_modules_that_apt_cannot_place_give_way_to_those_of_the_other_kernel() -> None:
    refuses = "linux-modules-nvidia-580-server-open-generic=6.8.0-90.91+1"
    index = Index(archive("580", "580.178.04"), refuses=refuses)
    plan = ask(Wanted("archive", "580")).plan(index)
    assert plan.install["linux-image-generic"] == "6.8.0-94.96"


def test_the_words_of_apts_first_refusal_reach_the_person() -> None:
    refuses = f"nvidia-utils-580-server=580.178.04{U}"
    with pytest.raises(AptError, match="Depends: something else"):
        ask(Wanted("archive", "580")).plan(Index(archive("580", "580.178.04"), refuses=refuses))


def test_a_kernel_that_would_boot_without_a_driver_is_refused() -> None:
    index = Index(archive("580", "580.178.04"))
    host = Host("ubuntu", devices=[H100], kernels=[K90, "6.8.0-99-generic"])
    with pytest.raises(Refusal, match=r"kernel 6\.8\.0-99-generic would boot next"):
        ask(Wanted("archive", "580"), host=host).plan(index)


def test_a_stub_is_refused_with_the_branch_at_which_it_ends() -> None:
    offered = archive("580", "580.178.04") | archive("550", "570.211.01")
    index = Index(offered, stub=f"580.178.04{U}")
    with pytest.raises(Refusal, match="branch 550 is no more") as refused:
        ask(Wanted("archive", "550")).plan(index)
    assert 'nvidia_driver_branch: "580"' in refused.value.cure
    assert "this index has 580" in refused.value.cure


def test_the_old_branch_leaves_in_the_transaction_that_brings_the_new_one() -> None:
    installed = {
        "nvidia-utils-580-server": f"580.178.04{U}",
        "nvidia-container-toolkit": "1.20.0-1",
    }
    plan = ask(Wanted("archive", "595"), installed=installed).plan(
        Index(archive("595", "595.91.07"))
    )
    assert plan.remove == ["nvidia-utils-580-server"]


def test_what_is_installed_stays_until_an_update_is_asked_for() -> None:
    index = Index(archive("580", "580.178.04"))
    for name in [n for n in index.offered if "nvidia-" in n and "modules" not in n]:
        index.offered[name].append(f"580.126.09{U}")
    installed = {"nvidia-headless-no-dkms-580-server-open": f"580.126.09{U}"}
    plan = ask(Wanted("archive", "580"), installed=installed).plan(index)
    assert plan.install["nvidia-utils-580-server"] == f"580.126.09{U}"
    plan = ask(Wanted("archive", "580"), installed=installed, update=True).plan(index)
    assert plan.install["nvidia-utils-580-server"] == f"580.178.04{U}"


def test_libraries_whose_names_have_no_branch_move_along_and_are_not_removed() -> None:
    names = ("nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced", "libcuda1")
    offered = {name: ["595.91.07-1", "580.178.04-1"] for name in names}
    installed = dict.fromkeys(names, "580.178.04-1") | {"linux-headers-6.1.0-990-amd64": "1"}
    installed["nvidia-kernel-dkms"] = "580.178.04-1"
    host = Host("debian", devices=[H100], kernels=["6.1.0-990-amd64"])
    question = ask(Wanted("cuda", "595"), host=host, installed=installed)
    offered["linux-headers-6.1.0-990-amd64"] = ["1"]
    plan = question.plan(Index(offered))
    assert {name: plan.install[name] for name in names} == dict.fromkeys(names, "595.91.07-1")
    assert plan.remove == ["nvidia-kernel-dkms"], "the other kind of module leaves"


SETTLED = {
    "nvidia-headless-no-dkms-580-server-open": f"580.178.04{U}",
    "nvidia-utils-580-server": f"580.178.04{U}",
    "linux-modules-nvidia-580-server-open-generic": "6.8.0-90.91+1",
}


def test_a_host_that_has_what_is_wanted_is_settled() -> None:
    assert ask(Wanted("archive", "580"), installed=SETTLED).is_settled()
    exact = Wanted("archive", "580", version="580.178.04")
    assert ask(exact, installed=SETTLED).is_settled()


@pytest.mark.parametrize(
    ("wanted", "installed"),
    [
        (Wanted("archive", "595"), SETTLED),
        (Wanted("archive", "580", version="580.126.09"), SETTLED),
        (Wanted("archive", "580", fabric_manager=True), SETTLED),
        (Wanted("archive", "580", dcgm=True), SETTLED),
        (Wanted("archive", "580"), SETTLED | {"nvidia-utils-580-server": f"580.126.09{U}"}),
        (Wanted("archive", "580"), SETTLED | {"nvidia-utils-570-server": "570.1-1"}),
        (Wanted("archive", "580"), {}),
    ],
)
def test_a_host_that_lacks_something_or_has_too_much_is_not(
    wanted: Wanted, installed: dict[str, str]
) -> None:
    assert not ask(wanted, installed=installed).is_settled()


def test_an_update_always_asks_apt() -> None:
    assert not ask(Wanted("archive", "580"), installed=SETTLED, update=True).is_settled()


def test_dkms_without_headers_is_refused() -> None:
    offered = {
        name: ["580.178.04-1"]
        for name in ("nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced")
    }
    host = Host("debian", devices=[H100], kernels=["6.1.0-990-amd64"])
    with pytest.raises(Refusal, match="DKMS builds the module with linux-headers-"):
        ask(Wanted("cuda", "580"), host=host).plan(Index(offered))


def test_the_bare_dcgm_leaves_when_dcgm_4_comes() -> None:
    offered = archive("580", "580.178.04") | {
        "datacenter-gpu-manager-4-core": ["1:4.5.2-1"],
        "datacenter-gpu-manager-4-cuda13": ["1:4.5.2-1"],
    }
    installed = SETTLED | {"datacenter-gpu-manager": "1:3.3.9"}
    plan = ask(Wanted("archive", "580", dcgm=True), installed=installed).plan(Index(offered))
    assert plan.remove == ["datacenter-gpu-manager"]
    assert plan.install["datacenter-gpu-manager-4-core"] == "1:4.5.2-1"


# -- the way back -------------------------------------------------------------------------------
BEFORE = {
    "nvidia-utils-580-server": f"580.126.09{U}",
    "linux-image-generic": "6.8.0-90.91",
    f"linux-modules-nvidia-580-server-open-{K90}": "6.8.0-90.91",
}
NOW = {
    "nvidia-utils-595-server": f"595.91.07{U}",
    f"linux-modules-nvidia-595-server-open-{K94}": "6.8.0-94.96",
    f"linux-image-{K94}": "6.8.0-94.96",
    "linux-image-generic": "6.8.0-94.96",
}


def back(index: Index) -> Resolution:
    host = Host("ubuntu", devices=[H100], kernels=[K90, K94])
    return ask(Wanted("archive", "580"), host=host, installed=NOW, packages=BEFORE)


def test_the_way_back_restores_versions_and_takes_the_newer_kernel_away() -> None:
    index = Index({name: [version] for name, version in BEFORE.items()})
    plan = back(index).plan(index)
    assert {n: plan.install[n] for n in BEFORE} == BEFORE
    assert set(plan.remove) == {
        "nvidia-utils-595-server",
        f"linux-modules-nvidia-595-server-open-{K94}",
        f"linux-image-{K94}",
    }


def test_versions_that_the_mirror_forgot_come_from_what_the_host_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_apt, "ARCHIVES", str(tmp_path))
    for name, version in BEFORE.items():
        (tmp_path / f"{name}_{version}_amd64.deb").touch()
    index = Index({})
    plan = back(index).plan(index)
    kept = str(tmp_path / f"nvidia-utils-580-server_580.126.09{U}_amd64.deb")
    assert kept in plan.words()


def test_versions_that_nobody_has_are_refused_before_anything_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_apt, "ARCHIVES", str(tmp_path))
    index = Index({})
    with pytest.raises(Refusal, match=r"did not keep: .*nvidia-utils-580-server 580.126.09"):
        back(index).plan(index)
    assert index.asked == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6.8.0-90-generic", "6.8.0-90"),
        ("6.8.0-90.91+1", "6.8.0-90"),
        ("6.8.0.90.91", "6.8.0-90"),
        ("6.14.0-37.37~24.04.1", "6.14.0-37"),
    ],
)
def test_kernel_and_package_versions_meet_in_their_abi(text: str, expected: str) -> None:
    assert abi(text) == expected
