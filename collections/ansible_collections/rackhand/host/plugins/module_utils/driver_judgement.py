# Copyright: the Rackhand founders
"""Whether a request, an index and apt's answer to it lead to the driver that was asked for.

Pure: everything here works on words, and every no comes with its reason and its cure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ansible_collections.rackhand.host.plugins.module_utils.driver_packages import (
    TRAP_PATTERN,
    TRAPS,
    Host,
    Refusal,
    Step,
    Wanted,
    branch_in,
    branch_of,
    is_driver,
    is_other_kind,
    upstream,
)
from ansible_collections.rackhand.host.plugins.module_utils.gpu_hardware import (
    BEFORE_OPEN_MODULES,
    ONLY_OPEN_MODULES,
    architecture_of,
)

#: The first branch whose modules exist in the open form, for servers (NVIDIA's release notes).
FIRST_OPEN_BRANCH = 515
#: The last branch for Maxwell, Pascal and Volta (NVIDIA's data-centre driver lifecycle).
LAST_BRANCH_BEFORE_TURING = 580
FIRST_BLACKWELL_BRANCH = 570


def choose_module(wanted: Wanted, devices: Sequence[str]) -> str:
    """`open` or `proprietary`: what was asked for, or what the GPUs take.

    Raises:
        Refusal: these GPUs, or this branch, do not take it.
    """
    architectures = sorted({architecture_of(device) for device in devices})
    old = [a for a in architectures if a in BEFORE_OPEN_MODULES]
    new = [a for a in architectures if a in ONLY_OPEN_MODULES]
    branch, names = int(wanted.branch), ", ".join(architectures)
    if old and new:
        raise Refusal(
            f"no driver serves all GPUs of this host ({names}): {', '.join(old)} takes only the "
            f"proprietary modules, {', '.join(new)} only the open ones",
            "give one kind its own host",
        )
    if old and branch > LAST_BRANCH_BEFORE_TURING:
        raise Refusal(
            f"branch {branch} no longer knows {', '.join(old)} GPUs",
            f'set nvidia_driver_branch: "{LAST_BRANCH_BEFORE_TURING}"',
        )
    if "blackwell" in new and branch < FIRST_BLACKWELL_BRANCH:
        raise Refusal(
            f"branch {branch} does not know Blackwell GPUs", 'set nvidia_driver_branch: "580"'
        )
    can_open = not old and branch >= FIRST_OPEN_BRANCH
    if wanted.module == "auto":
        return "open" if can_open else "proprietary"
    if wanted.module == "open" and not can_open:
        why = f"{', '.join(old)} GPUs do not" if old else f"branch {branch} does not"
        raise Refusal(f"{why} take the open modules", "set nvidia_driver_module: auto")
    if wanted.module == "proprietary" and new:
        raise Refusal(
            f"{', '.join(new)} GPUs take the open modules only", "set nvidia_driver_module: auto"
        )
    return wanted.module


def judge_request(host: Host, wanted: Wanted) -> None:
    """Refuse what no package index could make right.

    Raises:
        Refusal: with the reason and the way out.
    """
    if not re.fullmatch(r"\d{3}", wanted.branch):
        raise Refusal(f"nvidia_driver_branch {wanted.branch!r} is no branch", 'write "580"')
    if wanted.version and branch_of(wanted.version) != wanted.branch:
        raise Refusal(
            f"nvidia_driver_version {wanted.version} is not of branch {wanted.branch}",
            "correct the one or the other",
        )
    if wanted.channel == "archive" and host.distribution != "ubuntu":
        raise Refusal(
            "channel archive is Ubuntu's; this host runs Debian", "set nvidia_driver_channel: cuda"
        )
    for name in wanted.extra:
        if name in TRAPS or TRAP_PATTERN.match(name):
            raise Refusal(f"package {name} {TRAPS.get(name, TRAPS['cuda'])}", "take it out")
    judge_secure_boot(host, wanted)


def judge_secure_boot(host: Host, wanted: Wanted) -> None:
    """Refuse modules that the firmware would not let the kernel load.

    Raises:
        Refusal: DKMS under Secure Boot without an enrolled key.
    """
    if wanted.channel != "cuda" or not host.secure_boot or host.key_enrolled:
        return
    ubuntu = "set nvidia_driver_channel: archive, whose modules are signed by Ubuntu; or "
    raise Refusal(
        "Secure Boot is on, and channel cuda builds modules on the host (DKMS) that nobody signed: "
        "the kernel would refuse them",
        (ubuntu if host.distribution == "ubuntu" else "")
        + "enrol DKMS's own key (mokutil --import /var/lib/dkms/mok.pub, then confirm at the "
        "console); or switch Secure Boot off in the firmware",
    )


def choose_version(
    wanted: Wanted, name: str, versions: Iterable[str], known: Iterable[str], leads_to: str = ""
) -> str:
    """The package version to install, of those that are offered newest first.

    Args:
        wanted: The inventory's words.
        name: The package that tells the driver's version.
        versions: Its versions in the index, newest first.
        known: Branches that the index has, for the message.
        leads_to: Where a stub ends, if it is one.

    Raises:
        Refusal: the branch is unknown, is a stub, or lacks the version.
    """
    versions = list(versions)
    ours = [v for v in versions if branch_of(v) == wanted.branch]
    others = ", ".join(sorted(known)) or "none"
    if not ours and versions:
        target = leads_to or branch_of(versions[0])
        raise Refusal(
            f"branch {wanted.branch} is no more: {name} {versions[0]} is a stub that installs "
            f"branch {target}",
            f'set nvidia_driver_branch: "{target}" if that is wanted; this index has {others}',
        )
    if not ours:
        raise Refusal(
            f"no repository of this host has {name}",
            f"set nvidia_driver_branch to one of: {others}"
            + (
                "; Ubuntu's component `restricted` must be on"
                if wanted.channel == "archive"
                else ""
            ),
        )
    if not wanted.version:
        return ours[0]
    for version in ours:
        if upstream(version) == wanted.version:
            return version
    offered = ", ".join(upstream(v) for v in ours)
    raise Refusal(
        f"version {wanted.version} is no longer offered; the index has {offered}",
        "set nvidia_driver_version to one of those, or keep a mirror that keeps old versions",
    )


def judge_steps(steps: Iterable[Step], wanted: Wanted, module: str) -> None:
    """Refuse a transaction that would leave another driver than the one asked for.

    Args:
        steps: What apt says that it would do.
        wanted: The inventory's words.
        module: `open` or `proprietary`, as chosen.

    Raises:
        Refusal: another branch or kind of module, DKMS beside signed modules, or a removal of what
            is not the driver's.
    """
    for step in steps:
        if step.action == "Remv" and not is_driver(step.name) and step.name not in TRAPS:
            judge_removal(step)
        if step.action == "Inst" and is_driver(step.name):
            judge_step(step, wanted, module)
        if step.action == "Inst" and step.name == "dkms" and wanted.channel == "archive":
            raise Refusal(
                "the transaction would bring DKMS, although the archive has signed modules",
                "report this with the output of `apt-get --simulate install` for these packages",
            )


def judge_removal(step: Step) -> None:
    """Refuse to take away what has nothing to do with the driver.

    Raises:
        Refusal: always, but for kernels and what is named like the driver.
    """
    if not step.name.startswith(("linux-", "nvidia-", "libnvidia-", "datacenter-gpu-manager")):
        raise Refusal(
            f"apt would remove {step.name} for this driver",
            f"remove {step.name} yourself if it can go, or choose another branch",
        )


def judge_step(step: Step, wanted: Wanted, module: str) -> None:
    """Refuse one package of the driver that is of another branch or kind.

    Raises:
        Refusal: naming the package that would move the host.
    """
    said, is_ = branch_in(step.name), branch_of(step.version)
    for branch in (said, is_):
        if branch and branch != wanted.branch:
            raise Refusal(
                f"branch {wanted.branch} would move this host to branch {branch}: its packages "
                f"depend on {step.name} {step.version}",
                f'set nvidia_driver_branch: "{branch}" if that is wanted',
            )
    if is_other_kind(step.name, module):
        raise Refusal(
            f"branch {wanted.branch} has no {module} modules here: its packages depend on "
            f"{step.name}",
            f"set nvidia_driver_module: {'proprietary' if module == 'open' else 'open'} or auto",
        )


def uncovered_kernels(kernels: Sequence[str], names: Iterable[str], wanted: Wanted) -> list[str]:
    """Kernels newer than every one that the packages have signed modules for: one would boot next.

    Args:
        kernels: Releases that can boot once the transaction is done, oldest first.
        names: Packages that are installed then.
        wanted: The inventory's words.
    """
    if wanted.channel != "archive":
        return []
    texts = [n for n in names if n.startswith("linux-modules-nvidia-") and is_driver(n)]
    covered = [i for i, kernel in enumerate(kernels) if any(t.endswith(kernel) for t in texts)]
    return list(kernels[covered[-1] + 1 :]) if covered else list(kernels)
