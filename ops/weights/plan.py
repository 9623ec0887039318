"""What staging a revision means: room first, one fetch, then from host to host. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ops.errors import InputError, OpsError
from ops.operations.plan import Plan, Step
from ops.weights.manifest import REMOVING, SPARE_BYTES, STAGING
from ops.weights.shelf import Shelf

GIB = 2**30
PEER = "peer"
"""A source that is no source: only hosts of the fleet give it."""
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Wanted:
    """What is to be staged.

    Attributes:
        model: Its name.
        entry: As in the inventory's `models:`.
        size: Bytes of its weights; 0 where its source did not tell.
        peers_only: No source outside is asked.
        spread: One host fetches and the others get it from there.
    """

    model: str
    entry: Mapping[str, Any]
    size: int = 0
    peers_only: bool = False
    spread: bool = True

    @property
    def revision(self) -> str:
        """The revision's name, which names its folder."""
        return str(self.entry["revision"])


def check_revision(revision: str) -> None:
    """Raise InputError unless a revision's name can be a folder's."""
    if not REVISION.fullmatch(revision) or revision.endswith((STAGING, REMOVING)):
        raise InputError(
            f"{revision!r} cannot name a revision: it names a folder",
            cure="a commit, or letters, digits, dots and dashes",
        )


def require_room(wanted: Wanted, shelves: Sequence[Shelf]) -> None:
    """Raise OpsError unless every host that has it not can take it, all of them told at once."""
    short = []
    for shelf in shelves:
        if not wanted.size or shelf.find(wanted.model, wanted.revision):
            continue
        there = min(wanted.size, shelf.staged_bytes(wanted.model, wanted.revision))
        needed = wanted.size - there
        if shelf.free < needed + SPARE_BYTES:
            short.append(
                f"  {shelf.host} has {shelf.free / GIB:.1f} GiB free for {needed / GIB:.1f} GiB "
                f"and {SPARE_BYTES / GIB:.0f} to spare"
            )
    if short:
        raise OpsError(
            f"{wanted.model} {wanted.revision} does not fit; nothing was fetched:\n"
            + "\n".join(short),
            place="/srv/models",
            cure=f"ops model prune {wanted.model} removes old revisions; or add space",
        )


def arrival(
    wanted: Wanted, shelves: Sequence[Shelf], targets: Sequence[str]
) -> tuple[list[Step], list[str]]:
    """Return the steps that bring weights to hosts, and the hosts that are left to fetch them.

    Args:
        wanted: What.
        shelves: Of every host that serves the model and answers.
        targets: Hosts that are to have it.

    Raises:
        InputError: Only hosts of the fleet may give it, and none can.
        OpsError: It does not fit.
    """
    check_revision(wanted.revision)
    aims = [shelf for shelf in shelves if shelf.host in targets]
    require_room(wanted, aims)
    holders = [s.host for s in shelves if s.find(wanted.model, wanted.revision)]
    missing = [s.host for s in aims if s.host not in holders]
    if not missing:
        return [], []
    what = f"{wanted.model} {wanted.revision}"
    values = {"model": wanted.model, "entry": dict(wanted.entry)}
    size = f", {wanted.size / GIB:.1f} GiB" if wanted.size else ""
    steps = [Step("weights.room", "", f"room for {what}{size} on {told(missing)}",
                  {**values, "hosts": missing, "size": wanted.size})]  # fmt: skip
    if wanted.peers_only and not (holders and wanted.spread):
        raise InputError(
            f"no host has {what} to give" if wanted.spread else "--no-spread leaves no source",
            cure="name a source: --source hf://, file:// or host://",
        )
    if not wanted.spread or (not holders and len(missing) == 1):
        return steps, missing
    if not holders:
        first, *missing = missing
        steps.append(fetch(wanted, [first]))
        holders = [first]
    title = f"{told(missing)}: {what} from {told(holders)}"
    steps.append(Step("weights.spread", "", title,
                      {**values, "sources": holders, "hosts": missing}))  # fmt: skip
    return steps, []


def fetch(wanted: Wanted, hosts: Sequence[str], title: str = "") -> Step:
    """A step that runs the role: weights from their source, and the environment."""
    words = title or f"weights from {wanted.entry['source']}, and the environment"
    values = {"model": wanted.model, "entry": dict(wanted.entry), "hosts": list(hosts)}
    return Step("weights.fetch", "", f"{told(hosts)}: {words}", values)


def plan_stage(
    wanted: Wanted, shelves: Sequence[Shelf], targets: Sequence[str], *, why: str = ""
) -> Plan:
    """Plan to have a revision and its environment on hosts while nothing else changes.

    Raises:
        InputError, OpsError: As `arrival`.
    """
    steps, left = arrival(wanted, shelves, targets)
    done = {host for step in steps if step.kind == "weights.fetch" for host in step.values["hosts"]}
    rest = [host for host in targets if host not in done and host not in left]
    if left:
        steps.append(fetch(wanted, left))
    if rest:
        steps.append(fetch(wanted, rest, "the environment"))
    vllm = f" on vLLM {wanted.entry['vllm']}" if wanted.entry.get("vllm") else ""
    summary = [f"{wanted.model}: revision {wanted.revision}{vllm} onto {told(targets)}"]
    there = [s.host for s in shelves if s.host in targets
             if s.find(wanted.model, wanted.revision)]  # fmt: skip
    if there:
        summary.append(f"its weights are on {told(there)} already")
    summary.append("no engine, no request and no setting is touched")
    return Plan("model stage", wanted.model, tuple(summary), tuple(steps),
                tuple(warnings(wanted, steps)), why)  # fmt: skip


def warnings(wanted: Wanted, steps: Sequence[Step]) -> list[str]:
    """What to know before saying yes."""
    unknown = not wanted.size and any(step.kind == "weights.room" for step in steps)
    words = f"{wanted.entry['source']} does not tell its size: room on the first host is not judged"
    return [words] if unknown else []


def told(hosts: Sequence[str]) -> str:
    """Hosts for people."""
    return ", ".join(hosts) if len(hosts) < 5 else f"{hosts[0]} … {hosts[-1]} ({len(hosts)} hosts)"
