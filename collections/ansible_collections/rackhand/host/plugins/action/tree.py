# Copyright: the Rackhand founders
"""Render a role's tree on the control machine and hand the host one manifest."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

KEYS = {
    "path", "template", "content", "copy", "link", "state", "owner", "group", "mode",
    "validate", "notify", "sensitive", "each", "early",
}  # fmt: skip
STATES = {"file", "directory", "link", "absent"}
ARGUMENTS = {"files", "users", "validate", "packages", "install_recommends", "units"}
APT_LISTS_SECONDS = 86400  # package lists older than this are fetched again before an installation


class ActionModule(ActionBase):
    """Expand `each`, render, send, and notify the handlers of the files that changed."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action; the result is the module's, with the notifications of changed files."""
        super().run(tmp, task_vars)
        del tmp
        self._variables = task_vars or {}
        if self._task.notify:
            raise AnsibleActionFail("tree takes `notify` per file, not on the task")
        unknown = set(self._task.args) - ARGUMENTS
        if unknown:
            raise AnsibleActionFail(f"tree does not know {sorted(unknown)}")
        args = self._task.args
        entries = [e for raw in args["files"] for e in self._expand(dict(raw))]
        manifest = {
            "files": [for_host(entry) for entry in entries],
            "users": args.get("users") or [],
            "packages": args.get("packages") or [],
            "units": args.get("units") or [],
            "validate": args.get("validate") or "",
        }
        result = self._lay_down(manifest)
        if result.get("missing"):
            early = self._lay_down_early(entries)
            installed = {} if early.get("failed") else self._install(result["missing"])
            for failed in (early, installed):
                if failed.get("failed"):
                    return failed
            if not self._task.check_mode:
                result = self._lay_down({**manifest, "packages": []})
            result["changed"] = True
            result["diff"] = [*_diffs(early), *_diffs(installed), *_diffs(result)]
        result.pop("invocation", None)  # it repeats every file, secrets included
        changed = set(result.get("changed_paths", []))
        notify = dict.fromkeys(n for e in entries if e["path"] in changed for n in e["notify"])
        if notify:
            result["_ansible_notify"] = list(notify)
        return result

    def _lay_down(self, manifest: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="rackhand.host.tree", module_args=manifest, task_vars=self._variables
        )
        return result

    def _lay_down_early(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        """Lay down what a package's service is to find at its first start; nothing judges it yet."""
        files = [{**for_host(entry), "validate": ""} for entry in entries if entry["early"]]
        if not files or self._task.check_mode:
            return {}
        nothing_else = {"users": [], "packages": [], "units": [], "validate": ""}
        return self._lay_down({"files": files, **nothing_else})

    def _install(self, packages: list[str]) -> dict[str, Any]:
        arguments = {"name": packages, "cache_valid_time": APT_LISTS_SECONDS}
        if "install_recommends" in self._task.args:
            arguments["install_recommends"] = self._task.args["install_recommends"]
        result: dict[str, Any] = self._execute_module(
            module_name="ansible.builtin.apt", module_args=arguments, task_vars=self._variables
        )
        # The site's own repositories are not there yet, nor is a list of what they have.
        if self._task.check_mode and self._variables.get("base_apt_repositories"):
            result = {key: value for key, value in result.items() if key == "diff"}
        return result

    def _expand(self, entry: dict[str, Any]) -> list[dict[str, Any]]:
        unknown = set(entry) - KEYS
        if unknown or "path" not in entry:
            raise AnsibleActionFail(
                f"tree: entry {entry.get('path', entry)} has unknown keys {sorted(unknown)}"
                if unknown
                else f"tree: entry {entry} has no path"
            )
        items = entry.pop("each", None)
        if items is None:
            return [self._complete(entry, None)]
        return [
            self._complete({**entry, "path": str(entry["path"]).format_map(item)}, item)
            for item in items
        ]

    def _complete(self, entry: dict[str, Any], item: dict[str, Any] | None) -> dict[str, Any]:
        state = "link" if "link" in entry else entry.get("state", "file")
        if state not in STATES:
            raise AnsibleActionFail(f"tree: {entry['path']}: state is one of {sorted(STATES)}")
        owner = str(entry.get("owner", "root"))
        complete = {
            "path": str(entry["path"]),
            "state": state,
            "owner": owner,
            "group": str(entry.get("group", owner)),
            "mode": str(entry.get("mode", "0755" if state == "directory" else "0644")),
            "sensitive": bool(entry.get("sensitive", False)),
            "notify": list(entry.get("notify") or []),
            "early": bool(entry.get("early", False)),
        }
        if state == "link":
            complete["link"] = str(entry["link"])
        if state == "file":
            complete["validate"] = str(entry.get("validate", ""))
            complete["content"] = base64.b64encode(self._content(entry, item)).decode()
        return complete

    def _content(self, entry: dict[str, Any], item: dict[str, Any] | None) -> bytes:
        if "content" in entry:
            return str(entry["content"]).encode()
        if "copy" in entry:
            return Path(self._find("files", str(entry["copy"]))).read_bytes()
        name = str(entry.get("template", "host" + str(entry["path"]) + ".j2"))
        return self._render(self._find("templates", name), str(entry["path"]), item)

    def _find(self, folder: str, name: str) -> str:
        if name.startswith("/"):
            return name
        try:
            return str(self._find_needle(folder, name))
        except AnsibleError as error:
            shared = Path(self._loader.get_basedir()).parent / folder / name
            if shared.is_file():
                return str(shared)
            raise AnsibleActionFail(f"tree: no {folder}/{name} in the role: {error}") from error

    def _render(self, source: str, path: str, item: dict[str, Any] | None) -> bytes:
        search = [str(Path(source).parent)]
        for base in self._variables.get("ansible_search_path", []):
            search += [f"{base}/templates", base]
        search.append(str(Path(self._loader.get_basedir()).parent / "templates"))
        variables = {
            **self._variables,
            "template_destpath": path,
            # The stock value carries the template's owner and date: it would change per checkout.
            "ansible_managed": "Laid down by Rackhand; changes here are overwritten.",
        }
        if item is not None:
            variables["item"] = item
        templar = self._templar.copy_with_new_env(searchpath=search, available_variables=variables)
        text = trust_as_template(Path(source).read_text(encoding="utf-8"))
        rendered = templar.template(
            text,
            escape_backslashes=False,
            overrides={"trim_blocks": True, "lstrip_blocks": True},
        )
        return ("" if rendered is None else str(rendered)).encode()


def for_host(entry: dict[str, Any]) -> dict[str, Any]:
    """Leave out what only the control machine needs."""
    return {key: value for key, value in entry.items() if key not in ("notify", "early")}


def _diffs(result: dict[str, Any]) -> list[dict[str, Any]]:
    found = result.get("diff") or []
    return list(found) if isinstance(found, list) else [found]
