"""One host's files: what makes a copy of the image this host and no other."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from ops.errors import OpsError
from ops.lab import control_machine, outside
from ops.lab.commands import run
from ops.lab.fleet_plan import ARCHIVE_NAME, MIRROR_NAME, OUTSIDE, LabPlan
from ops.lab.gpu.catalogue import parse_gpus
from ops.lab.mirror import server
from ops.lab.paths import HostPaths, write_atomically
from ops.lab.upper import Upper

NETWORK = """\
[Match]
Name=host0
[Network]
Address={address}/24
Gateway={gateway}
LinkLocalAddressing=ipv6
IPv6AcceptRA=no
"""
GPUS = "etc/rackhand-simulator/gpus.conf"
DIRECT = "".join(
    f'Acquire::http::Proxy::{name} "DIRECT";\n' for name in (MIRROR_NAME, ARCHIVE_NAME)
)
DOOMED = ".doomed-"


def create_host(plan: LabPlan, host: str, binds: dict[str, str], image: str) -> None:
    """Make a host's folder unless it is there; a half-made one is made anew.

    Args:
        plan: The lab.
        host: Name of the host.
        binds: Folders of this machine that the host sees read-only, by their path there.
        image: Folders that the host's own files cover, the uppermost first, joined by colons.
    """
    paths = plan.paths.host(host)
    if paths.config.exists():
        write_config(plan, host, binds, image)
        return
    remove_tree(paths.root)
    for folder in (paths.work, paths.mount, paths.snapshots):
        folder.mkdir(parents=True)
    make_upper(plan, host)
    write_config(plan, host, binds, image)


def write_config(plan: LabPlan, host: str, binds: dict[str, str], image: str) -> None:
    """Tell the supervisor what to boot; the image stays the one the host was made from."""
    paths = plan.paths.host(host)
    if paths.config.exists():
        image = json.loads(paths.config.read_text())["image"]
    config = {
        "machine": f"{plan.name}-{host}",
        "group": f"{plan.name}/{host}",
        "bridge": plan.bridge,
        "image": image,
        "binds": binds,
    }
    write_atomically(paths.config, json.dumps(config, indent=2, sort_keys=True) + "\n")


def make_upper(plan: LabPlan, host: str) -> None:
    """Write all that a fresh host has beyond its image; it gets its name when it is whole."""
    paths = plan.paths.host(host)
    partial = paths.root / ".upper"
    remove_tree(partial)
    _fill(Upper(partial), plan, host)
    partial.rename(paths.upper)


def _fill(upper: Upper, plan: LabPlan, host: str) -> None:
    image = plan.image_of(host)
    for path, content in image.identity:
        upper.write(path, content)
    upper.write("etc/hostname", f"{host}\n")
    upper.write("etc/hosts", plan.names())
    upper.write("etc/resolv.conf", control_machine.resolv_conf())
    upper.write(
        "etc/systemd/network/10-host0.network",  # sorts before Debian's 80-container-host0
        NETWORK.format(address=plan.address(host), gateway=plan.gateway),
    )
    key = plan.paths.private_key
    upper.write("root/.ssh/authorized_keys", key.with_suffix(".pub").read_text(), 0o600)
    host_key = host_key_path(plan, host)
    upper.write("etc/ssh/ssh_host_ed25519_key", host_key.read_text(), 0o600)
    upper.write("etc/ssh/ssh_host_ed25519_key.pub", host_key.with_suffix(".pub").read_text())
    _carry_package_settings(upper, image.suite)
    if plan.gpus:
        upper.write("etc/apt/apt.conf.d/96mirror", DIRECT)
    if plan.is_simulated(host):
        upper.write(GPUS, parse_gpus(plan.gpus, host).render())
    if host == OUTSIDE:
        outside.fill_upper(upper, plan)
        if plan.gpus:
            server.fill_upper(upper)


def _carry_package_settings(upper: Upper, suite: str) -> None:
    upper.write("etc/apt/sources.list.d/debian.sources", control_machine.apt_sources_deb822(suite))
    if settings := control_machine.apt_settings():
        upper.write("etc/apt/apt.conf.d/95site", "\n".join(settings) + "\n")
    authorities = control_machine.own_authorities()
    for authority in authorities:
        upper.write(f"usr/local/share/ca-certificates/{authority.name}", authority.read_bytes())
    bundle = control_machine.ca_bundle()
    if bundle is not None and (authorities or bundle != control_machine.CA_BUNDLE):
        upper.write("etc/ssl/certs/ca-certificates.crt", bundle.read_bytes())
    if pip := control_machine.remote_pip_settings():
        lines = [f"{key} = {' '.join(values)}" for key, values in sorted(pip.items())]
        upper.write("etc/pip.conf", "\n".join(["[global]", *lines]) + "\n")


def host_key_path(plan: LabPlan, host: str) -> Path:
    """The host's SSH identity; kept apart from its files, so that a reset keeps it."""
    return plan.paths.private_key.parent / f"host_{host}"


def ensure_keys(plan: LabPlan) -> None:
    """Make the lab's key and its hosts' keys where they miss, and the list of known hosts."""
    folder = plan.paths.private_key.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in [plan.paths.private_key, *(host_key_path(plan, host) for host in plan.hosts)]:
        if not path.with_suffix(".pub").exists():  # takes its name after the private half
            _make_key(path, f"rackhand lab {plan.name}")
    known = ""
    for host in plan.hosts:
        kind, key, *_ = host_key_path(plan, host).with_suffix(".pub").read_text().split()
        known += f"{host},{plan.address(host)} {kind} {key}\n"
    write_atomically(plan.paths.known_hosts, known)


def _make_key(path: Path, comment: str) -> None:
    """Make a pair of keys where no `ssh-keygen` that outlives a killed command writes."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder, path.name)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", made])
        made.rename(path)
        made.with_suffix(".pub").rename(path.with_suffix(".pub"))


def forget_host(paths: HostPaths) -> None:
    """Take a stopped host's folder away; it ceases to be a host before its files go."""
    paths.config.unlink(missing_ok=True)
    remove_tree(paths.root)


def remove_tree(folder: Path) -> None:
    """Remove a folder of the lab.

    Raises:
        OpsError: Something is mounted in it, whose files must not be lost.
    """
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mounted = Path(line.split()[4])
        if mounted.is_relative_to(folder):
            raise OpsError(
                f"{mounted} is mounted inside a folder that is to be removed",
                place=str(folder),
                cure=f"umount {mounted}",
            )
    shutil.rmtree(folder, ignore_errors=not folder.exists())


def discard_tree(folder: Path) -> None:
    """Remove a folder at once by its name and then its files, so that no half of it is taken up.

    Raises:
        OpsError: Something is mounted inside.
    """
    doomed = folder if folder.name.startswith(DOOMED) else folder.with_name(DOOMED + folder.name)
    if folder != doomed and folder.exists():
        remove_tree(doomed)  # of a killed `down`
        folder.rename(doomed)
    remove_tree(doomed)
