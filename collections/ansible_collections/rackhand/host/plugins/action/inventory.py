# Copyright: the Rackhand founders
"""Refuse an inventory that a role could not take, before any host is touched."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible_collections.rackhand.host.plugins.module_utils.fleet_rules import (
    Problem,
    check_fleet,
)

#: Variables that Ansible itself puts beside the inventory's.
MAGIC = {
    "discovered_interpreter_python", "environment", "gather_subset", "group_names", "groups",
    "hostvars", "inventory_dir", "inventory_file", "inventory_hostname",
    "inventory_hostname_short", "module_setup", "omit", "play_hosts", "playbook_dir",
    "role_name", "role_names", "role_path", "role_uuid", "vars",
}  # fmt: skip
#: Prefixes of names that are not compared: Ansible's, ours, and the reader's own.
FREE_PREFIXES = ("ansible_", "fleet_", "molecule_", "vault_", "site_")

Spec = dict[str, dict[str, Any]]


class ActionModule(ActionBase):
    """Collect every problem of every host and fail once with all of them."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the comparison; the result fails with a numbered list of problems."""
        super().run(tmp, task_vars)
        del tmp
        variables = task_vars or {}
        playbook = Path(str(self._task.args["playbook"]))
        roles_folder = playbook.parent.parent / "roles"
        specs = {p.parent.parent.name: read_spec(p) for p in sorted(roles_folder.glob(SPEC_GLOB))}
        groups = {name: list(hosts) for name, hosts in variables["groups"].items()}
        problems: list[Problem] = []
        for host in groups["all"]:
            raw = variables["hostvars"].raw_get(host)
            problems += unknown_names(host, set(raw), specs)
            templar = self._templar.copy_with_new_env(
                available_variables={**raw, "hostvars": variables["hostvars"]}
            )
            for role in ["preflight", *roles_of(host, playbook, groups)]:
                problems += wrong_values(host, raw, templar, specs.get(role, {}))
        problems = fleet_problems(groups, variables["hostvars"], problems) + problems
        return report(merge(without_echoes(problems)), len(groups["all"]))


SPEC_GLOB = "*/meta/argument_specs.yml"


def read_spec(path: Path) -> Spec:
    """The options of a role's main entry point."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    options: Spec = document["argument_specs"]["main"].get("options") or {}
    return options


def roles_of(host: str, playbook: Path, groups: dict[str, list[str]]) -> list[str]:
    """Roles that the playbook gives a host, by the plays' host patterns (groups joined by `:`)."""
    found: list[str] = []
    for play in yaml.safe_load(playbook.read_text(encoding="utf-8")):
        pattern = str(play.get("hosts", "")).split(":")
        if any(host in groups.get(name, []) for name in pattern):
            found += [r["role"] if isinstance(r, dict) else r for r in play.get("roles", [])]
    return list(dict.fromkeys(found))


def unknown_names(host: str, names: set[str], specs: dict[str, Spec]) -> list[Problem]:
    """Variables that no role knows, with the nearest name that one does."""
    known = {option for spec in specs.values() for option in spec}
    problems = []
    for name in sorted(names - known - MAGIC):
        if name.startswith((*FREE_PREFIXES, "__")):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        cure = (
            f"write `{near[0]}` if that is meant"
            if near
            else "remove it, or name your own `site_*`"
        )
        problems.append(Problem(name, host, "no role knows this variable", cure))
    return problems


def wrong_values(host: str, raw: dict[str, Any], templar: Any, spec: Spec) -> list[Problem]:
    """Values that a role's argument specification refuses, and required ones that are missing."""
    given: dict[str, Any] = {}
    problems: list[Problem] = []
    for name in sorted(set(raw) & set(spec)):
        try:
            given[name] = templar.template(raw[name])
        except Exception as error:  # any templating failure is the reader's to mend
            cause = str(error).splitlines()[0]
            problems.append(Problem(name, host, f"cannot be worked out: {cause}", "correct it"))
    required = {n for n, o in spec.items() if o.get("required") and n not in raw}
    problems += [Problem(n, host, "required and missing", wanted(spec[n])) for n in required]
    for name, value in given.items():
        rules = {**spec[name], "required": False}
        outcome = ArgumentSpecValidator({name: rules}).validate({name: value})
        problems += [
            Problem(name, host, message, wanted(spec[name])) for message in outcome.error_messages
        ]
    return problems


def fleet_problems(
    groups: dict[str, list[str]], hostvars: Any, known: list[Problem]
) -> list[Problem]:
    """Problems of the fleet as a whole; rules that wrong types make unanswerable are left out."""
    try:
        return check_fleet(groups, hostvars)
    except (KeyError, TypeError, ValueError, AttributeError):
        if not known:
            raise
        return []


def without_echoes(problems: list[Problem]) -> list[Problem]:
    """Leave out values that cannot be worked out only because of another problem."""
    named = {problem.name for problem in problems}
    kept, causes = [], set()
    for problem in problems:
        undefined = re.search(
            r"cannot be worked out: .*(?:attribute )?'(\w+)'(?: is undefined|$)", problem.what
        )
        cause = undefined.group(1) if undefined else ""
        if cause and (cause in named or (problem.host, cause) in causes):
            continue
        causes.add((problem.host, cause))
        kept.append(problem)
    return kept


def wanted(option: dict[str, Any]) -> str:
    """What an option takes, from its specification."""
    description = option.get("description", "")
    text = description[0] if isinstance(description, list) else str(description)
    choices = f", one of {option['choices']}" if option.get("choices") else ""
    kind = option.get("elements", "str") if option.get("type") == "list" else ""
    name = option.get("type", "str") + (f" of {kind}" if kind else "")
    return f"write a value of type {name}{choices} ({text.rstrip('.')})"


def merge(problems: list[Problem]) -> list[Problem]:
    """The same problem on several hosts is told once."""
    by_text: dict[tuple[str, str, str], list[str]] = {}
    for p in problems:
        hosts = by_text.setdefault((p.name, p.what, p.cure), [])
        if p.host not in hosts:
            hosts.append(p.host)
    return [Problem(n, ", ".join(h for h in hosts if h), w, c)
            for (n, w, c), hosts in by_text.items()]  # fmt: skip


def report(problems: list[Problem], hosts: int) -> dict[str, Any]:
    """The action's result."""
    if not problems:
        return {"changed": False, "msg": f"the inventory of {hosts} host(s) is sound"}
    lines = [f"{i}. {problem}" for i, problem in enumerate(problems, 1)]
    plural = "problem" if len(problems) == 1 else "problems"
    head = f"The inventory has {len(problems)} {plural}; no host was touched."
    return {
        "failed": True,
        "msg": "\n".join([head, *lines]),
        "problems": [vars(p) for p in problems],
    }
