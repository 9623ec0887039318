# Copyright: the Rackhand founders
"""The programs that remediation sends to hosts, by the SHA-256 of their text."""

from __future__ import annotations

DOCUMENTATION = r"""
name: remediator_programs
short_description: The programs that remediation sends to hosts, by the SHA-256 of their text
description:
  - The gate of role remediator_access passes these and no other. Read from the checkout, so that a
    release of the remediator and the gates of its hosts are made of the same texts.
options:
  _terms: {description: "The checkout's folder.", required: true}
"""

import ast
import hashlib
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

FILES = {
    "keeper": "ops/operations/keeper_program.py",
    "look": "ops/live/look_program.py",
    "switch": "ops/engine/switch_program.py",
    "instance": "ops/app/instance_program.py",
}
CONSTANTS = {
    "count": ("ops/engine/traffic.py", "COUNT"),
    "probe": ("ops/engine/traffic.py", "PROBE"),
}


def constant(path: Path, name: str) -> str:
    """A text that a module assigns to a name, without importing it."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in node.targets
        ):
            return str(ast.literal_eval(node.value))
    raise AnsibleError(f"{path} assigns no text to {name}")


class LookupModule(LookupBase):
    """`lookup('rackhand.host.remediator_programs', checkout)`."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[dict[str, str]]:
        """Return one dictionary: name by SHA-256."""
        self.set_options(var_options=variables, direct=kwargs)
        root = Path(str(terms[0]))
        texts = {name: (root / path).read_text(encoding="utf-8") for name, path in FILES.items()}
        texts |= {name: constant(root / path, key) for name, (path, key) in CONSTANTS.items()}
        return [{hashlib.sha256(text.encode()).hexdigest(): name for name, text in texts.items()}]
