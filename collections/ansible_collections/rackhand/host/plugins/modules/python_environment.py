#!/usr/bin/python
# Copyright: the Rackhand founders
"""A virtual environment from a hashed lock, complete or absent."""

from __future__ import annotations

DOCUMENTATION = r"""
module: python_environment
short_description: Build a virtual environment from a hashed lock
description:
  - An environment is immutable. Its C(.complete) marker holds the digest of the lock and wheels
    that made it; while it matches nothing is done, otherwise the environment is built anew.
  - Built by uv, which is installed on the host from its own hashed pin.
options:
  path: {type: path, required: true, description: Where the environment lies.}
  digest: {type: str, required: true, description: "sha256 of the lock, from the action plugin."}
  lock_text: {type: str, default: "", description: The hashed lock.}
  uv_lock_text: {type: str, default: "", description: The hashed pin of uv.}
  wheels: {type: list, elements: str, default: [], description: "Wheels on the host, without their needs."}
  python: {type: str, default: /usr/bin/python3, description: The interpreter.}
  index_url: {type: str, default: "", description: "Package index; empty is the ecosystem's own."}
  extra_index_urls: {type: list, elements: str, default: [], description: Further indexes.}
  find_links: {type: list, elements: str, default: [], description: Folders or pages of wheels.}
  offline: {type: bool, default: false, description: Use find_links only.}
  ca_file: {type: str, default: "", description: CA bundle for the index.}
  overlay: {type: dict, default: {}, description: "Files to write into site-packages, path to text."}
  probe: {type: bool, default: false, description: Only say whether the environment is complete.}
attributes:
  check_mode: {support: full}
author: [The Rackhand founders]
"""

RETURN = r"""
complete:
  description: Whether the environment is there and made from this lock.
  returned: always
  type: bool
"""

import contextlib
import os
import shutil
import tempfile
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule

UV = "/opt/rackhand/uv/bin/uv"


def is_complete(path: str, digest: str) -> bool:
    """Whether the marker names this digest."""
    try:
        with open(os.path.join(path, ".complete"), encoding="utf-8") as stream:
            return stream.read().strip() == digest
    except OSError:
        return False


class Builder:
    """Builds one environment with the settings of one call."""

    def __init__(self, module: AnsibleModule, work: str) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.work = work

    def run(self, step: str, *argv: str) -> None:
        """Run one command of the build; fail with its step and last lines."""
        code, out, err = self.module.run_command(list(argv), environ_update=self.environment())
        if code != 0:
            tail = "\n".join((err or out).strip().splitlines()[-15:])
            self.module.fail_json(
                msg=f"{step} failed for {self.params['path']} (the environment is incomplete and "
                f"will be built anew): {tail}"
            )

    def environment(self) -> dict[str, str]:
        """Variables that point pip and uv at the site's package sources."""
        wanted = {
            "UV_DEFAULT_INDEX": self.params["index_url"],
            "PIP_INDEX_URL": self.params["index_url"],
            "UV_INDEX": " ".join(self.params["extra_index_urls"]),
            "PIP_EXTRA_INDEX_URL": " ".join(self.params["extra_index_urls"]),
            "UV_FIND_LINKS": ",".join(self.params["find_links"]),
            "PIP_FIND_LINKS": " ".join(self.params["find_links"]),
            "PIP_NO_INDEX": "1" if self.params["offline"] else "",
            "PIP_TRUSTED_HOST": " ".join(self.plain_hosts()),
            "SSL_CERT_FILE": self.params["ca_file"],
            "PIP_CERT": self.params["ca_file"],
        }
        return {k: v for k, v in wanted.items() if v} | {
            "UV_CACHE_DIR": os.path.join(self.work, "uv-cache"),
            "UV_NO_CONFIG": "1",
            "UV_SYSTEM_CERTS": "1",  # the host's own CA store, an inner CA of the site included
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_INDEX_STRATEGY": "unsafe-best-match",  # every file is pinned by hash
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def plain_hosts(self) -> list[str]:
        """Hosts that are asked without TLS, which pip wants to be told: the hashes keep it safe."""
        params = self.params
        sources = [params["index_url"], *params["extra_index_urls"], *params["find_links"]]
        places = [urlsplit(source) for source in sources]
        return sorted({place.netloc for place in places if place.scheme == "http"})

    def write(self, name: str, text: str) -> str:
        path = os.path.join(self.work, name)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)
        return path

    def ensure_uv(self) -> None:
        """Install uv from its hashed pin unless this very pin is there."""
        home = os.path.dirname(os.path.dirname(UV))
        text = self.params["uv_lock_text"]
        marker = os.path.join(home, ".lock")
        if os.path.exists(UV) and os.path.exists(marker):
            with open(marker, encoding="utf-8") as stream:
                if stream.read() == text:
                    return
        shutil.rmtree(home, ignore_errors=True)
        self.run("Making uv's environment", self.params["python"], "-m", "venv", home)
        lock = self.write("uv.lock.txt", text)
        pip = os.path.join(home, "bin", "pip")
        self.run("Installing uv", pip, "install", "--require-hashes", "-r", lock)
        with open(marker, "w", encoding="utf-8") as stream:
            stream.write(text)

    def build(self) -> None:
        """Build the environment and set its marker last."""
        path = self.params["path"]
        self.ensure_uv()
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.run("Making the environment", UV, "venv", "--python", self.params["python"], path)
        python = os.path.join(path, "bin", "python")
        lock = self.write("requirements.lock.txt", self.params["lock_text"])
        install = [UV, "pip", "install", "--python", python, "--compile-bytecode", "--no-deps"]
        if self.params["offline"]:
            install.append("--no-index")  # uv has no variable for it
        self.run("Installing the lock", *install, "--require-hashes", "-r", lock)
        if self.params["wheels"]:
            self.run("Installing the wheels", *install, *self.params["wheels"])
        self.write_overlay(path)
        # uv leaves its lock file behind, which everyone may write.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(path, ".lock"))
        with open(os.path.join(path, ".complete"), "w", encoding="utf-8") as stream:
            stream.write(self.params["digest"] + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def write_overlay(self, path: str) -> None:
        lib = os.path.join(path, "lib")
        for name, text in self.params["overlay"].items():
            target = os.path.join(lib, sorted(os.listdir(lib))[0], "site-packages", name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "w", encoding="utf-8") as stream:
                stream.write(text)


def main() -> None:
    """Entry point of the module."""
    os.umask(0o022)  # whatever the login's is
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "digest": {"type": "str", "required": True},
            "lock_text": {"type": "str", "default": ""},
            "uv_lock_text": {"type": "str", "default": ""},
            "wheels": {"type": "list", "elements": "str", "default": []},
            "python": {"type": "str", "default": "/usr/bin/python3"},
            "index_url": {"type": "str", "default": ""},
            "extra_index_urls": {"type": "list", "elements": "str", "default": []},
            "find_links": {"type": "list", "elements": "str", "default": []},
            "offline": {"type": "bool", "default": False},
            "ca_file": {"type": "str", "default": ""},
            "overlay": {"type": "dict", "default": {}},
            "probe": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    path, digest = module.params["path"], module.params["digest"]
    if is_complete(path, digest):
        module.exit_json(changed=False, complete=True)
    if module.params["probe"] or module.check_mode:
        module.exit_json(
            changed=True, complete=False, diff={"before": "", "after": f"{path} built\n"}
        )
    if os.path.exists(path) and not os.access(path, os.W_OK):
        module.fail_json(
            msg=f"{path} is read-only and not made from this lock: build the shared environment "
            "anew (in the lab: `ops lab environment`)"
        )
    work = tempfile.mkdtemp(prefix="rackhand-", dir="/var/tmp")
    try:
        Builder(module, work).build()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    module.exit_json(changed=True, complete=True)


if __name__ == "__main__":
    main()
