"""What goes into a bundle: worked out first, with sizes, before a byte of it is fetched."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2

from ops.bundle import locks, needs, weights, wheels
from ops.bundle.apt import Archive, Deb
from ops.bundle.distributions import Distribution
from ops.bundle.needs import Needs, Packages
from ops.errors import InputError
from ops.fleet.model import Fleet
from ops.mirror import manifest as mirror
from ops.mirror.download import TIMEOUT
from ops.mirror.wanted import wanted
from ops.places import ROOT

Say = Callable[[str], None]
WORK = ".work"  # folder in a bundle while it is made: indexes, and packages on their way
CONTROL_LOCK = "control.lock"
CONTROL_TOOLS = ("make", "gpgv")  # what docs/closed-sites.md asks for, beside bootstrap's own


@dataclass(frozen=True)
class Item:
    """A file that is downloaded, and what the manifest says of it."""

    path: str
    url: str
    size: int
    sha256: str
    kind: str
    name: str
    version: str


@dataclass(frozen=True)
class Site:
    """A distribution's archive and what is taken from it."""

    archive: Archive
    packages: Packages
    debs: tuple[Deb, ...]

    @property
    def folder(self) -> str:
        """Its repository in the bundle."""
        return f"apt/{self.archive.distribution.name}"


@dataclass
class Contents:
    """All of it.

    Attributes:
        needs: What the roles ask for.
        sites: Debian packages by distribution.
        items: Wheels and weights.
        mirrors: Repositories of the GPU layer, copied as they are.
        control_lock: The part of `requirements/dev.lock` that `ops` itself needs.
        left_out: Packages that only a repository of its own has.
        keys: Key file of each mirrored repository, by its address.
    """

    needs: Needs
    sites: list[Site]
    items: list[Item]
    mirrors: list[mirror.Manifest]
    control_lock: str
    left_out: list[str] = field(default_factory=list)
    keys: dict[str, Path] = field(default_factory=dict)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Number of files and bytes by kind."""
        found: dict[str, tuple[int, int]] = {}
        debs = [deb.size for site in self.sites for deb in site.debs]
        found["apt"] = len(debs), sum(debs)
        for item in self.items:
            files, size = found.get(item.kind, (0, 0))
            found[item.kind] = files + 1, size + item.size
        if self.mirrors:
            copied = [f.size for m in self.mirrors for r in m.repositories for f in r.files()]
            found["gpu repositories"] = len(copied), sum(copied)
        return found

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return sum(size for _, size in self.sizes().values())


def work_out(fleet: Fleet, distribution: str, work: Path, say: Say) -> Contents:
    """Resolve all that an inventory needs.

    Args:
        fleet: The inventory.
        distribution: Of hosts that do not name theirs.
        work: Folder for the archives' indexes.
        say: Told what goes on.

    Raises:
        InputError: The inventory asks for what cannot be brought.
        OpsError: An archive, an index or a hub cannot be asked, or cannot be trusted.
    """
    say("asking the roles what they install")
    found = needs.collect(fleet, distribution)
    mirrors, keys = gpu_mirrors(fleet, found, say)
    sites, left_out = [], []
    for each in found.distributions:
        say(f"resolving packages of {each.name}")
        packages = with_control(found.packages[each.name])
        packages.with_recommends |= {name for m in mirrors for name in m.from_distribution}
        site, lacking = resolve(Archive(each, work / each.name), packages)
        sites.append(site)
        left_out += lacking
    control = control_pins()
    with ExitStack() as stack:
        client = stack.enter_context(httpx2.Client(timeout=TIMEOUT))
        hub = stack.enter_context(httpx2.Client(timeout=TIMEOUT, headers=weights.headers()))
        items = wheel_items(client, found, control, say)
        items += weight_items(hub, fleet, found, say)
    text = "".join(pin.text for pin in control)
    return Contents(found, sites, items, mirrors, text, sorted(set(left_out)), keys)


def resolve(archive: Archive, packages: Packages) -> tuple[Site, list[str]]:
    """Packages of one archive; those of a role's own repository that it lacks are named."""
    archive.refresh()
    lacking = packages.elsewhere - archive.has(packages.elsewhere)
    packages = replace(
        packages, with_recommends=packages.with_recommends | (packages.elsewhere - lacking)
    )
    return Site(archive, packages, tuple(archive.resolve(packages))), sorted(lacking)


def with_control(packages: Packages) -> Packages:
    """The same with what the control machine itself is made of."""
    names = {*CONTROL_TOOLS, *bootstrap().CONTROL_PACKAGES}
    return replace(packages, bare=packages.bare | names)


def bootstrap() -> Any:
    """scripts/bootstrap.py, which names the control machine's packages."""
    found = importlib.util.spec_from_file_location("bootstrap", ROOT / "scripts/bootstrap.py")
    if found is None or found.loader is None:
        raise InputError("scripts/bootstrap.py is not there", place=str(ROOT))
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def control_pins() -> list[locks.Pin]:
    """The part of the control machine's lock that running `ops` needs, without development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    roots = [*project["project"]["dependencies"], *project["build-system"]["requires"], "uv"]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", root)[0]).lower() for root in roots}
    return locks.closure(locks.read(ROOT / "requirements/dev.lock"), names)


def wheel_items(
    client: httpx2.Client, found: Needs, control: list[locks.Pin], say: Say
) -> list[Item]:
    """Wheels of every lock for every Python that installs it."""
    asked: list[tuple[str, list[locks.Pin], Distribution]] = []
    uv = locks.read(ROOT / "requirements/uv.lock")
    by_name = {each.name: each for each in found.distributions}
    for each in found.distributions:
        asked += [("uv", uv, each), (CONTROL_LOCK, control, each)]
    for lock, names in found.locks.items():
        asked += [(lock.name, locks.read(lock), by_name[name]) for name in sorted(names)]
    indexes = wheels.Indexes(client)
    chosen: dict[str, Item] = {}
    for title, pins, distribution in asked:
        wanted_pins = locks.needed(pins, distribution)
        say(f"looking up wheels of {title} for {distribution.name}")
        for wheel in wheels.choose(indexes, wanted_pins, distribution):
            chosen[wheel.file] = Item(
                f"wheels/{wheel.file}", wheel.url, wheel.size, wheel.sha256, "wheel",
                wheel.name, wheel.version,
            )  # fmt: skip
    return [chosen[file] for file in sorted(chosen)]


def weight_items(hub: httpx2.Client, fleet: Fleet, found: Needs, say: Say) -> list[Item]:
    """Files of every model; what lies on a host already is no business of a bundle."""
    endpoints = {str(host.variables.get("engine_hub_endpoint") or "") for host in fleet.hosts}
    endpoint = next(iter(sorted(endpoints - {""})), "")
    items = []
    for model in found.weights:
        if model.source.startswith("host://"):
            continue
        say(f"listing weights of {model.name} {model.revision}")
        items += [
            Item(each.path, each.url, each.size, each.sha256, "weights", model.name, model.revision)
            for each in weights.files(model, hub, endpoint)
        ]
    return items


def gpu_mirrors(
    fleet: Fleet, found: Needs, say: Say
) -> tuple[list[mirror.Manifest], dict[str, Path]]:
    """Repositories of drivers, CUDA and the container toolkit, for hosts that have GPUs."""
    by_distribution: dict[str, list[Any]] = {}
    for host in fleet.group("gpu"):
        if needs.gpus(host):
            by_distribution.setdefault(found.hosts[host.name], []).append(host)
    made: list[mirror.Manifest] = []
    keys: dict[str, Path] = {}
    for name, hosts in sorted(by_distribution.items()):
        say(f"resolving drivers for {name}")
        sources, roots = wanted(replace(fleet, hosts=tuple(hosts)), name)
        keys |= {source.url: source.key_file for source in sources}
        made.append(mirror.make(sources, roots))
    return made, keys


def entries(items: Iterable[Item]) -> dict[str, dict[str, str]]:
    """What the manifest says of downloaded files, by path."""
    return {
        item.path: {
            "kind": item.kind,
            "name": item.name,
            "version": item.version,
            "origin": item.url,
        }
        for item in items
    }
