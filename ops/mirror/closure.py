"""All packages that come along with the ones asked for, as far as these repositories have them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ops.errors import InputError
from ops.mirror.driver_packages import is_driver, upstream
from ops.mirror.repository import Offer
from ops.mirror.versions import satisfies, version_key

RELATION = re.compile(r"\s*([^\s(:]+)(?::\w+)?\s*(?:\((<<|<=|=|>=|>>)\s*([^)\s]+)\))?")
DISTRIBUTION = "main"  # what is in it and no kernel is the distribution's own


@dataclass(frozen=True)
class Root:
    """A package that an inventory asks for.

    Attributes:
        name: Its name.
        version: Its exact version, the driver's (`580.178.04`) or branch (`580`); or the newest.
    """

    name: str
    version: str = ""


def close(roots: Sequence[Root], offers: Iterable[Offer]) -> tuple[list[Offer], list[str]]:
    """Resolve packages.

    Args:
        roots: What the inventory asks for.
        offers: All that the repositories have.

    Returns:
        The packages to copy, and names of those that hosts need from their distribution.

    Raises:
        InputError: No repository has a package that was asked for.
    """
    index = Index(offers)
    coming = [index.root(root) for root in roots]
    elsewhere: set[str] = set()
    for offer in coming:  # grows as dependencies are found
        for clause in filter(None, map(str.strip, offer.depends.split(","))):
            found = index.clause(clause, offer, coming)
            if found is None:
                elsewhere.add(clause.split("|")[0].split()[0])
            elif found not in coming:
                coming.append(found)
    return sorted(coming, key=lambda offer: (offer.name, offer.version)), sorted(elsewhere)


class Index:
    """Offers by name, the newest first.

    Args:
        offers: All of them.
    """

    def __init__(self, offers: Iterable[Offer]) -> None:
        self.by_name: dict[str, list[Offer]] = {}
        for offer in sorted(offers, key=lambda each: version_key(each.version), reverse=True):
            for name in {offer.name, *offer.provides}:
                self.by_name.setdefault(name, []).append(offer)

    def root(self, root: Root) -> Offer:
        """The newest offer that is what was asked for."""
        named = [offer for offer in self.by_name.get(root.name, ()) if offer.name == root.name]
        for offer in named:
            if not root.version or _is_wanted(offer, root.version):
                return offer
        have = ", ".join(dict.fromkeys(offer.version for offer in named)) or "none"
        raise InputError(
            f"No repository has {root.name} {root.version}".rstrip(),
            cure=f"change the inventory's version or repository; versions there are: {have}",
        )

    def clause(self, clause: str, asking: Offer, coming: Sequence[Offer]) -> Offer | None:
        """What satisfies a dependency.

        A package that comes anyway, or else one of the same driver (NVIDIA's dependencies are not
        bounded from above, so the newest may be of another branch), or else the newest.
        """
        possible = []
        for alternative in clause.split("|"):
            match = RELATION.match(alternative)
            if match is None:
                continue
            name, relation, version = match[1], match[2] or "", match[3] or ""
            possible += [
                offer
                for offer in self.by_name.get(name, ())
                if not _is_the_distributions(offer)
                and (offer.name == name or not relation)
                and satisfies(offer.version, relation, version)
            ]
        driver = upstream(asking.version)
        return min(
            possible,
            key=lambda each: (each not in coming, not driver or upstream(each.version) != driver),
            default=None,
        )


def _is_wanted(offer: Offer, version: str) -> bool:
    found = upstream(offer.version)
    of_driver = is_driver(offer.name) and (found == version or found.startswith(f"{version}."))
    return offer.version == version or of_driver


def _is_the_distributions(offer: Offer) -> bool:
    return offer.component == DISTRIBUTION and not offer.name.startswith("linux-")
