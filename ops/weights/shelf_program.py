"""Runs on an engine host: which weights and environments lie there, who uses them, what is free.

Also removes what `ops` names, after looking once more whether anything needs it. Standard library
of the host's Python; called as root.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ops.weights.manifest import MANIFEST, NOT_WEIGHTS, REMOVING, STAGING, digest

ROOT = Path(os.environ.get("RACKHAND_SHELF_ROOT", "/"))
MODELS, ENVIRONMENTS = ROOT / "srv/models", ROOT / "opt/vllm"
FACT, SLOTS = ROOT / "etc/ansible/facts.d/engine.fact", ROOT / "etc/engine"
HUB = "https://huggingface.co"
HUB_SECONDS = 30


def survey(sizes: bool = False) -> dict[str, Any]:
    """Return all of it; the sizes of environments only where asked for, they take a while."""
    return {
        "now": time.time(),
        "free": {"models": free(MODELS), "environments": free(ENVIRONMENTS)},
        "models": {
            folder.name: [look_at(entry) for entry in sorted(folder.iterdir()) if entry.is_dir()]
            for folder in folders(MODELS)
        },
        "environments": [look_into(folder, sizes) for folder in folders(ENVIRONMENTS)],
        "fact": read_fact(),
        "slots": list(slots()),
    }


def folders(parent: Path) -> list[Path]:
    """Return the folders in a folder that may be missing."""
    return sorted(entry for entry in parent.iterdir() if entry.is_dir()) if parent.exists() else []


def free(place: Path) -> int:
    """Return the free bytes of the file system that a folder is, or will be, on."""
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def look_at(folder: Path) -> dict[str, Any]:
    """Return a revision, whole or on its way in or out."""
    manifest = folder / MANIFEST
    whole = manifest.exists() and folder.suffix not in (STAGING, REMOVING)
    files = json.loads(manifest.read_text(encoding="utf-8"))["files"] if whole else {}
    return {
        "name": folder.name,
        "whole": whole,
        "size": sum(entry["size"] for entry in files.values()) if whole else weigh(folder),
        "at": manifest.stat().st_mtime if whole else youngest(folder),
        "digest": digest(files) if whole else "",
    }


def look_into(folder: Path, sizes: bool) -> dict[str, Any]:
    """Return an environment of vLLM."""
    marker = folder / ".complete"
    return {
        "name": folder.name,
        "complete": marker.exists(),
        "at": marker.stat().st_mtime if marker.exists() else youngest(folder, deep=False),
        "ours": os.access(folder, os.W_OK) and not os.path.ismount(folder),
        "size": weigh(folder) if sizes else 0,
    }


def weigh(folder: Path) -> int:
    """Return the bytes that a folder takes on the disk."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            total += os.lstat(os.path.join(base, name)).st_blocks * 512
    return total


def youngest(folder: Path, deep: bool = True) -> float:
    """Return when something in a folder changed last."""
    found = folder.stat().st_mtime
    for base, _, names in os.walk(folder) if deep else ():
        found = max([found, *(os.lstat(os.path.join(base, name)).st_mtime for name in names)])
    return found


def read_fact() -> dict[str, Any]:
    """Return what the host says that its models serve."""
    found = json.loads(FACT.read_text(encoding="utf-8")) if FACT.exists() else {}
    return dict(found.get("models") or {})


def slots() -> Iterator[dict[str, Any]]:
    """Yield what each slot's settings name, and whether its engine runs."""
    for path in sorted(SLOTS.glob("*.env")):
        text = path.read_text(encoding="utf-8")
        unit = f"engine@{path.stem}.service"
        state = subprocess.run(
            ["systemctl", "is-active", unit], capture_output=True, text=True, check=False
        ).stdout.strip()
        yield {
            "name": path.stem,
            "environment": after(text, "ENGINE_COMMAND=/opt/vllm/").partition("/")[0],
            "path": after(text, 'ENGINE_ARGS="serve ').partition(" ")[0],
            "runs": state not in ("inactive", "failed", ""),
        }


def after(text: str, words: str) -> str:
    """Return the rest of the line behind some words."""
    return text.partition(words)[2].partition("\n")[0].strip('"')


def needed(young: float) -> dict[str, str]:
    """Return the paths that must stay whatever anybody says, each with the reason."""
    found: dict[str, str] = {}
    for model, fact in read_fact().items():
        for entry, why in ((fact, "serves"), (fact.get("entry"), "serves"),
                           (fact.get("standby"), "is the way back")):  # fmt: skip
            if entry and entry.get("revision"):
                found.setdefault(f"/srv/models/{model}/{entry['revision']}", why)
        if fact.get("environment"):
            found[f"/opt/vllm/{fact['environment']}"] = "serves"
    for slot in slots():
        found.setdefault(f"/opt/vllm/{slot['environment']}", f"is named by slot {slot['name']}")
        if slot["runs"]:
            found.setdefault(slot["path"], f"runs in slot {slot['name']}")
    for folder in folders(MODELS):
        for entry in folder.glob("*" + STAGING):
            if time.time() - youngest(entry) < young:
                found[f"/srv/models/{folder.name}/{entry.name}"] = "is being staged"
    return found


def remove(paths: list[str], young: float) -> dict[str, Any]:
    """Remove weights and environments; what is needed after all stays and is named.

    A folder is renamed first: half of a revision is never taken for one.
    """
    keep, freed, kept = needed(young), 0, {}
    for path in paths:
        folder = ROOT / path.lstrip("/")
        ours = folder.parent == ENVIRONMENTS or folder.parent.parent == MODELS
        if not ours or ".." in folder.parts:
            raise SystemExit(f"{path} is neither weights nor an environment")
        if path in keep:
            kept[path] = keep[path]
            continue
        going = folder if folder.suffix == REMOVING else folder.with_name(folder.name + REMOVING)
        if folder != going and folder.exists():
            if going.exists():
                shutil.rmtree(going)
            folder.rename(going)
        if going.exists():
            size = weigh(going)
            shutil.rmtree(going)
            freed += size
    return {"freed": freed, "kept": kept}


def folder(path: str) -> dict[str, Any]:
    """Return the bytes of a folder of the host's own, -1 where there is none."""
    if not Path(path).is_dir():
        return {"size": -1}
    total = 0
    for base, names, files in os.walk(path):
        names[:] = [name for name in names if name not in NOT_WEIGHTS]
        total += sum(os.path.getsize(os.path.join(base, name)) for name in files)
    return {"size": total}


def hub(
    repository: str, revision: str, endpoint: str, token_file: str, ca_file: str
) -> dict[str, Any]:
    """Return the bytes of a hub's revision, or why they are not known."""
    base = (endpoint or HUB).rstrip("/")
    address = f"{base}/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true"
    asked = urllib.request.Request(address)  # noqa: S310 - the inventory's
    try:
        if token_file:
            token = Path(token_file).read_text(encoding="utf-8").strip()
            asked.add_header("Authorization", f"Bearer {token}")
        context = ssl.create_default_context(cafile=ca_file or None)
        opened = urllib.request.urlopen(asked, timeout=HUB_SECONDS, context=context)  # noqa: S310
        with opened as answer:
            found = json.load(answer)
        return {"size": sum(int(entry["size"]) for entry in found["siblings"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {"size": 0, "why": f"{base} does not tell: {error!r}"}


VERBS: dict[str, Callable[..., dict[str, Any]]] = {
    "survey": survey,
    "remove": remove,
    "folder": folder,
    "hub": hub,
}


def main(values: dict[str, Any]) -> None:
    """Run the verb; the answer is one line of JSON."""
    verb = values.pop("verb")
    json.dump(VERBS[verb](**values), sys.stdout)
    print(flush=True)
