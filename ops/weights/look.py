"""What has to be known before weights move: who has them, how large they are, what is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ops.errors import InputError
from ops.fleet.desired import read
from ops.fleet.model import Fleet, Host
from ops.models.state import find_model, model_on
from ops.operations import keeper
from ops.operations.journal import Status, status
from ops.operations.plan import Step
from ops.places import ROOT
from ops.weights.manifest import NOT_WEIGHTS
from ops.weights.plan import PEER, Wanted, arrival
from ops.weights.prune import Named, named_by
from ops.weights.shelf import Shelf, call, survey, survey_those_up

DEFAULTS = ROOT / "roles/engine/defaults/main.yml"


def serving(fleet: Fleet, name: str, limit: Sequence[str] = ()) -> list[Host]:
    """The hosts that serve a model, or those of them that are named.

    Raises:
        OpsError: None does.
        InputError: One that is named does not.
    """
    find_model(fleet, name)
    hosts = [host for host in fleet.group("gpu") if model_on(host, name)]
    known = {host.name for host in hosts}
    if strangers := [host for host in limit if host not in known]:
        raise InputError(f"{', '.join(strangers)} does not serve {name}", cure="ops status")
    return [host for host in hosts if not limit or host.name in limit]


def look(
    fleet: Fleet, name: str, entry: Mapping[str, Any], targets: Sequence[Host],
    *, peers_only: bool = False, spread: bool = True,
) -> tuple[Wanted, list[Shelf]]:  # fmt: skip
    """Ask the hosts of a model what they have, and the source how large a revision is.

    Args:
        fleet: The fleet.
        name: The model's.
        entry: What is to be staged, as in the inventory.
        targets: The hosts that are to have it; all of them have to answer.
        peers_only: As `Wanted` has it.
        spread: The same.

    Raises:
        RemoteError: A target does not answer.
        InputError: The source is not there.
    """
    others = [host for host in serving(fleet, name) if host not in targets]
    shelves = [*survey(fleet, targets), *survey_those_up(fleet, others)]
    revision = str(entry["revision"])
    missing = [h for h, s in zip(targets, shelves, strict=False) if not s.find(name, revision)]
    found = [r.size for shelf in shelves if (r := shelf.find(name, revision))]
    size = found[0] if found else 0
    if missing and not found and not peers_only:
        size = measure(fleet, entry, missing[:1] if spread else missing)
    return Wanted(name, entry, size, peers_only, spread), shelves


def measure(fleet: Fleet, entry: Mapping[str, Any], hosts: Sequence[Host]) -> int:
    """Return the bytes of a revision at its source, 0 where that does not tell.

    Raises:
        InputError: The source is not there, or no kind of source.
    """
    source = str(entry["source"])
    scheme, _, place = source.partition("://")
    if scheme == "file":
        if not Path(place).is_dir():
            raise InputError(f"{source} is no folder on this machine", place=place)
        files = (path for path in Path(place).rglob("*") if path.is_file())
        return sum(p.stat().st_size for p in files if not NOT_WEIGHTS & set(p.parts))
    if scheme == "host":
        sizes = {host.name: int(call(fleet, host, "folder", path=place)["size"]) for host in hosts}
        if absent := [host for host, size in sizes.items() if size < 0]:
            raise InputError(f"{source}: no such folder on {', '.join(absent)}", place=place)
        return max(sizes.values())
    if scheme == "hf":
        settings = hosts[0].variables
        found = call(
            fleet, hosts[0], "hub", repository=place, revision=str(entry["revision"]),
            endpoint=str(settings.get("engine_hub_endpoint") or ""),
            token_file=str(settings.get("engine_hub_token_file") or ""),
            ca_file=str(settings.get("engine_ca_file") or ""),
        )  # fmt: skip
        return int(found["size"])
    raise InputError(f"{source}: no source of weights", cure=f"hf://, file://, host:// or {PEER}")


def steps_before(
    fleet: Fleet, name: str, entry: Mapping[str, Any], hosts: Sequence[str],
    *, peers_only: bool = False, spread: bool = True,
) -> list[Step]:  # fmt: skip
    """Return the steps that bring weights ahead of an upgrade, so that its hosts find them there.

    Raises:
        OpsError: As `look`, or they do not fit.
    """
    if not hosts:
        return []
    targets = [fleet.host(host) for host in hosts]
    wanted, shelves = look(fleet, name, entry, targets, peers_only=peers_only, spread=spread)
    return arrival(wanted, shelves, hosts)[0]


def keeps(host: Host) -> int:
    """How many unused revisions the inventory, or the role, has a host keep."""
    return int(host.variables.get("engine_keep_revisions", _default("engine_keep_revisions")))


def named(fleet: Fleet) -> Named:
    """What the inventory wants, and what an operation that is under way or unfinished names.

    Raises:
        RemoteError: The keeper cannot be reached.
    """
    revisions: dict[tuple[str, str], str] = {}
    versions: dict[str, str] = {}

    def add(model: str, entry: Mapping[str, Any], why: str) -> None:
        revisions.setdefault((model, str(entry["revision"])), why)
        if entry.get("vllm"):
            versions.setdefault(str(entry["vllm"]), why)

    why = "is wanted by the inventory"
    for host in fleet.group("gpu"):
        for name in ("engine_vllm_version", "engine_environment"):
            if name in host.variables:
                versions.setdefault(str(host.variables[name]), why)
        versions.setdefault(str(_default("engine_pinned_version")), why)
        for entry in host.variables.get("models") or ():
            add(str(entry["name"]), entry, why)
    for summary in keeper.summaries(fleet):
        if status(summary["entries"], summary["held"]) not in (Status.DONE, Status.ROLLED_BACK):
            operation = keeper.read(fleet, summary["id"])
            for step in operation.plan.steps:
                for model, entry in named_by(step.values):
                    add(model, entry, f"is named by operation {operation.id}")
    return Named(revisions, versions)


def _default(name: str) -> Any:
    return read(DEFAULTS)[name]
