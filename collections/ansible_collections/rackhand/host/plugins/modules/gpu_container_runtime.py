#!/usr/bin/python
# Copyright: the Rackhand founders
"""Have a container runtime know NVIDIA's GPUs, and leave the rest of its configuration alone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_container_runtime
short_description: Have a container runtime know NVIDIA's GPUs
description:
  - Asks C(nvidia-ctk runtime configure --dry-run) for the merged configuration, compares it with what
    is there, and writes it whole or not at all. Keys that are not NVIDIA's stay as they are.
options:
  runtime: {type: str, required: true, choices: [docker], description: The runtime.}
  config: {type: path, default: /etc/docker/daemon.json, description: Its configuration.}
  cdi: {type: bool, default: true, description: Whether the runtime reads CDI specifications.}
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [The Rackhand founders]
"""

EXAMPLES = r"""
- name: Docker knows the GPUs
  rackhand.host.gpu_container_runtime:
    runtime: docker
"""

RETURN = r"""
config:
  description: The configuration after the call.
  returned: success
  type: dict
"""

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackhand.host.plugins.module_utils import driver_record, gpu_hardware


def merged(module: AnsibleModule, text: str) -> dict[str, Any]:
    """The configuration as nvidia-ctk would have it.

    In check mode on a host that has no nvidia-ctk yet, its keys as NVIDIA documents them.
    """
    params = module.params
    if module.check_mode and not module.get_bin_path("nvidia-ctk"):
        config: dict[str, Any] = json.loads(text or "{}")
        runtime = {"args": [], "path": "nvidia-container-runtime"}
        config["runtimes"] = {**config.get("runtimes", {}), "nvidia": runtime}
        if params["cdi"]:
            config["features"] = {**config.get("features", {}), "cdi": True}
        return config
    command = ["nvidia-ctk", "runtime", "configure", f"--runtime={params['runtime']}"]
    command += [f"--config={params['config']}", "--dry-run"]
    command += ["--cdi.enabled"] if params["cdi"] else []
    code, out, err = module.run_command(command)
    try:
        config = json.loads(out)
    except ValueError:
        config = {}
    if code != 0 or not config:
        module.fail_json(
            msg=f"nvidia-ctk cannot merge into {params['config']}: {(err or out).strip()} "
            f"Cure: correct that file (`python3 -m json.tool {params['config']}`)."
        )
    return config


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "runtime": {"type": "str", "required": True, "choices": ["docker"]},
            "config": {"type": "path", "default": "/etc/docker/daemon.json"},
            "cdi": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    path = module.params["config"]
    text = gpu_hardware.read(path)
    try:
        current = json.loads(text or "{}")
    except ValueError as error:
        module.fail_json(
            msg=f"{path} is no JSON: {error}. Cure: correct it; the role only adds to it."
        )
    config = merged(module, text)
    after = json.dumps(config, indent=4) + "\n"
    changed = config != current
    if changed and not module.check_mode:
        driver_record.replace(path, after)
    diff = {"before_header": path, "after_header": path}
    diff |= {"before": text, "after": after if changed else text}
    module.exit_json(changed=changed, config=config, diff=diff)


if __name__ == "__main__":
    main()
