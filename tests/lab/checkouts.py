"""Another operator's checkout of this repository: its own code and inventory, at another path."""

import shutil
from pathlib import Path

from stack import Lab, Stack

from ops.places import ROOT

MADE = shutil.ignore_patterns(".venv", ".git", "__pycache__", "*.egg-info", ".*_cache", "artifacts")


def another_checkout(stack: Stack, folder: Path) -> Stack:
    """Copy the repository and the lab's inventory; commands on what is returned run from there."""
    copy = Path(shutil.copytree(ROOT, folder / "checkout", ignore=_leave_out))
    lab = stack.lab
    inventory = copy / lab.inventory.relative_to(ROOT)
    other = Stack(Lab(lab.name, inventory, lab.nodes, checkout=copy), key=stack.key)
    hand_over(stack, other)
    return other


def hand_over(giver: Stack, taker: Stack) -> None:
    """Bring an inventory to another checkout, as version control does between operators."""
    shutil.copytree(giver.lab.inventory, taker.lab.inventory, dirs_exist_ok=True)


def _leave_out(folder: str, names: list[str]) -> set[str]:
    """What can be made anew, and inventories of labs."""
    labs = {name for name in names if name.startswith("lab")}
    return MADE(folder, names) | (labs if Path(folder) == ROOT / "inventories" else set())
