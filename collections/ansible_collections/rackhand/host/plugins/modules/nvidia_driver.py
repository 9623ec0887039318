#!/usr/bin/python
# Copyright: the Rackhand founders
"""Bring a host's NVIDIA driver to what the inventory says: one judged apt transaction."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_driver
short_description: Bring a host's NVIDIA driver to what the inventory says
description:
  - Reads what the kernel shows, resolves the branch to exact versions, judges what apt would do,
    and carries it out in one transaction. A host that has what is wanted is not asked further.
  - Rebuilds the initramfs of kernels whose image is older than the files in I(initramfs_after).
  - Loads the module where none is loaded. Never reboots; says whether that is needed, and why.
  - Keeps what was there before in I(fact), from which I(packages) brings it back.
options:
  channel: {type: str, required: true, choices: [archive, cuda], description: Where packages come from.}
  branch: {type: str, required: true, description: The driver's branch, C(580).}
  version: {type: str, default: "", description: The exact version, or the newest of the branch.}
  module: {type: str, default: auto, choices: [auto, open, proprietary], description: Kernel modules.}
  kernel: {type: str, default: auto, description: Flavour of the kernel's metapackage.}
  update: {type: bool, default: false, description: Go to the newest version of the branch.}
  packages: {type: dict, default: {}, description: Exact versions to go back to.}
  dcgm: {type: bool, default: false, description: Whether DCGM 4 is wanted.}
  extra: {type: list, elements: str, default: [], description: Further packages.}
  repositories: {type: list, elements: dict, default: [], description: Those that the role lays down.}
  cuda_url: {type: str, default: "", description: Address of NVIDIA's repository.}
  initramfs_after: {type: list, elements: path, default: [], description: Files that go into it.}
  fact: {type: path, default: /etc/ansible/facts.d/nvidia_driver.fact, description: What is kept.}
  patience_s: {type: int, default: 300, description: Seconds for a mirror in mid-sync.}
  reboot: {type: str, default: auto, choices: [auto, never], description: "With never, warn."}
  must_be_loaded: {type: bool, default: false, description: Fail unless the wanted module runs.}
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [The Rackhand founders]
"""

EXAMPLES = r"""
- name: The driver is the newest of branch 580
  rackhand.host.nvidia_driver:
    channel: archive
    branch: "580"
"""

RETURN = r"""
reboot:
  description: Why a reboot is needed; empty if it is not.
  returned: always
  type: str
version:
  description: The driver's version on the disk.
  returned: always
  type: str
loaded:
  description: The driver's version in the kernel; empty if none is loaded.
  returned: always
  type: str
nvswitch:
  description: Whether the host has NVSwitch, and so the Fabric Manager.
  returned: always
  type: bool
"""

import dataclasses
import os
import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackhand.host.plugins.module_utils import driver_record, gpu_hardware
from ansible_collections.rackhand.host.plugins.module_utils.driver_apt import (
    PREFERENCES_FOLDER,
    Apt,
    AptError,
    forget_packages,
    patiently,
    switch_off_doubles,
)
from ansible_collections.rackhand.host.plugins.module_utils.driver_judgement import (
    choose_module,
    judge_request,
)
from ansible_collections.rackhand.host.plugins.module_utils.driver_packages import (
    Host,
    Plan,
    Refusal,
    Wanted,
    pins,
)
from ansible_collections.rackhand.host.plugins.module_utils.driver_resolution import (
    KERNEL_IMAGE,
    Resolution,
)

PREFERENCES = "rackhand-nvidia-driver"
STACK = (
    "*nvidia*", "cuda-drivers*", "libcuda1", "libnvsdm*", "nvlsm", "datacenter-gpu-manager*",
    "linux-image-*", "linux-headers-*", "libxnvctrl*",
)  # fmt: skip


class Driver:
    """The work of one call: look, resolve, transact, load, keep a record."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.actions: list[str] = []
        self.plan = Plan()
        environment = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        self.apt = Apt(
            lambda command: module.run_command(list(command), environ_update=environment),
            module.tmpdir,
            PREFERENCES,
        )
        self.installed = self.apt.installed(*STACK)
        kernels = gpu_hardware.bootable_kernels()
        self.host = Host(
            distribution="ubuntu" if is_ubuntu() else "debian",
            devices=gpu_hardware.gpus(),
            nvswitch=gpu_hardware.has_nvswitch(),
            secure_boot=gpu_hardware.secure_boot(),
            key_enrolled=gpu_hardware.dkms_key_is_enrolled(),
            kernels=kernels or [os.uname().release],
        )

    # -- what is wanted -------------------------------------------------------------------------
    def resolution(self) -> Resolution:
        """The question, judged as far as that goes without apt."""
        given = self.params
        wanted = Wanted(
            channel=given["channel"],
            branch=given["branch"],
            version=given["version"],
            module=given["module"],
            flavour=self.flavour(),
            fabric_manager=self.host.nvswitch,
            dcgm=given["dcgm"],
            extra=given["extra"],
        )
        judge_request(self.host, wanted)
        return Resolution(
            host=self.host,
            wanted=wanted,
            module=choose_module(wanted, self.host.devices),
            installed=self.installed,
            cuda_url=given["cuda_url"],
            update=given["update"] and not given["must_be_loaded"],
            packages=given["packages"],
        )

    def flavour(self) -> str:
        """The kernel's metapackage: the one that is installed, else the running kernel's."""
        if self.params["kernel"] != "auto":
            return str(self.params["kernel"])
        metas = [
            name.removeprefix("linux-image-")
            for name in self.installed
            if name.startswith("linux-image-") and not KERNEL_IMAGE.match(name)
        ]
        newest = self.host.kernels[-1]
        running = newest.rsplit("-", 1)[-1]
        fitting = [m for m in metas if m == "virtual" or m.split("-")[0] == running]
        fitting.sort(key=lambda m: self.installed[f"linux-image-{m}"], reverse=True)
        return (fitting or [running])[0].replace("virtual", "generic")

    # -- packages -------------------------------------------------------------------------------
    def transact(self, resolution: Resolution) -> None:
        """Ask apt, and do what it said in one transaction."""
        check = self.module.check_mode
        if check:
            self.apt.pretend(self.params["repositories"])
        else:
            self.apt.mend()
        patience = 0 if check else self.params["patience_s"]
        self.plan = patiently(self.apt, lambda: resolution.plan(self.apt), patience)
        if not self.plan.words():
            return
        self.actions += [f"install {n} {v}" for n, v in self.plan.install.items()]
        self.actions += [f"remove {name}" for name in self.plan.remove]
        if check:
            return
        self.apt.release_holds([*self.plan.install, *self.plan.remove])
        self.let_running_kernel_go()
        self.hold(resolution, self.after())
        self.apt.install(self.plan.words())
        self.mark_dependencies(resolution)
        self.installed = self.apt.installed(*STACK)

    def let_running_kernel_go(self) -> None:
        """Going back may take the running kernel away; answer the question that would stop it."""
        if f"linux-image-{os.uname().release}" in self.plan.remove:
            question = "linux-base linux-base/removing-running-kernel boolean false"
            self.module.run_command(["debconf-set-selections"], data=question, check_rc=True)

    def mark_dependencies(self, resolution: Resolution) -> None:
        """What came only as a dependency may leave with what needed it."""
        named = {*resolution.names, *resolution.packages, resolution.kernel_image}
        came = [n for n in self.plan.install if n not in self.plan.before and n not in named]
        if came:
            self.module.run_command(["apt-mark", "auto", *came], check_rc=True)

    def hold(self, resolution: Resolution, packages: dict[str, str]) -> None:
        """Write the preferences that hold the stack at these versions."""
        text = pins(resolution.stack(packages))
        path = f"{PREFERENCES_FOLDER}/{PREFERENCES}"
        if gpu_hardware.read(path) == text:
            return
        self.actions.append(f"hold the stack at its versions in {path}")
        if not self.module.check_mode:
            driver_record.replace(path, text)

    # -- modules --------------------------------------------------------------------------------
    def ensure_initramfs(self) -> None:
        """Rebuild images that are older than what goes into them, for kernels with a driver."""
        for kernel in self.host.kernels:
            image = f"/boot/initrd.img-{kernel}"
            if not driver_record.is_older(image, self.params["initramfs_after"]):
                continue
            if not gpu_hardware.installed_module(kernel):
                continue
            self.actions.append(f"rebuild the initramfs of {kernel}")
            if not self.module.check_mode:
                self.module.run_command(["update-initramfs", "-u", "-k", kernel], check_rc=True)

    def ensure_loaded(self, version: str) -> str:
        """Load the module where none is loaded; returns why a reboot is needed, if it is."""
        running = os.uname().release
        loaded = gpu_hardware.loaded_driver()
        on_disk = gpu_hardware.installed_module(running)
        if loaded:
            if loaded.version == version and (on_disk is None or on_disk.flavour == loaded.flavour):
                return ""
            return f"{loaded.version} ({loaded.flavour}) is loaded, {version} is installed"
        if gpu_hardware.nouveau_is_loaded():
            return "nouveau holds the GPUs"
        if self.module.check_mode and self.plan.install:
            return "" if self.host.kernels[-1] == running else "another kernel boots next"
        if not on_disk or on_disk.version != version:
            return f"the running kernel {running} has no module {version}"
        self.actions.append("modprobe nvidia")
        if not self.module.check_mode:
            code, out, err = self.module.run_command(["modprobe", "nvidia"])
            if code != 0:
                raise Refusal(
                    f"the module {version} is installed and does not load: {(err or out).strip()}",
                    "see `journalctl -k | grep -i -e nvidia -e nvrm`",
                )
        return ""

    def next_kernel_has(self, version: str) -> bool:
        """Whether the kernel that boots next has the driver's module."""
        found = gpu_hardware.installed_module(self.host.kernels[-1])
        return found is not None and found.version == version

    def ensure_modules(self, version: str) -> None:
        """Have DKMS build what it missed; refuse to leave a kernel that boots next without a driver.

        Raises:
            Refusal: the kernel has no module, or one of another version.
        """
        if self.next_kernel_has(version) or (self.module.check_mode and self.plan.install):
            return
        kernel = self.host.kernels[-1]
        if self.params["channel"] == "cuda" and self.module.get_bin_path("dkms"):
            self.actions.append(f"dkms autoinstall -k {kernel}")
            if not self.module.check_mode:
                self.module.run_command(["dkms", "autoinstall", "-k", kernel])
            if self.module.check_mode or self.next_kernel_has(version):
                return
        found = gpu_hardware.installed_module(kernel)
        has = f"has module {found.version}" if found else "has none"
        raise Refusal(
            f"the driver is {version}, and kernel {kernel}, which boots next, {has}",
            f"see /var/lib/dkms/nvidia/{version}/build/make.log, and that linux-headers-{kernel} "
            "is installed"
            if self.params["channel"] == "cuda"
            else f"remove linux-image-{kernel}, or set nvidia_driver_kernel to its flavour",
        )

    # -- the whole ------------------------------------------------------------------------------
    def after(self) -> dict[str, str]:
        """Packages once the plan is carried out."""
        packages = {**self.installed, **self.plan.install}
        return {n: v for n, v in packages.items() if n not in self.plan.remove}

    def run(self) -> dict[str, object]:
        """Do the work; the module's result."""
        before = dict(self.installed)
        resolution = self.resolution()
        self.actions += switch_off_doubles(self.params["repositories"], self.module.check_mode)
        if not resolution.is_settled() or not self.next_kernel_has(resolution.version(before)):
            self.transact(resolution)
        after = self.after()
        version = resolution.version(after)
        self.host = dataclasses.replace(
            self.host, kernels=gpu_hardware.bootable_kernels() or self.host.kernels
        )
        self.ensure_modules(version)
        self.hold(resolution, after)
        self.ensure_initramfs()
        reboot = self.ensure_loaded(version)
        self.keep_record(resolution, before, after)
        loaded = gpu_hardware.loaded_driver()
        if reboot and self.params["reboot"] == "never":
            self.module.warn(f"this host needs a reboot: {reboot}")
        if reboot and self.params["must_be_loaded"]:
            raise Refusal(f"after the reboot still {reboot}", "see `journalctl -b -k`")
        return {
            "changed": bool(self.actions),
            "actions": self.actions,
            "reboot": reboot,
            "version": version,
            "loaded": loaded.version if loaded else "",
            "nvswitch": self.host.nvswitch,
            "diff": self.diff(before, after),
        }

    def keep_record(
        self, resolution: Resolution, before: dict[str, str], after: dict[str, str]
    ) -> None:
        """Keep what is there, and what was there before it, for the way back."""
        now = driver_record.state(self.params["channel"], resolution.stack(after))
        path = self.params["fact"]
        known = gpu_hardware.read(path)
        found = driver_record.state("", resolution.stack(before))
        record = driver_record.advance(known, now, found)
        text = driver_record.render(record)
        if known == text:
            return
        self.actions.append(f"record {now['version']} in {path}")
        if not self.module.check_mode:
            driver_record.replace(path, text)
            forget_packages(now["packages"], record["previous"].get("packages", {}))

    def diff(self, before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
        """Packages and actions for people."""
        if not self.actions:
            return {"before": "", "after": ""}
        changed = [n for n in sorted({*before, *after}) if before.get(n) != after.get(n)]
        others = [a for a in self.actions if not a.startswith(("install ", "remove "))]
        return {
            "before": "".join(f"{n} {before[n]}\n" for n in changed if n in before),
            "after": "".join(
                [*(f"{n} {after[n]}\n" for n in changed if n in after), *(f"{a}\n" for a in others)]
            ),
        }


def is_ubuntu() -> bool:
    """Whether the host is Ubuntu; Debian otherwise (preflight lets nothing else pass)."""
    return bool(re.search(r'^ID="?ubuntu', gpu_hardware.read("/etc/os-release"), re.MULTILINE))


def main() -> None:
    """Entry point of the module."""
    os.umask(0o022)  # whatever the login's is
    text = {"type": "str", "default": ""}
    names = {"type": "list", "elements": "str", "default": []}
    yes_or_no = {"type": "bool", "default": False}
    module = AnsibleModule(
        argument_spec={
            "channel": {"type": "str", "required": True, "choices": ["archive", "cuda"]},
            "branch": {"type": "str", "required": True},
            "version": text,
            "module": {
                "type": "str",
                "default": "auto",
                "choices": ["auto", "open", "proprietary"],
            },
            "kernel": {"type": "str", "default": "auto"},
            "update": yes_or_no,
            "packages": {"type": "dict", "default": {}},
            "dcgm": yes_or_no,
            "extra": names,
            "repositories": {"type": "list", "elements": "dict", "default": [], "no_log": False},
            "cuda_url": text,
            "initramfs_after": {"type": "list", "elements": "path", "default": []},
            "fact": {"type": "path", "default": "/etc/ansible/facts.d/nvidia_driver.fact"},
            "patience_s": {"type": "int", "default": 300},
            "reboot": {"type": "str", "default": "auto", "choices": ["auto", "never"]},
            "must_be_loaded": yes_or_no,
        },
        supports_check_mode=True,
    )
    driver = Driver(module)
    try:
        module.exit_json(**driver.run())
    except Refusal as refusal:
        module.fail_json(msg=str(refusal), actions=driver.actions)
    except AptError as error:
        wait = " The mirror is in mid-sync: run again later." if error.is_mid_sync else ""
        module.fail_json(msg=f"apt refused: {error}.{wait}", actions=driver.actions)


if __name__ == "__main__":
    main()
