"""Models' weights for a bundle: from the hub by revision, or from a folder of this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import httpx2

from ops.bundle.needs import Weights
from ops.errors import InputError, OpsError
from ops.mirror.download import Fetch, fetcher
from ops.weights.manifest import describe
from ops.weights.shelf_program import HUB

OPENS_GATED = "HF_TOKEN"  # of a gated model, in the environment


@dataclass(frozen=True)
class WeightFile:
    """One file of a revision; where a hub does not tell a checksum, `sha256` is empty."""

    path: str
    url: str
    size: int
    sha256: str


def files(wanted: Weights, client: httpx2.Client, endpoint: str) -> Iterator[WeightFile]:
    """The files of a revision, to lie at `models/NAME/REVISION`.

    Args:
        wanted: The model.
        client: The connection to a hub; carries the token, if any.
        endpoint: The hub, empty for the usual one.

    Raises:
        InputError: Nothing that a bundle can bring.
        OpsError: The hub does not have it, or does not give it.
    """
    scheme, _, place = wanted.source.partition("://")
    folder = PurePosixPath("models", wanted.name, wanted.revision)
    if scheme == "file":
        root = Path(place)
        if not root.is_dir():
            raise InputError(
                f"{wanted.source} is no folder on this machine", place=f"models: {wanted.name}"
            )
        for name, entry in describe(str(root)).items():
            url = (root / name).absolute().as_uri()
            yield WeightFile(str(folder / name), url, entry["size"], entry["sha256"])
    elif scheme == "hf":
        yield from _of_hub(place, wanted, fetcher(client), (endpoint or HUB).rstrip("/"))
    else:
        raise InputError(
            f"{wanted.source} lies on the host and nowhere else",
            place=f"models: {wanted.name}",
            cure="nothing to bring: leave it, or name hf:// or file://",
        )


def _of_hub(repository: str, wanted: Weights, fetch: Fetch, base: str) -> Iterator[WeightFile]:
    revision = quote(wanted.revision, safe="")
    said = json.loads(fetch(f"{base}/api/models/{repository}/revision/{revision}?blobs=true"))
    for entry in said["siblings"]:
        name = entry["rfilename"]
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise OpsError(f"{name} leads out of the model's folder", place=f"{base}/{repository}")
        yield WeightFile(
            str(PurePosixPath("models", wanted.name, wanted.revision, name)),
            f"{base}/{repository}/resolve/{said['sha']}/{quote(name)}",
            int(entry["size"]),
            (entry.get("lfs") or {}).get("sha256", ""),
        )


def headers() -> dict[str, str]:
    """What opens gated models."""
    token = os.environ.get(OPENS_GATED)
    return {"Authorization": f"Bearer {token}"} if token else {}
