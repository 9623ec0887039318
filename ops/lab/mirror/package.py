"""One package of the mirror, and its `.deb` file."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.lab.commands import run

FILES = Path(__file__).with_name("files")
RELATIONS = ("depends", "recommends", "provides", "conflicts", "replaces")
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
MAINTAINER = "Rackhand lab simulator <simulator@rackhand.test>"
EPOCH = "1767225600"  # of every file, so that equal content makes equal packages (2026-01-01)


@dataclass(frozen=True)
class Package:
    """A package of a repository.

    Attributes:
        repository: Path of its repository below a state.
        name: Its name.
        version: Its version.
        suites: Suites that list it; none in a flat repository.
        component: Its component, in a pooled repository.
        states: States that have it.
        relations: `depends` and so on, each as written in a control file.
        contains: Names of what lies in it: entries of catalogue/contents.yml.
        values: What fills the placeholders of its contents.
    """

    repository: str
    name: str
    version: str
    suites: frozenset[str]
    component: str
    states: frozenset[str]
    relations: Mapping[str, str]
    contains: tuple[str, ...]
    values: Mapping[str, str]

    @property
    def file_name(self) -> str:
        """Name of its file; the epoch of a version does not show in it."""
        return f"{self.name}_{self.version.partition(':')[2] or self.version}_amd64.deb"

    @property
    def path(self) -> str:
        """Where it lies below its repository."""
        if not self.suites:
            return self.file_name
        initial = self.name[: 4 if self.name.startswith("lib") else 1]
        return f"pool/{self.component}/{initial}/{self.name}/{self.file_name}"

    def control(self) -> str:
        """Its control file."""
        lines = [f"Package: {self.name}", f"Version: {self.version}", "Architecture: amd64"]
        lines += [f"Maintainer: {MAINTAINER}", f"Section: {self.component or 'main'}/kernel"]
        lines += ["Priority: optional"]
        lines += [f"{key.capitalize()}: {value}" for key, value in self.relations.items()]
        return "\n".join(lines) + f"\nDescription: {self.name} of the Rackhand lab (simulator)\n"


def build(package: Package, contents: Mapping[str, Any], folder: Path, target: Path) -> None:
    """Make a package's file.

    Args:
        package: The package.
        contents: catalogue/contents.yml.
        folder: Scratch folder of its own, which is gone afterwards.
        target: The file.

    Raises:
        OpsError: dpkg-deb refused; the message carries its words.
    """
    (folder / "DEBIAN").mkdir(parents=True)
    (folder / "DEBIAN/control").write_text(package.control())
    scripts: dict[str, str] = {}
    for name in package.contains:
        _lay_down(package, contents[name], folder, scripts)
    for name, text in scripts.items():
        _write(folder / "DEBIAN" / name, f"#!/bin/sh\nset -e\n{text}".encode())
        (folder / "DEBIAN" / name).chmod(0o755)
    etc = sorted(path for path in folder.glob("etc/**/*") if path.is_file())
    if etc:
        listed = "".join(f"/{path.relative_to(folder)}\n" for path in etc)
        (folder / "DEBIAN/conffiles").write_text(listed)
    target.parent.mkdir(parents=True, exist_ok=True)
    command = ["env", f"SOURCE_DATE_EPOCH={EPOCH}", "dpkg-deb", "--build", "--root-owner-group"]
    run([*command, "-Znone", folder, target])
    shutil.rmtree(folder)


def _lay_down(
    package: Package, content: Mapping[str, Any], folder: Path, scripts: dict[str, str]
) -> None:
    from ops.lab.mirror.makers import make

    for path, how in content.get("files", {}).items():
        target = folder / path.format_map(package.values).removeprefix("/")
        if "link" in how:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(how["link"].format_map(package.values))
        elif "make" in how:
            _write(target, make(how["make"], package.values))
        elif "text" in how:
            _write(target, how["text"].format_map(package.values).encode())
        else:
            _write(target, fill(how["from"], package.values).encode())
    for script, file in content.get("scripts", {}).items():
        scripts[script] = scripts.get(script, "") + fill(file, package.values)
    if any("/systemd/system/" in path for path in content.get("files", {})):
        values = dict(package.values) | {"units": " ".join(content.get("units", ()))}
        for script in ("postinst", "prerm"):
            scripts[script] = scripts.get(script, "") + fill(f"units.{script}", values)


def fill(file: str, values: Mapping[str, str]) -> str:
    """A file of files/ with `@key@` filled in."""
    text = (FILES / file).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


def _write(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    target.chmod(0o755 if data.startswith((b"#!", b"\x7fELF\x02\x01\x01")) else 0o644)


def sha256(path: Path) -> str:
    """Digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
