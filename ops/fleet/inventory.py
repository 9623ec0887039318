"""Read any Ansible inventory, with Ansible itself: groups, vault and templates are its own."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.errors import InputError
from ops.fleet.model import LOOPBACK, Fleet, Host, Model

CONNECTION = (
    "ansible_host",
    "ansible_port",
    "ansible_user",
    "ansible_ssh_private_key_file",
    "ansible_ssh_common_args",
    "ansible_ssh_extra_args",
    "ansible_become",
)


def load(inventory: Path) -> Fleet:
    """Read an inventory folder or file.

    Args:
        inventory: what `ansible-playbook -i` takes.

    Raises:
        InputError: it is missing, has no host, or a value in it is wrong.
    """
    if not inventory.exists():
        raise InputError(
            "the inventory does not exist",
            place=str(inventory),
            cure="name a folder such as inventories/example, or run `ops lab up` first",
        )
    variables = rendered_variables(inventory)
    if not variables:
        raise InputError(
            "the inventory has no host",
            place=str(inventory),
            cure="copy inventories/example and put your host into it",
        )
    hosts = tuple(read_host(name, values, inventory) for name, values in variables.items())
    domain = str(next(iter(variables.values())).get("domain", ""))
    if not domain:
        raise InputError(
            "the variable domain is not set",
            place=str(inventory / "group_vars/all.yml"),
            cure="domain: agent.example.com",
        )
    return Fleet(inventory=inventory, domain=domain, hosts=hosts)


def rendered_variables(inventory: Path) -> dict[str, dict[str, Any]]:
    """Return each host's variables as a play would see them, `group_names` included."""
    from ops.secrets.vault import open_vault

    loader = open_vault()
    from ansible.inventory.manager import InventoryManager  # 0.4 s of import
    from ansible.plugins.vars import host_group_vars
    from ansible.template import Templar
    from ansible.vars.manager import VariableManager

    # Else Ansible takes it that folders have the files it found in them when it first looked.
    for found in (host_group_vars.CANONICAL_PATHS, host_group_vars.FOUND, host_group_vars.NAK):
        found.clear()
    manager = InventoryManager(loader=loader, sources=[str(inventory)])
    known = VariableManager(loader=loader, inventory=manager)
    rendered = {}
    for host in manager.get_hosts():
        values = known.get_vars(host=host)
        templar = Templar(loader=loader, variables=values)
        wanted = {*CONNECTION, "domain", "models", "private_address", "group_names"}
        own = {*inventory_names(values), *wanted} & values.keys()
        rendered[str(host.name)] = {name: render(templar, values[name]) for name in sorted(own)}
    return rendered


def inventory_names(values: Mapping[str, Any]) -> set[str]:
    """Name the variables that a person wrote, without Ansible's own."""
    magic = {"groups", "hostvars", "omit", "playbook_dir", "vars"}
    return {name for name in values if name not in magic and not name.startswith("ansible_")}


def render(templar: Any, value: Any) -> Any:
    """Resolve templates in a value; what needs a host's facts stays as it was written."""
    from ansible.errors import AnsibleError

    try:
        return templar.template(value)
    except AnsibleError:
        return value


def read_host(name: str, values: Mapping[str, Any], inventory: Path) -> Host:
    """Turn one host's variables into a Host."""
    ssh = " ".join(
        str(values.get(key, "")) for key in ("ansible_ssh_common_args", "ansible_ssh_extra_args")
    )
    return Host(
        name=name,
        address=str(values.get("ansible_host", name)),
        port=int(values.get("ansible_port", 22)),
        user=str(values.get("ansible_user", "")),
        key_file=str(values.get("ansible_ssh_private_key_file", "")),
        ssh_arguments=tuple(shlex.split(ssh)),
        become=bool(values.get("ansible_become", False)),
        groups=frozenset(values.get("group_names", ())),
        private_address=str(values.get("private_address", LOOPBACK)),
        models=tuple(
            read_model(index, entry, inventory)
            for index, entry in enumerate(values.get("models") or ())
        ),
        variables=values,
    )


def read_model(index: int, entry: object, inventory: Path) -> Model:
    """Turn one entry of `models:` into a Model."""
    if not isinstance(entry, Mapping) or any(
        not entry.get(key) for key in ("name", "source", "revision")
    ):
        raise InputError(
            f"models[{index}] lacks name, source or revision",
            place=str(inventory / "group_vars/all.yml"),
            cure="docs/architecture.md, Inventory, shows an entry",
        )
    return Model(
        name=str(entry["name"]),
        source=str(entry["source"]),
        revision=str(entry["revision"]),
        index=index,
    )
