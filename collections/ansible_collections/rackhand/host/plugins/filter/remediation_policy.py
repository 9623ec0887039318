# Copyright: the Rackhand founders
"""The inventory's `remediation:`, judged on the control machine and completed with its defaults."""

from __future__ import annotations

DOCUMENTATION = r"""
name: remediation_policy
short_description: The inventory's remediation, judged and completed
description:
  - Refuses a wrong key or value with its place, before any host is touched.
options:
  _input: {description: What the inventory has as C(remediation)., type: dict, required: true}
"""

EXAMPLES = r"""
policy: "{{ remediation | default({}) | rackhand.host.remediation_policy }}"
"""

RETURN = r"""
_value: {description: The policy with every default., type: dict}
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError


def remediation_policy(given: Any) -> dict[str, Any]:
    """Return the policy; an empty one costs nothing.

    Raises:
        AnsibleFilterError: A key or value is wrong.
    """
    if not given:
        return {"mode": "off"}
    from ops.errors import InputError  # 0.1 s, for inventories that have any
    from ops.remedy.policy import read_policy

    try:
        policy = read_policy(given)
    except InputError as error:
        raise AnsibleFilterError("; ".join(error.message.splitlines())) from error
    plain: dict[str, Any] = policy.model_dump(mode="json")
    return plain


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters."""
        return {"remediation_policy": remediation_policy}
