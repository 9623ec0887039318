"""What an inventory's GPU hosts install, and from where: its variables, and the roles' defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.errors import InputError
from ops.fleet.model import Fleet
from ops.mirror import driver_packages
from ops.mirror.closure import Root
from ops.mirror.driver_packages import Wanted
from ops.mirror.repository import Source

DISTRIBUTIONS = {"ubuntu2204": "jammy", "ubuntu2404": "noble", "debian12": "", "debian13": ""}
UBUNTU = "http://archive.ubuntu.com/ubuntu"
UBUNTU_KEY = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
CUDA = "https://developer.download.nvidia.com/compute/cuda/repos/{}/x86_64"
TOOLKIT = "https://nvidia.github.io/libnvidia-container/stable/deb/amd64"
TOOLKIT_PACKAGES = (
    *("nvidia-container-toolkit", "nvidia-container-toolkit-base"),
    *("libnvidia-container-tools", "libnvidia-container1"),
)
TOOLKIT_VERSION = "1.20.0-1"  # as role container_toolkit's default


def wanted(fleet: Fleet, distribution: str) -> tuple[list[Source], list[Root]]:
    """Repositories and packages of the fleet's GPU hosts.

    Args:
        fleet: The inventory.
        distribution: Of those hosts, as NVIDIA names it: `ubuntu2404`, `debian12` …

    Raises:
        InputError: An unknown distribution, or no GPU host.
    """
    if distribution not in DISTRIBUTIONS:
        raise InputError(
            f"{distribution!r} is no distribution that NVIDIA's drivers are mirrored for",
            cure=f"use one of {', '.join(DISTRIBUTIONS)}",
        )
    hosts = [host for host in fleet.hosts if "gpu" in host.groups]
    if not hosts:
        raise InputError("The inventory has no host in group gpu", place=str(fleet.inventory))
    sources: dict[Source, None] = {}
    roots: dict[Root, None] = {}
    for host in hosts:
        for source, root in _of_host(host.variables, distribution):
            sources[source] = roots[root] = None
    return list(sources), list(roots)


def _of_host(variables: Mapping[str, Any], distribution: str) -> list[tuple[Source, Root]]:
    def say(name: str, default: str = "") -> str:
        return str(variables.get(name) or default)

    channel = say("nvidia_driver_channel", "archive" if "ubuntu" in distribution else "cuda")
    driver = Wanted(
        channel=channel,
        branch=say("nvidia_driver_branch", "580"),
        version=say("nvidia_driver_version"),
        module=say("nvidia_driver_module", "auto").replace("auto", "open"),
        flavour=say("nvidia_driver_kernel", "auto").replace("auto", "generic"),
        extra=tuple(variables.get("nvidia_driver_extra_packages") or ()),
    )
    cuda = Source(
        say("nvidia_cuda_repo_url", CUDA.format(distribution)).rstrip("/"),
        Path(say("nvidia_cuda_repo_key_file", "nvidia_cuda_repo_key_file")),
        say("nvidia_cuda_repo_key_fingerprint"),
    )
    archive = cuda if channel == "cuda" else _ubuntu(say, DISTRIBUTIONS[distribution])
    found = [(archive, root) for root in _driver_roots(driver, distribution)]
    if variables.get("nvidia_driver_dcgm"):
        found += [(cuda, Root(name)) for name in driver_packages.dcgm_names(driver.branch)]
    if toolkit := say("cuda_toolkit_version"):
        found.append((cuda, Root(f"cuda-toolkit-{toolkit}")))
    if say("container_toolkit_runtime", "none") != "none":
        source = Source(
            say("container_toolkit_repo_url", TOOLKIT).replace("$(ARCH)", "amd64").rstrip("/"),
            Path(say("container_toolkit_repo_key_file", "container_toolkit_repo_key_file")),
            say("container_toolkit_repo_key_fingerprint"),
        )
        version = say("container_toolkit_version", TOOLKIT_VERSION)
        found += [(source, Root(name, version)) for name in TOOLKIT_PACKAGES]
    return found


def _driver_roots(driver: Wanted, distribution: str) -> list[Root]:
    host = driver_packages.Host(distribution="ubuntu" if "ubuntu" in distribution else "debian")
    names = driver_packages.driver_names(host, driver, driver.module)
    names += [driver_packages.fabric_manager(host, driver), *driver.extra]
    version = driver.version or driver.branch
    return [Root(name, "" if name.startswith("linux-") else version) for name in names]


def _ubuntu(say: Any, release: str) -> Source:
    return Source(
        say("nvidia_driver_ubuntu_repo_url", UBUNTU).rstrip("/"),
        Path(say("nvidia_driver_ubuntu_repo_key_file", UBUNTU_KEY)),
        suites=(release, f"{release}-updates", f"{release}-security"),
        components=("main", "restricted", "multiverse"),
    )
