"""What the mirror's catalogue promises: everything resolves, and the traps are really there."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterable

import pytest

from ops.lab.mirror import catalogue
from ops.lab.mirror.package import Package

EVERYTHING = catalogue.load()
FROM_DEBIAN = {"kmod", "python3", "initramfs-tools"}  # real ones, which every host can reach
BASES = {
    "cuda/ubuntu2404/x86_64": ("ubuntu", {"noble", "noble-updates", "noble-security"}),
    "cuda/debian12/x86_64": ("debian", {"bookworm"}),
    "cuda/debian13/x86_64": ("debian", {"trixie"}),
    "ubuntu": ("ubuntu", {"noble", "noble-updates", "noble-security"}),
    "debian": ("debian", {"bookworm", "trixie"}),
    "libnvidia-container/stable/deb/amd64": ("debian", {"trixie"}),
}
RELATION = re.compile(r"(\S+)(?: \((<<|<=|=|>=|>>) (\S+)\))?")


def visible(repository: str, state: str) -> list[Package]:
    """Packages that a host with this repository sees, its distribution's own among them."""
    base, suites = BASES[repository]
    return [
        package
        for package in EVERYTHING.packages
        if state in package.states
        and (
            package.repository == repository
            or (package.repository == base and package.suites & suites)
        )
    ]


@functools.cache
def compares(ours: str, operator: str, theirs: str) -> bool:
    command = ["dpkg", "--compare-versions", ours, operator, theirs]
    return subprocess.run(command, check=False).returncode == 0


def providers(text: str, packages: Iterable[Package]) -> list[Package]:
    """Packages that satisfy one alternative of a relation."""
    match = RELATION.fullmatch(text.strip())
    assert match, text
    name, operator, version = match.groups()
    return [
        package
        for package in packages
        if (package.name == name and (not operator or compares(package.version, operator, version)))
        or (not operator and name in package.relations.get("provides", "").split(", "))
    ]


@pytest.mark.parametrize("state", list(EVERYTHING.states))
@pytest.mark.parametrize("repository", list(EVERYTHING.repositories))
def test_every_dependency_is_in_the_mirror_or_in_debian(repository: str, state: str) -> None:
    by_name: dict[str, list[Package]] = {}
    for package in visible(repository, state):
        by_name.setdefault(package.name, []).append(package)
        for provided in package.relations.get("provides", "").split(", "):
            by_name.setdefault(provided.split(" ")[0], []).append(package)
    mine = [p for p in visible(repository, state) if p.repository == repository]
    assert mine
    for package in mine:
        for clause in filter(None, package.relations.get("depends", "").split(", ")):
            names = [alternative.split()[0] for alternative in clause.split("|")]
            if FROM_DEBIAN.intersection(names):
                continue
            assert any(
                providers(alternative, by_name.get(alternative.split()[0], []))
                for alternative in clause.split("|")
            ), f"{package.name} {package.version} in {state}: nothing satisfies {clause}"


def test_no_placeholder_is_left_over() -> None:
    for package in EVERYTHING.packages:
        assert "{" not in package.control() + package.path


def closure(name: str, state: str) -> set[str]:
    """Names that come along with a package of the Ubuntu archive, newest versions first."""
    packages = visible("ubuntu", state)
    found, open_names = set(), {name}
    while open_names:
        current = open_names.pop()
        found.add(current)
        for package in packages:
            if package.name == current:
                for clause in filter(None, package.relations.get("depends", "").split(", ")):
                    open_names |= {clause.split()[0]} - found
    return found


@pytest.mark.parametrize(
    ("asked", "got", "state"),
    [
        ("535", "580", "2026-06"),
        ("550", "580", "2026-11"),
        ("565", "580", "2026-11"),
        ("570", "580", "2026-11"),
        ("575", "580", "2026-11"),
        ("590", "595", "2026-11"),
    ],
)
def test_a_stub_moves_to_another_branch(asked: str, got: str, state: str) -> None:
    found = closure(f"nvidia-headless-no-dkms-{asked}-server", state)
    assert f"libnvidia-compute-{got}-server" in found
    assert f"libnvidia-compute-{asked}-server" not in found
    modules = closure(f"linux-modules-nvidia-{asked}-server-open-generic", state)
    assert any(f"-{got}-server-open-6.8.0-" in name for name in modules)


def test_590_was_a_branch_of_its_own_in_june() -> None:
    assert "libnvidia-compute-590-server" in closure("nvidia-headless-590-server", "2026-06")


def test_the_proprietary_name_of_615_leads_to_the_open_one() -> None:
    assert "nvidia-kernel-source-615-server-open" in closure(
        "nvidia-headless-615-server", "2026-11"
    )


def test_only_names_with_headless_no_dkms_leave_dkms_and_xorg_out() -> None:
    assert "dkms" not in closure("nvidia-headless-no-dkms-580-server-open", "2026-11")
    assert "dkms" in closure("nvidia-headless-580-server-open", "2026-11")
    assert "xserver-xorg-core" in closure("nvidia-driver-580-server-open", "2026-11")


@pytest.mark.parametrize("state", list(EVERYTHING.states))
def test_modules_name_the_exact_kernel_they_are_for(state: str) -> None:
    for package in visible("ubuntu", state):
        if re.fullmatch(r"linux-modules-nvidia-(470|580|595)-server(-open)?-generic", package.name):
            depends = package.relations["depends"]
            assert re.match(rf"{package.name[:-8]}-6\.8\.0-\d+-generic \(= ", depends)


def test_cuda_names_carry_the_branch_to_580_and_not_from_590() -> None:
    names = {p.name: p.version for p in visible("cuda/ubuntu2404/x86_64", "2026-11")}
    assert "nvidia-driver-580-open" in names
    assert "nvidia-driver-595-open" not in names
    assert names["nvidia-driver-open"].startswith("595.")
    debian = {p.name for p in visible("cuda/debian12/x86_64", "2026-11")}
    assert {"nvidia-driver-cuda", "nvidia-kernel-open-dkms", "libnvidia-ml1"} <= debian
    assert "libnvidia-compute-580" not in debian


def test_the_archive_forgets_superseded_versions_and_cuda_keeps_them() -> None:
    ubuntu = {(p.name, p.version) for p in visible("ubuntu", "2026-11")}
    assert ("nvidia-utils-580-server", "580.126.09-0ubuntu0.24.04.1") not in ubuntu
    cuda = {(p.name, p.version) for p in visible("cuda/ubuntu2404/x86_64", "2026-11")}
    assert ("nvidia-utils-580", "580.126.09-0ubuntu1") in cuda
