#!/usr/bin/python
# Copyright: the Rackhand founders
"""Install exact versions of packages from given repositories, in one transaction."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_packages
short_description: Install exact versions of packages from given repositories, in one transaction
description:
  - Asks apt only when a package is missing or of another version, and reads the lists anew then.
  - Holds the versions by a preferences file of its own. Waits for a mirror in mid-sync.
  - In check mode on a host that lacks the repositories it answers as if they were there.
options:
  packages: {type: dict, required: true, description: "Version by name; empty for any version."}
  repositories: {type: list, elements: dict, default: [], description: Those that the role lays down.}
  name: {type: str, required: true, description: Name of the preferences file.}
  alternatives: {type: dict, default: {}, description: "Path by link; the link is made an alternative of its base name."}
  patience_s: {type: int, default: 300, description: Seconds for a mirror in mid-sync.}
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [The Rackhand founders]
"""

EXAMPLES = r"""
- name: The toolkit is 1.20.0
  rackhand.host.gpu_packages:
    name: rackhand-container-toolkit
    packages: {nvidia-container-toolkit: 1.20.0-1, nvidia-container-toolkit-base: 1.20.0-1}
"""

RETURN = r"""
installed:
  description: Versions after the call.
  returned: success
  type: dict
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackhand.host.plugins.module_utils import driver_record, gpu_hardware
from ansible_collections.rackhand.host.plugins.module_utils.driver_apt import (
    PREFERENCES_FOLDER,
    Apt,
    AptError,
    patiently,
    switch_off_doubles,
)
from ansible_collections.rackhand.host.plugins.module_utils.driver_packages import (
    Plan,
    Refusal,
    is_driver,
    version_pins,
)


class Packages:
    """The work of one call: compare, plan, hold, install."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.wanted: dict[str, str] = module.params["packages"]
        environment = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        self.apt = Apt(
            lambda command: module.run_command(list(command), environ_update=environment),
            module.tmpdir,
            module.params["name"],
        )

    def plan(self) -> Plan:
        """What apt would do.

        Raises:
            Refusal: a version is not offered, or a driver would move along.
        """
        offered = self.apt.versions(*self.wanted)
        for name, version in self.wanted.items():
            if version not in ("", *offered[name]) or not offered[name]:
                has = ", ".join(offered[name]) or "no version"
                raise Refusal(
                    f"{name} {version} is not offered; the repositories have {has}",
                    "set the role's version variable to one of those",
                )
        words = [f"{name}={version}" if version else name for name, version in self.wanted.items()]
        steps = self.apt.simulate(words, self.pins())
        moved = [step for step in steps if is_driver(step.name)]
        if moved:
            names = ", ".join(f"{step.name} {step.version}".strip() for step in moved)
            raise Refusal(
                f"apt would touch the driver: {names}", "leave the driver to nvidia_driver"
            )
        return Plan.of(steps)

    def pins(self) -> str:
        """Preferences that hold the versions."""
        return version_pins({n: v for n, v in self.wanted.items() if v}, self.module.params["name"])

    def run(self) -> dict[str, object]:
        """Do the work; the module's result."""
        check, plan = self.module.check_mode, Plan()
        found = self.apt.installed(*self.wanted)
        doubles = switch_off_doubles(self.module.params["repositories"], check)
        if any(name not in found or version not in ("", found[name])
               for name, version in self.wanted.items()):  # fmt: skip
            if check:
                self.apt.pretend(self.module.params["repositories"])
            else:
                self.apt.mend()
            patience = 0 if check else self.module.params["patience_s"]
            plan = patiently(self.apt, self.plan, patience)
        path = f"{PREFERENCES_FOLDER}/{self.module.params['name']}"
        held = gpu_hardware.read(path) == self.pins()
        if not check and not held:
            driver_record.replace(path, self.pins())
        if not check and plan.words():
            self.apt.release_holds(plan.install)
            self.apt.install(plan.words())
        chosen = [link for link, path in self.module.params["alternatives"].items()
                  if self.choose(link, path)]  # fmt: skip
        after = {n: v for n, v in {**found, **plan.install}.items() if n not in plan.remove}
        notes = doubles + ([] if held else [path]) + chosen
        return {
            "changed": bool(plan.words() or notes),
            "installed": after,
            "diff": {
                "before": lines({**found, **plan.before}),
                "after": lines(after) + "".join(f"{note}\n" for note in notes),
            },
        }

    def choose(self, link: str, path: str) -> bool:
        """Make a link an alternative that points to a path; whether it did not before."""
        name = os.path.basename(link)
        if os.path.islink(link) and os.path.realpath(link) == os.path.realpath(path):
            return False
        if not self.module.check_mode:
            make = ["update-alternatives", "--install", link, name, path, "100"]
            self.module.run_command(make, check_rc=True)
            self.module.run_command(["update-alternatives", "--set", name, path], check_rc=True)
        return True


def lines(packages: dict[str, str]) -> str:
    """Packages for people."""
    return "".join(f"{name} {version}\n" for name, version in sorted(packages.items()))


def main() -> None:
    """Entry point of the module."""
    os.umask(0o022)  # whatever the login's is
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "dict", "required": True},
            "repositories": {"type": "list", "elements": "dict", "default": [], "no_log": False},
            "name": {"type": "str", "required": True},
            "alternatives": {"type": "dict", "default": {}},
            "patience_s": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**Packages(module).run())
    except Refusal as refusal:
        module.fail_json(msg=str(refusal))
    except AptError as error:
        wait = " The mirror is in mid-sync: run again later." if error.is_mid_sync else ""
        module.fail_json(msg=f"apt refused: {error}.{wait}")


if __name__ == "__main__":
    main()
