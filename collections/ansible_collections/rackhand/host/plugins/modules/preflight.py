#!/usr/bin/python
# Copyright: the Rackhand founders
"""Documentation of the action of the same name, which judges what `survey` found."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Judge a host before anything on it changes
description: Runs C(rackhand.host.survey) and compares it with what the inventory wants of the host.
options:
  disks: {type: list, elements: dict, required: true, description: "Entries with path, free_gb, variable."}
  ports: {type: list, elements: dict, required: true, description: "Entries with port, unit (a glob), variable."}
  names: {type: list, elements: str, required: true, description: DNS names that must resolve.}
  names_required: {type: bool, required: true, description: Whether an unresolved name is a failure.}
  weights_gb: {type: float, required: true, description: GiB of the largest model's weights.}
  gpus_wanted: {type: int, required: true, description: Highest count of GPUs that a model pins.}
  driver: {type: dict, default: {}, description: "Channel, branch, version and module of the driver."}
  models: {type: list, elements: dict, default: [], description: Models whose GPU memory is judged.}
  report: {type: path, description: "Folder on the control machine for <host>.json."}
author: [The Rackhand founders]
"""

EXAMPLES = r"""
- name: The host can take what the inventory wants
  rackhand.host.preflight:
    disks: [{path: /srv/models, free_gb: 100, variable: preflight_models_disk_gb}]
    ports: [{port: 443, unit: nginx.service, variable: nginx_https_port}]
    names: [agent.example.com]
    names_required: true
    weights_gb: 15
    gpus_wanted: 1
"""
