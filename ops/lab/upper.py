"""The layer of files that a host has over its image."""

from __future__ import annotations

from pathlib import Path

from ops.lab.paths import write_atomically

FOLDER_MODES = {"root": 0o700, "root/.ssh": 0o700}


class Upper:
    """A folder whose files cover those of an image.

    Args:
        root: The folder; made where it misses.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Lay down a file; its folders get the modes that a server has."""
        self._make_folders(path)
        write_atomically(self.root / path, content, mode)

    def link(self, path: str, target: str) -> None:
        """Lay down a symbolic link."""
        self._make_folders(path)
        (self.root / path).unlink(missing_ok=True)
        (self.root / path).symlink_to(target)

    def _make_folders(self, path: str) -> None:
        for parent in reversed(Path(path).parents[:-1]):
            folder = self.root / parent
            if not folder.is_dir():
                folder.mkdir()
                folder.chmod(FOLDER_MODES.get(str(parent), 0o755))
