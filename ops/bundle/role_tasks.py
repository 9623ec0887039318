"""What the roles would ask of hosts: their own tasks, loaded and rendered by Ansible itself.

Run as a program: Ansible reads its configuration when it is imported. Standard input has
`{"inventory": path, "facts": {host: facts}}`, standard output the needs as JSON. Nothing is
connected to. A condition that only a host could answer counts as true: rather too much than less.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook import Playbook
from ansible.playbook.block import Block
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar
from ansible.vars.manager import VariableManager

from ops.places import ROOT

#: Arguments that name something from outside, by the module that fetches it.
MODULES = {
    "rackhand.host.tree": ("packages", "install_recommends"),
    "ansible.builtin.apt": ("name", "install_recommends"),
    "ansible.builtin.package": ("name",),
    "rackhand.host.python_environment": ("lock", "python"),
    "rackhand.host.weights": ("source", "revision", "path"),
}


def main() -> None:
    """Read the question, print what each host needs."""
    asked = json.load(sys.stdin)
    init_plugin_loader([str(ROOT / "collections")])
    json.dump(list(needs(asked["inventory"], asked["facts"])), sys.stdout)


def needs(inventory: str, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every argument of `MODULES`, with its host, role and module.

    Args:
        inventory: What `ansible-playbook -i` takes.
        facts: What Ansible would tell of each host.
    """
    loader = DataLoader()
    manager = InventoryManager(loader=loader, sources=[inventory])
    known = VariableManager(loader=loader, inventory=manager)
    for name, said in facts.items():
        known.set_host_facts(name, dict(said))
    playbooks = ROOT / "playbooks"
    loader.set_basedir(str(playbooks))
    for play in Playbook.load(
        str(playbooks / "site.yml"), variable_manager=known, loader=loader
    ).get_plays():
        for host in manager.get_hosts(play.hosts):
            for role in play.roles:
                for task in tasks(role.compile(play, dep_chain=[])):
                    yield from of_task(
                        task, known.get_vars(play=play, host=host, task=task), loader
                    )


def tasks(found: Iterable[Any]) -> Iterator[Any]:
    """The tasks of blocks, in order."""
    for each in found:
        if isinstance(each, Block):
            yield from tasks([*each.block, *each.rescue, *each.always])
        elif each.resolved_action in MODULES:
            yield each


def of_task(task: Any, variables: dict[str, Any], loader: Any) -> Iterator[dict[str, Any]]:
    """What a task asks for, once for every item of its loop."""
    names = [name for name in MODULES[task.resolved_action] if name in task.args]
    if not names:
        return
    role = task._role
    templar = Templar(loader=loader, variables=variables)
    items: list[Any] = [None]
    if task.loop is not None:
        found = rendered(templar, task.loop)
        items = found if isinstance(found, list) else []
    loop_name = (task.loop_control.loop_var if task.loop_control else None) or "item"
    for item in items:
        own = variables if item is None else {**variables, loop_name: item}
        templar = Templar(loader=loader, variables=own)
        if not may_run(task, templar):
            continue
        arguments = {name: rendered(templar, task.args[name]) for name in names}
        lock = arguments.get("lock")
        if isinstance(lock, str) and not Path(lock).is_absolute():
            arguments["lock"] = str(Path(role._role_path) / "files" / lock)
        yield {
            "untold": [name for name, value in arguments.items() if value is None],
            "host": variables["inventory_hostname"],
            "role": role.get_name(),
            "module": task.resolved_action.rpartition(".")[2],
            **arguments,
        }


def may_run(task: Any, templar: Any) -> bool:
    """Whether a task's conditions hold, or only a host could tell."""
    return all(holds(templar, condition) for condition in task.when)


def holds(templar: Any, condition: Any) -> bool:
    """Whether a condition is true, or cannot be told."""
    if isinstance(condition, bool):
        return condition
    try:
        return bool(templar.evaluate_conditional(condition))
    except AnsibleError:
        return True


def rendered(templar: Any, value: Any) -> Any:
    """A value without templates; empty where only a host could tell it."""
    try:
        return templar.template(value)
    except AnsibleError:
        return None


if __name__ == "__main__":
    main()
