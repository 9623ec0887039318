"""Other releases of the agent app, to deploy one after another."""

import shutil
from pathlib import Path

from ops.places import ROOT


class Checkouts:
    """Checkouts with an app of their own, each another release."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def next(self, path: str = "", old: str = "", new: str = "") -> Path:
        """Copy the app, state another version, and change one file of it."""
        self._count += 1
        checkout = self._folder / str(self._count)
        app = checkout / "agent_app"
        ignored = shutil.ignore_patterns("__pycache__", "tests", "*.egg-info")
        shutil.copytree(ROOT / "agent_app", app, ignore=ignored)
        changes = [("pyproject.toml", 'version = "0.1.0"', f'version = "9.0.{self._count}"')]
        for name, before, after in changes + ([(path, old, new)] if path else []):
            text = (app / name).read_text() if (app / name).exists() else ""
            assert before in text, f"{name} has no {before!r}"
            (app / name).write_text(text.replace(before, after, 1) if before else after)
        return checkout
