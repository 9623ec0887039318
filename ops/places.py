"""Where things lie on the control machine."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: playbooks, roles and inventories are found from here."""

CACHE = Path(os.environ.get("RACKHAND_CACHE", "/var/cache/rackhand"))
"""What can be made again: images, packages, the engine's environment."""

STATE = Path(os.environ.get("RACKHAND_STATE", "/var/lib/rackhand"))
"""What cannot: labs that run, keys of this machine's demo."""
