# Copyright: the Rackhand founders
"""Ask for several revisions, and send those whose source lies on the control machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.rackhand.host.plugins.module_utils.manifest import describe


class ActionModule(ActionBase):
    """Probe, send what is missing, finish."""

    _supports_check_mode = True

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action; raises AnsibleActionFail when a local source is no folder."""
        super().run(tmp, task_vars)
        del tmp
        self._task_vars = task_vars
        args = dict(self._task.args)
        probe = self._module({**args, "step": "probe"})
        if probe.get("failed") or probe.get("complete") or self._task.check_mode:
            return probe
        if args["source"].startswith("file://"):
            folder = Path(args["source"].removeprefix("file://"))
            if not folder.is_dir():
                raise AnsibleActionFail(f"models: {args['source']} is no folder on this machine")
            args["manifest"] = describe(str(folder))
            answer = self._module({**args, "step": "missing"})
            if answer.get("failed"):
                return answer
            for name in answer["missing"]:
                self._transfer_file(str(folder / name), f"{answer['folder']}/{name}")
        return self._module({**args, "step": "finish"})

    def _module(self, args: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="rackhand.host.weights", module_args=args, task_vars=self._task_vars
        )
        result.pop("invocation", None)
        return result
