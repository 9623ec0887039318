# Copyright: the Rackhand founders
"""Ask whether an environment is complete; send its lock and wheels only when it is not."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Two steps: a probe, and the build with what it needs."""

    _supports_check_mode = True

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action; raises AnsibleActionFail when a lock or wheel is not on the controller."""
        super().run(tmp, task_vars)
        del tmp
        args = dict(self._task.args)
        lock = self._read("files", str(args.pop("lock")))
        wheels = [Path(w) for w in args.pop("wheels", [])]
        digest = hashlib.sha256(lock)
        for wheel in wheels:
            if not wheel.is_file():
                raise AnsibleActionFail(f"python_environment: no wheel {wheel}; build it first")
            digest.update(wheel.read_bytes())
        args["digest"] = digest.hexdigest()
        probe: dict[str, Any] = self._module({**args, "probe": True}, task_vars)
        if probe.get("failed") or probe.get("complete") or self._task.check_mode:
            return probe
        uv_lock = Path(self._loader.get_basedir()).parent / "requirements" / "uv.lock"
        args |= {"lock_text": lock.decode(), "uv_lock_text": uv_lock.read_text(encoding="utf-8")}
        args["wheels"] = [self._send(wheel) for wheel in wheels]
        return self._module(args, task_vars)

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
