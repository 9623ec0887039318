"""What all tests share: where the commands are, and a machine without a person's own settings."""

import os
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}"


@pytest.fixture(autouse=True, scope="session")
def _no_settings_of_this_person() -> None:
    for name in ("OPS_DEBUG", "OPS_INVENTORY", "ANSIBLE_INVENTORY", "NO_COLOR", "FORCE_COLOR"):
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first: a broken unit is known before a lab boots."""
    order = ("unit", "agent_app", "contract", "lab", "bench")
    places = {name: number for number, name in enumerate(order)}
    root = Path(__file__).parent
    items.sort(key=lambda item: places.get(item.path.relative_to(root).parts[0], 0))
