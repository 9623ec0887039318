#!/usr/bin/env python3
"""nvidia-ctk of the simulator: merges daemon.json and writes CDI files as NVIDIA's own does."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

VERSION = "@toolkit@"
DOCKER = Path("/etc/docker/daemon.json")
CDI_FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))
OUTPUT_VARIABLE = "NVIDIA_CTK_CDI_OUTPUT_FILE_PATH"
HOST = "/run/rackhand-host"  # where a container finds what the simulated library reads
GPU = re.compile(r"GPU (\d+): .*\(UUID: (\S+)\)")
INSTANCE = re.compile(r"\s+MIG .* Device +(\d+): \(UUID: (\S+)\)")


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="nvidia-ctk", description=__doc__)
    parser.add_argument(
        "--version",
        "-v",
        action="version",
        version=f"NVIDIA Container Toolkit CLI version {VERSION} (simulator)",
    )
    groups = parser.add_subparsers(required=True)
    runtime = groups.add_parser("runtime").add_subparsers(required=True).add_parser("configure")
    runtime.add_argument("--runtime", default="docker")
    runtime.add_argument("--config", type=Path)
    runtime.add_argument("--dry-run", action="store_true")
    runtime.add_argument(
        "--nvidia-set-as-default", "--set-as-default", dest="default", action="store_true"
    )
    runtime.add_argument(
        "--cdi.enabled", "--cdi.enable", "--enable-cdi", dest="cdi", action="store_true"
    )
    runtime.set_defaults(run=configure)
    cdi = groups.add_parser("cdi").add_subparsers(required=True)
    generated = cdi.add_parser("generate")
    generated.add_argument("--output", default=os.environ.get(OUTPUT_VARIABLE, ""))
    generated.set_defaults(run=generate)
    cdi.add_parser("list").set_defaults(run=show)
    wanted = parser.parse_args()
    try:
        return int(wanted.run(wanted))
    except (OSError, ValueError) as problem:
        log("error", str(problem))
        return 1


def configure(wanted: argparse.Namespace) -> int:
    """Merge the NVIDIA runtime into Docker's configuration; other keys stay as they are."""
    if wanted.runtime != "docker":
        raise ValueError(f"unrecognized runtime '{wanted.runtime}' (the simulator knows docker)")
    path = wanted.config or DOCKER
    log("info", f"Loading config from {path}")
    text = path.read_text() if path.exists() else ""
    config: dict[str, Any] = json.loads(text) if text.strip() else {}
    config.setdefault("runtimes", {})["nvidia"] = {"args": [], "path": "nvidia-container-runtime"}
    if wanted.default:
        config["default-runtime"] = "nvidia"
    if wanted.cdi:
        config.setdefault("features", {})["cdi"] = True
    merged = json.dumps(config, indent=4, sort_keys=True)
    if wanted.dry_run:
        print(merged)
        return 0
    write(path, merged)
    log("info", f"Wrote updated config to {path}")
    log("info", "It is recommended that docker daemon be restarted.")
    return 0


def generate(wanted: argparse.Namespace) -> int:
    """Write the CDI specification of the GPUs that nvidia-smi lists."""
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        raise ValueError(f"failed to generate CDI spec: {listed.stdout.strip()}")
    text = "---\n" + "\n".join(lines(specification(listed.stdout))) + "\n"
    if not wanted.output:
        print(text, end="")
        return 0
    write(Path(wanted.output), text)
    log("info", f"Generated CDI spec with version 0.5.0 at {wanted.output}")
    return 0


def specification(listed: str) -> dict[str, Any]:
    """The specification: each GPU and MIG instance by index and by UUID, and all of them."""
    devices: dict[str, list[str]] = {}
    gpu = ""
    for line in listed.splitlines():
        if found := GPU.match(line):
            gpu = found[1]
            devices[gpu] = devices[found[2]] = [f"/dev/nvidia{gpu}"]
        elif found := INSTANCE.match(line):
            devices[f"{gpu}:{found[1]}"] = devices[found[2]] = [f"/dev/nvidia{gpu}"]
    devices["all"] = sorted({node for nodes in devices.values() for node in nodes})
    library = Path("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1").resolve()
    shown = {
        "/usr/bin/nvidia-smi": "/usr/bin/nvidia-smi",
        str(library): str(library),
        str(library.with_name("libnvidia-ml.so.1")): str(library),
    }
    simulated = ("/etc/rackhand-simulator", "/run/rackhand-simulator", "/proc/driver")
    shown |= {HOST + path: path for path in simulated}
    return {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [
            {"name": name, "containerEdits": {"deviceNodes": [{"path": node} for node in nodes]}}
            for name, nodes in devices.items()
        ],
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void", f"RACKHAND_SIMULATOR_ROOT={HOST}"],
            "deviceNodes": [{"path": "/dev/nvidiactl"}, {"path": "/dev/nvidia-uvm"}],
            "mounts": [
                {"hostPath": ours, "containerPath": theirs, "options": ["ro", "nosuid", "rbind"]}
                for theirs, ours in shown.items()
            ],
        },
    }


def lines(value: Any) -> list[str]:
    """A value as YAML, for the few shapes that a specification has."""
    found: list[str] = []
    items = value.items() if isinstance(value, dict) else [("-", item) for item in value]
    for key, item in items:
        lead = key if key == "-" else f"{key}:"
        if isinstance(item, str):
            found.append(f"{lead} {json.dumps(item)}")
            continue
        inner = ["  " + line for line in lines(item)]
        found += [f"- {inner[0].lstrip()}", *inner[1:]] if key == "-" else [lead, *inner]
    return found


def show(_: argparse.Namespace) -> int:
    """List the devices of the specifications that are there."""
    files = [path for folder in CDI_FOLDERS for path in sorted(folder.glob("*.yaml"))]
    texts = [path.read_text() for path in files]
    found = [name for text in texts for name in re.findall(r'^ *- name: "?([^"\n]+)', text, re.M)]
    log("info", f"Found {len(found)} CDI devices")
    for name in found:
        print(f"nvidia.com/gpu={name}")
    return 0


def write(path: Path, text: str) -> None:
    """Replace a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.replace(path)


def log(level: str, message: str) -> None:
    """Speak as NVIDIA's program does."""
    print(f'level={level} msg="{message}"', file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
