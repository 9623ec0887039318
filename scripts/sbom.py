#!/usr/bin/env python3
"""Write software bills of materials (CycloneDX JSON) into build/sbom/.

One for each lock, by cyclonedx-py, with the licences of requirements/licences.json. Further ones
for Debian packages: `--bundle DIR` reads a bundle's manifest, `--packages FILE` what a host says to
`dpkg-query -W -f '${Package} ${Version} ${Architecture}\\n'`. The same inputs give the same file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ops.bundle import licences, locks  # noqa: E402 - the checkout's own

OUTPUT = ROOT / "build/sbom"
SPEC = "1.6"
Package = tuple[str, str, str, str]  # type of purl, name, version, licence or nothing


def main(arguments: list[str]) -> int:
    """Write them and say where."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--packages", type=Path)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    chosen = parser.parse_args(arguments)
    chosen.output.mkdir(parents=True, exist_ok=True)
    made = {}
    for lock in locks.all_locks():
        made[str(lock.relative_to(ROOT)).replace("/", "-")] = of_lock(lock)
    if chosen.bundle:
        made["bundle"] = document(of_bundle(chosen.bundle))
    if chosen.packages:
        lines = [line.split() for line in chosen.packages.read_text().splitlines()]
        made["host"] = document(("deb/debian", line[0], line[1], "") for line in lines)
    for name, content in made.items():
        path = chosen.output / f"{name}.cdx.json"
        path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
        print(f"{path}: {len(content['components'])} components")
    return 0


def of_lock(lock: Path) -> dict[str, Any]:
    """A lock's own, by the field's tool, with the licences that we know."""
    tool = Path(sys.executable).with_name("cyclonedx-py")
    command = [
        str(tool),
        "requirements",
        "--output-reproducible",
        "--no-validate",
        "--sv",
        SPEC,
        str(lock),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    content: dict[str, Any] = json.loads(done.stdout)
    known = json.loads((ROOT / "requirements/licences.json").read_text())
    for component in content["components"]:
        component["description"] = "pinned with its hashes"  # the tool repeats the whole entry
        name = locks.normal(component["name"])
        licence = known.get(f"{name}=={component['version']}", licences.UNKNOWN)
        if licence != licences.UNKNOWN:
            component["licenses"] = [{"license": {"name": licence}}]
    return content


def of_bundle(bundle: Path) -> Iterable[Package]:
    """Packages, wheels and models of a bundle."""
    kinds = {"apt": "deb/debian", "wheel": "pypi", "weights": "generic"}
    manifest = json.loads((bundle / "manifest.json").read_text())
    found = {
        (kinds[each["kind"]], each["name"], each["version"], each.get("licence") or "")
        for each in manifest["files"]
        if each["kind"] in kinds
    }
    return sorted(found)


def document(packages: Iterable[Package]) -> dict[str, Any]:
    """A bill of these packages."""
    components = []
    for kind, name, version, licence in sorted(packages):
        purl = f"pkg:{kind}/{quote(name)}@{quote(version)}"
        component: dict[str, Any] = {
            "type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl,
        }  # fmt: skip
        if licence and licence != licences.UNKNOWN:
            component["licenses"] = [{"license": {"name": licence}}]
        components.append(component)
    return {"bomFormat": "CycloneDX", "specVersion": SPEC, "version": 1, "components": components}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
