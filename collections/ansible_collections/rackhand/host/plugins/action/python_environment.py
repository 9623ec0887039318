# Copyright: the Rackhand founders
"""Ask whether an environment is complete; send its lock and wheel only when it is not."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

#: Parts of a project that do not belong to its wheel.
NOT_SOURCE = {"__pycache__", "build", "dist", "tests", ".venv"}


class ActionModule(ActionBase):
    """Two steps: a probe, and the build with what it needs."""

    _supports_check_mode = True

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action; the result carries the environment's `path` and `version`.

        Raises:
            AnsibleActionFail: when the lock or project is not there or the wheel does not build.
        """
        super().run(tmp, task_vars)
        del tmp
        args = dict(self._task.args)
        lock = self._read("files", str(args.pop("lock")))
        project = Path(args.pop("project")) if args.get("project") else None
        args.pop("project", None)
        digest = hashlib.sha256(lock)
        version = ""
        if project:
            source = source_digest(project)
            digest.update(source.encode())
            version = f"{project_version(project)}-{digest.hexdigest()[:8]}"
        args["digest"] = digest.hexdigest()
        args["path"] = str(args["path"]).format(version=version)
        identity = {"path": args["path"], "version": version}
        probe = self._module({**args, "probe": True}, task_vars)
        if probe.get("failed") or probe.get("complete") or self._task.check_mode:
            return probe | identity
        uv_lock = Path(self._loader.get_basedir()).parent / "requirements" / "uv.lock"
        args |= {"lock_text": lock.decode(), "uv_lock_text": uv_lock.read_text(encoding="utf-8")}
        if project:
            with tempfile.TemporaryDirectory(prefix="rackhand-wheel-") as folder:
                args["wheels"] = [self._send(build_wheel(project, Path(folder)))]
        return self._module(args, task_vars) | identity

    def _module(self, args: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="rackhand.host.python_environment", module_args=args, task_vars=task_vars
        )
        result.pop("invocation", None)
        return result

    def _read(self, folder: str, name: str) -> bytes:
        path = name if name.startswith("/") else self._find_needle(folder, name)
        return Path(str(path)).read_bytes()

    def _send(self, wheel: Path) -> str:
        if self._connection._shell.tmpdir is None:
            self._make_tmp_path()
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, wheel.name)
        self._transfer_file(str(wheel), remote)
        return str(remote)


def sources(project: Path) -> list[Path]:
    """Files of a project that go into its wheel, in a stable order."""
    return sorted(
        path
        for path in project.rglob("*")
        if path.is_file()
        and not any(part in NOT_SOURCE or part.endswith(".egg-info") for part in path.parts)
    )


def source_digest(project: Path) -> str:
    """sha256 over names and contents; a wheel's own bytes differ with every build."""
    digest = hashlib.sha256()
    for path in sources(project):
        digest.update(f"{path.relative_to(project)}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def project_version(project: Path) -> str:
    """The version that a project's pyproject.toml states."""
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "([^"]+)"', text, re.M)
    if not found:
        raise AnsibleActionFail(f"{project}/pyproject.toml states no version")
    return found.group(1)


def build_wheel(project: Path, folder: Path) -> Path:
    """Build a project's wheel from a copy, so that the checkout stays as it is."""
    copy = folder / project.name
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns(*NOT_SOURCE, "*.egg-info"))
    uv = Path(sys.prefix) / "bin" / "uv"
    command = [str(uv), "build", "--wheel", "--no-build-isolation", "--python", sys.executable]
    done = subprocess.run(
        [*command, "--out-dir", str(folder), str(copy)], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise AnsibleActionFail(f"the wheel of {project} does not build: {done.stderr[-2000:]}")
    return wheels[0]
