#!/usr/bin/python
# Copyright: the Rackhand founders
"""A model revision on a host: staged, checksummed, then renamed into place once and for all."""

from __future__ import annotations

DOCUMENTATION = r"""
module: weights
short_description: Stage a model revision with a manifest of checksums
description:
  - A revision lies in C(<root>/<name>/<revision>) with C(.manifest.json), the sha256 and size of
    every file. It is written to a staging folder, verified, and renamed; it is never changed after.
  - Staging resumes - a file whose checksum is right already is not fetched again.
options:
  path: {type: path, required: true, description: Where the revision lies.}
  source:
    type: str
    required: true
    description:
      - C(hf://org/name) is fetched from the hub or its mirror by the host.
      - C(host:///folder) is copied from a folder of the host, an NFS mount for one.
      - C(file:///folder) lies on the control machine; the action plugin sends it.
  revision: {type: str, required: true, description: The hub's revision, or any name for the content.}
  fetch_command: {type: str, default: "", description: The hub client, C(hf) of the engine's environment.}
  endpoint: {type: str, default: "", description: Address of a hub mirror.}
  token_file: {type: path, default: "", description: File on the host with the hub's token.}
  ca_file: {type: str, default: "", description: CA bundle for the hub.}
  manifest: {type: dict, default: {}, description: "What C(file://) must hold, path to sha256 and size."}
  step: {type: str, choices: [probe, missing, finish], default: finish, description: Which part of the work.}
attributes:
  check_mode: {support: full}
author: [The Rackhand founders]
"""

RETURN = r"""
complete:
  description: Whether the revision is in place.
  returned: always
  type: bool
missing:
  description: Files that the control machine still has to send.
  returned: with step=missing
  type: list
"""

import os
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackhand.host.plugins.module_utils.manifest import (
    MANIFEST,
    SPARE_BYTES,
    STAGING,
    Files,
    clear,
    describe,
    is_right,
    seal,
)


class Staging:
    """One revision on its way into place."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.path: str = module.params["path"]
        self.folder = self.path + STAGING

    def is_complete(self) -> bool:
        return os.path.exists(os.path.join(self.path, MANIFEST))

    def copy(self, place: str) -> None:
        """Copy what a host folder has and the staging folder has not, or not right."""
        wanted = describe(place)
        for name in self.missing(wanted):
            shutil.copyfile(os.path.join(place, name), os.path.join(self.folder, name))
        self.module.params["manifest"] = wanted

    def missing(self, wanted: Files) -> list[str]:
        """Names of the manifest whose staged copy is absent or wrong; makes room for them."""
        os.makedirs(self.folder, mode=0o755, exist_ok=True)
        clear(self.folder, wanted)
        absent = []
        for name, entry in wanted.items():
            path = os.path.join(self.folder, name)
            if not is_right(path, entry):
                absent.append(name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
        self.require_space(sum(wanted[name]["size"] for name in absent))
        return absent

    def require_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < needed + SPARE_BYTES:
            self.module.fail_json(
                msg=f"{os.path.dirname(self.path)} has {free / 2**30:.1f} GiB free and "
                f"{self.module.params['source']} needs {needed / 2**30:.1f} GiB: free space or "
                "remove an old revision"
            )

    def fetch(self) -> None:
        """Bring a hub's or a host folder's files into the staging folder."""
        params = self.module.params
        os.makedirs(self.folder, mode=0o755, exist_ok=True)
        scheme, _, place = params["source"].partition("://")
        if scheme == "host":
            if not os.path.isdir(place):
                self.module.fail_json(msg=f"models: source {params['source']}: no such folder here")
            self.copy(place)
        elif scheme == "hf":
            self.fetch_from_hub(place)

    def fetch_from_hub(self, repository: str) -> None:
        params = self.module.params
        variables = {"HF_HUB_OFFLINE": "0", "HF_XET_HIGH_PERFORMANCE": "1"}
        if params["endpoint"]:
            variables["HF_ENDPOINT"] = params["endpoint"]
        if params["token_file"]:
            variables["HF_TOKEN_PATH"] = params["token_file"]
        if params["ca_file"]:
            variables["SSL_CERT_FILE"] = variables["REQUESTS_CA_BUNDLE"] = params["ca_file"]
        argv = [params["fetch_command"], "download", repository, "--revision", params["revision"]]
        code, out, err = self.module.run_command(
            [*argv, "--local-dir", self.folder], environ_update=variables
        )
        if code != 0:
            tail = "\n".join((err or out).strip().splitlines()[-5:])
            self.module.fail_json(
                msg=f"models: {repository} at revision {params['revision']} was not fetched (a "
                "next run resumes). Wrong name, no token for a gated model, or no way to the "
                f"hub: {tail}"
            )

    def finish(self) -> None:
        """Verify what was staged, write the manifest and rename into place."""
        shutil.rmtree(os.path.join(self.folder, ".cache"), ignore_errors=True)
        found = describe(self.folder)
        wanted = self.module.params["manifest"]
        if wanted and found != wanted:
            wrong = sorted(n for n in {*found, *wanted} if found.get(n) != wanted.get(n))
            self.module.fail_json(msg=f"{self.folder}: checksums differ for {wrong}; run again")
        if "config.json" not in found:
            self.module.fail_json(
                msg=f"models: {self.module.params['source']} holds no config.json: not a model"
            )
        seal(self.folder, self.path, self.module.params["source"], found)


def main() -> None:
    """Entry point of the module."""
    os.umask(0o022)  # whatever the login's is
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "source": {"type": "str", "required": True},
            "revision": {"type": "str", "required": True},
            "fetch_command": {"type": "str", "default": ""},
            "endpoint": {"type": "str", "default": ""},
            "token_file": {"type": "path", "default": "", "no_log": False},
            "ca_file": {"type": "str", "default": ""},
            "manifest": {"type": "dict", "default": {}},
            "step": {"choices": ["probe", "missing", "finish"], "default": "finish"},
        },
        supports_check_mode=True,
    )
    staging, step = Staging(module), module.params["step"]
    if staging.is_complete():
        module.exit_json(changed=False, complete=True)
    if step == "probe" or module.check_mode:
        after = f"{module.params['path']} staged from {module.params['source']}\n"
        module.exit_json(changed=True, complete=False, diff={"before": "", "after": after})
    if step == "missing":
        missing = staging.missing(module.params["manifest"])
        module.exit_json(changed=True, complete=False, missing=missing, folder=staging.folder)
    if not module.params["source"].startswith("file://"):
        staging.fetch()
    staging.finish()
    module.exit_json(changed=True, complete=True)


if __name__ == "__main__":
    main()
