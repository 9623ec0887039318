#!/usr/bin/python
# Copyright: the Rackhand founders
"""Wait until a service says that it is ready, and say why when it does not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ready
short_description: Wait until a service says that it is ready
description:
  - Asks a URL until it answers 200. A unit that keeps failing meanwhile ends the wait at once, with the
    last lines of its journal; at the end of the time the last answer is the message.
options:
  url: {type: str, required: true, description: What to ask.}
  unit: {type: str, required: true, description: The systemd unit that answers.}
  timeout_s: {type: int, default: 300, description: Seconds to wait.}
  restarts: {type: int, default: 5, description: Restarts by systemd that end the wait.}
attributes:
  check_mode: {support: full}
author: [The Rackhand founders]
"""

EXAMPLES = r"""
- name: The app is ready
  rackhand.host.ready:
    url: http://127.0.0.1:8200/ready
    unit: agent_app@8200.service
"""

RETURN = r"""
waited_s:
  description: Seconds until it was ready.
  returned: success
  type: float
"""

import time
import urllib.error
import urllib.request

from ansible.module_utils.basic import AnsibleModule

PAUSE_S = 1.0
ASK_TIMEOUT_S = 30


def ask(url: str) -> tuple[int, str]:
    """Status and start of the body; 0 where nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=ASK_TIMEOUT_S) as answer:
            return answer.status, answer.read(2000).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read(2000).decode("utf-8", "replace")
    except OSError as error:
        return 0, str(error)


def restarts(module: AnsibleModule) -> int:
    """How often systemd has restarted the unit."""
    _, out, _ = module.run_command(
        ["systemctl", "show", "--property=NRestarts", "--value", module.params["unit"]]
    )
    return int(out.strip() or 0)


def fail(module: AnsibleModule, why: str) -> None:
    """Fail with the unit's last lines."""
    unit = module.params["unit"]
    _, journal, _ = module.run_command(
        ["journalctl", "--no-pager", "-o", "cat", "-n", "15", "-u", unit]
    )
    module.fail_json(
        msg=f"{unit} is not ready: {why}\nLast lines of its journal (`journalctl -u {unit}`):\n"
        f"{journal.strip()}"
    )


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "unit": {"type": "str", "required": True},
            "timeout_s": {"type": "int", "default": 300},
            "restarts": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, msg="a check does not wait")
    begun, restarted_before = time.monotonic(), restarts(module)
    while True:
        status, body = ask(module.params["url"])
        waited = time.monotonic() - begun
        if status == 200:
            module.exit_json(changed=False, waited_s=round(waited, 1))
        if restarts(module) - restarted_before >= module.params["restarts"]:
            fail(module, f"it keeps failing ({module.params['restarts']} restarts meanwhile)")
        if waited > module.params["timeout_s"]:
            fail(module, f"{status or 'no answer'} after {waited:.0f} s: {body}")
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
