"""Which weights and environments may go, by policy. Pure: shelves in, plan out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ops.errors import InputError
from ops.operations.plan import Plan, Step
from ops.weights.manifest import REMOVING, STAGING
from ops.weights.plan import GIB
from ops.weights.shelf import ENVIRONMENTS, Environment, Revision, Shelf, path_of

STAGING_SECONDS = 24 * 3600.0
"""A staging folder in which nothing moved for so long belongs to nobody."""


@dataclass(frozen=True)
class Named:
    """What is not to go though no engine uses it: wanted by the inventory, named by an operation.

    Attributes:
        revisions: Pairs of model and revision, each with the reason.
        versions: Versions of vLLM, or whole names of environments, each with the reason.
    """

    revisions: Mapping[tuple[str, str], str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What becomes of one folder; `why` it stays, or empty: it goes."""

    path: str
    size: int
    why: str = ""


def named_by(values: Any, model: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the entries of models anywhere in a step's values, with the model's name."""
    if isinstance(values, Mapping):
        model = str(values.get("model") or values.get("name") or model)
        if values.get("revision"):
            yield model, values
        for value in values.values():
            yield from named_by(value, model)


def judge(shelf: Shelf, keep: int, named: Named, only: str = "") -> list[Verdict]:
    """Say of every folder whether it stays.

    Args:
        shelf: A host's.
        keep: How many of the newest that nobody uses stay, for each model and for environments.
        named: What stays besides.
        only: One model, and no environment.
    """
    found: list[Verdict] = []
    for model, revisions in shelf.models.items():
        if not only or model == only:
            found += judge_model(shelf, model, revisions, keep, named)
    return found if only else [*found, *judge_environments(shelf, keep, named)]


def judge_model(
    shelf: Shelf, model: str, revisions: Sequence[Revision], keep: int, named: Named
) -> Iterator[Verdict]:
    """Say of each revision of one model whether it stays."""
    used = used_revisions(shelf, model)
    used |= {r: why for (m, r), why in named.revisions.items() if m == model and r not in used}
    whole = sorted((r for r in revisions if r.whole), key=lambda r: r.at, reverse=True)
    spare = [r.name for r in whole if r.name not in used]
    for revision in sorted(revisions, key=lambda r: r.at, reverse=True):
        name, why = revision.name, ""
        if revision.whole:
            why = used.get(name) or newest(spare, name, keep)
        elif name.endswith(STAGING):
            recent = shelf.now - revision.at < STAGING_SECONDS
            why = "is being staged" if recent else ""
        elif not name.endswith(REMOVING):
            why = "has no manifest: not ours"
        yield Verdict(path_of(model, name), revision.size, why)


def used_revisions(shelf: Shelf, model: str) -> dict[str, str]:
    """Revisions of a model that its host needs, each with the reason."""
    fact = shelf.fact.get(model, {})
    found: dict[str, str] = {}
    for entry, why in ((fact, "serves"), (fact.get("entry"), "serves"),
                       (fact.get("standby"), "is the way back")):  # fmt: skip
        if entry and entry.get("revision"):
            found.setdefault(str(entry["revision"]), why)
    for slot in shelf.slots:
        head = path_of(model, "")
        if slot.runs and slot.path.startswith(head):
            found.setdefault(slot.path.removeprefix(head), f"runs in slot {slot.name}")
    return found


def judge_environments(shelf: Shelf, keep: int, named: Named) -> Iterator[Verdict]:
    """Say of each environment whether it stays."""
    used: dict[str, str]
    used = {slot.environment: f"is named by slot {slot.name}" for slot in shelf.slots}
    used |= {f["environment"]: "serves" for f in shelf.fact.values() if f.get("environment")}
    for fact in shelf.fact.values():
        if version := (fact.get("standby") or {}).get("vllm"):
            used |= of_version(shelf.environments, str(version), "is the way back")
    for version, why in named.versions.items():
        used |= {n: w for n, w in of_version(shelf.environments, version, why).items()
                 if n not in used}  # fmt: skip
    ordered = sorted(shelf.environments, key=lambda e: e.at, reverse=True)
    spare = [e.name for e in ordered if e.complete and e.name not in used]
    for found in ordered:
        why = used.get(found.name, "")
        if not found.ours:
            why = "is mounted or read-only"
        elif not why and not found.name.endswith(REMOVING):
            built = shelf.now - found.at < STAGING_SECONDS
            other = "is being built" if built and not found.complete else ""
            why = newest(spare, found.name, keep) if found.complete else other
        yield Verdict(f"{ENVIRONMENTS}/{found.name}", found.size, why)


def of_version(found: Collection[Environment], version: str, why: str) -> dict[str, str]:
    """Environments of a version of vLLM, whatever their build."""
    return {e.name: why for e in found if e.name == version or e.name.startswith(f"{version}-")}


def newest(spare: Sequence[str], name: str, keep: int) -> str:
    """Why one that nobody uses stays: it is among the newest."""
    return "is among the newest" if name in spare[:keep] else ""


def plan_prune(
    shelves: Sequence[Shelf],
    keep: Mapping[str, int],
    named: Named,
    *,
    only: str = "",
    why: str = "",
) -> Plan:
    """Plan to remove from every host what policy lets go.

    Args:
        shelves: Of the hosts, with the sizes of environments.
        keep: By host, how many unused ones stay.
        named: What stays besides.
        only: One model; empty for all, and for environments.
        why: In the operator's words.

    Raises:
        InputError: There is nothing to remove.
    """
    steps, summary, freed = [], [], 0
    for shelf in shelves:
        verdicts = judge(shelf, keep[shelf.host], named, only)
        going = [v for v in verdicts if not v.why]
        summary += [f"{shelf.host}: {v.path} stays: it {v.why}" for v in verdicts if v.why]
        summary += [f"{shelf.host}: {v.path} goes, {v.size / GIB:.2f} GiB" for v in going]
        size = sum(v.size for v in going)
        freed += size
        if going:
            title = f"{shelf.host}: remove {len(going)} folder(s), {size / GIB:.2f} GiB"
            paths = [v.path for v in going]
            steps.append(Step("weights.prune", shelf.host, title, {"paths": paths, "size": size}))
    if not steps:
        raise InputError(
            "nothing to remove:\n" + "\n".join(f"  {line}" for line in summary),
            cure="--keep 0 keeps none that nobody uses" if any(keep.values()) else "",
        )
    summary.append(f"frees {freed / GIB:.2f} GiB")
    return Plan("model prune", only or "all models", tuple(summary), tuple(steps),
                ("what is removed can be staged again, not brought back",), why)  # fmt: skip
