#!/usr/bin/python
# Copyright: the Rackhand founders
"""Bring a list of systemd units to their state in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: units
short_description: Bring a list of systemd units to their state in one call
description:
  - Enables or disables, starts, stops, restarts or reloads units, in the order given.
  - Asks systemd to read its files again when systemd itself says that one is out of date.
  - A unit that failed is reset first; one that is to be stopped is then no longer listed as failed.
  - When a unit does not come up, its last journal lines are part of the message.
options:
  units:
    description:
      - Entries with C(name), optional C(enabled) and optional C(state), one of C(started),
        C(stopped), C(restarted), C(reloaded).
      - C(restart_after) lists paths; a running unit whose process started before one of them changed
        is restarted. Unlike a handler this survives a run that died in between.
      - C(settle) is how many seconds to wait after such a restart before the next unit is looked at,
        so that a balancer takes the one up again before it loses another.
    type: list
    elements: dict
    required: true
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [The Rackhand founders]
"""

EXAMPLES = r"""
- name: nginx is enabled and running
  rackhand.host.units:
    units:
      - {name: nginx.service, enabled: true, state: started}
      - {name: app.service, enabled: true, state: started, restart_after: [/etc/app/config.yml]}
"""

RETURN = r"""
actions:
  description: What was done, or would be.
  returned: always
  type: list
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackhand.host.plugins.module_utils.unit_states import Units, unknown_keys


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={"units": {"type": "list", "elements": "dict", "required": True}},
        supports_check_mode=True,
    )
    wanted = module.params["units"]
    if why := unknown_keys(wanted):
        module.fail_json(msg=why)
    units = Units(module)
    if wanted:
        units.ensure(wanted)
    after = "".join(f"{action}\n" for action in units.actions)
    module.exit_json(
        changed=bool(units.actions), actions=units.actions, diff={"before": "", "after": after}
    )


if __name__ == "__main__":
    main()
