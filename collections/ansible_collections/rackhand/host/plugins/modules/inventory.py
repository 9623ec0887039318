#!/usr/bin/python
# Copyright: the Rackhand founders
"""Documentation of the action of the same name; it runs on the control machine only."""

from __future__ import annotations

DOCUMENTATION = r"""
module: inventory
short_description: Refuse an inventory that a role could not take
description:
  - Compares every host's variables with the argument specifications of the roles that the playbook
    gives it, and with what the fleet as a whole needs. Touches no host; reports every problem at once.
options:
  playbook: {type: path, required: true, description: The playbook whose roles are compared.}
author: [The Rackhand founders]
"""

EXAMPLES = r"""
- name: The inventory is one that the roles can take
  rackhand.host.inventory:
    playbook: "{{ playbook_dir }}/site.yml"
  run_once: true
"""
