"""Bring a revision from the hosts that have it to those that have not; each that has it helps."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress

from ops.errors import OpsError
from ops.fleet.model import Fleet, Host
from ops.weights import peer
from ops.weights.peer import Parcel
from ops.weights.shelf import path_of, survey, survey_those_up

MOST_FROM_ONE = 2
"""Hosts that one hands to at once: more would only share its line."""
TELL_SECONDS = 10.0


def pair(
    waiting: Sequence[str],
    busy: Mapping[str, int],
    tried: Collection[tuple[str, str]],
) -> list[tuple[str, str]]:
    """Return who now gets it from whom. Pure.

    Args:
        waiting: Hosts that have it not and are not at it.
        busy: By host that has it, to how many it hands it right now.
        tried: Pairs (source, target) that failed before.
    """
    load, found = dict(busy), []
    for target in waiting:
        able = [s for s in load if load[s] < MOST_FROM_ONE and (s, target) not in tried]
        if able:
            source = min(able, key=lambda s: load[s])
            load[source] += 1
            found.append((source, target))
    return found


class Spreading:
    """One revision on its way through a fleet.

    Args:
        fleet: The fleet.
        model: Its name.
        revision: The revision's.
        say: Told what goes on.
    """

    def __init__(self, fleet: Fleet, model: str, revision: str, say: Callable[[str], None]) -> None:
        self._fleet = fleet
        self._model, self._revision = model, revision
        self._say = say
        self._token = secrets.token_hex(32)
        self._served: dict[str, threading.Lock] = {}
        self._open: set[str] = set()
        self._told = time.monotonic()
        self._progress: dict[str, tuple[int, int]] = {}
        self._over = threading.Event()

    def run(self, sources: Sequence[Host], targets: Sequence[Host]) -> None:
        """Bring it to every target.

        Args:
            sources: Hosts that may have it; those that do not answer are left out.
            targets: Hosts that are to have it; each that does becomes a source.

        Raises:
            OpsError: No host has it, or not every target got it; those that did keep it.
            RemoteError: A target cannot be reached.
        """
        others = [host for host in sources if host not in targets]
        shelves = [*survey(self._fleet, targets), *survey_those_up(self._fleet, others)]
        found = {s.host: s.find(self._model, self._revision) for s in shelves}
        have = {host: revision.digest for host, revision in found.items() if revision}
        waiting = [host.name for host in targets if host.name not in have]
        if not waiting:
            return
        if not have:
            raise OpsError(
                f"no host has {self._model} {self._revision} to give",
                cure="name a source: --source hf://, file:// or host://",
            )
        digest = next(iter(have.values()))
        if odd := sorted(host for host, other in have.items() if other != digest):
            self._say(f"{', '.join(odd)}: other files under the name {self._revision}")
        path = path_of(self._model, self._revision)
        parcel = Parcel(path, digest, self._token)
        try:
            self._spread(waiting, [h for h, d in have.items() if d == digest], parcel, targets)
        finally:
            self.stop([self._fleet.host(name) for name in self._open])

    def stop(self, hosts: Sequence[Host]) -> None:
        """End the servers; one that cannot be reached ends by itself."""
        for host in hosts:
            with suppress(OpsError):
                peer.stop(self._fleet, host)

    def _spread(
        self, waiting: list[str], have: list[str], parcel: Parcel, peers: Sequence[Host]
    ) -> None:
        busy = dict.fromkeys(have, 0)
        tried: dict[tuple[str, str], str] = {}
        under_way: dict[Future[None], tuple[str, str]] = {}
        with self._pool(len(waiting)) as pool:
            while waiting or under_way:
                for source, target in pair(waiting, busy, tried):
                    waiting.remove(target)
                    busy[source] += 1
                    self._served.setdefault(source, threading.Lock())
                    work = pool.submit(self._hand, source, target, parcel, peers)
                    under_way[work] = (source, target)
                if not under_way:
                    break  # nobody is left who could give it to those that wait
                for work in wait(under_way, return_when=FIRST_COMPLETED).done:
                    source, target = under_way.pop(work)
                    busy[source] -= 1
                    error = work.exception()
                    if error is None:
                        busy[target] = 0
                        self._say(f"{target} has it, from {source}")
                    elif isinstance(error, OpsError):
                        tried[source, target] = error.message
                        waiting.append(target)
                        self._say(error.message)
                    else:
                        raise error
        if waiting:
            why = [f"  {words}" for (_, target), words in tried.items() if target in waiting]
            raise OpsError(
                f"{', '.join(waiting)} did not get {self._model} {self._revision}:\n"
                + "\n".join(why),
                cure="what arrived stays: the same command again goes on with it",
            )

    @contextmanager
    def _pool(self, size: int) -> Iterator[ThreadPoolExecutor]:
        """Threads that end soon when the operator wants to stop now."""
        with ThreadPoolExecutor(max_workers=size) as pool:
            try:
                yield pool
            except BaseException:
                self._over.set()
                raise

    def _hand(self, source: str, target: str, parcel: Parcel, peers: Sequence[Host]) -> None:
        giver, taker = self._fleet.host(source), self._fleet.host(target)
        with self._served[source]:
            if source not in self._open:
                others = [host for host in peers if host.name != source]
                self._open.add(source)
                try:
                    peer.serve(self._fleet, giver, parcel, others)
                except OpsError:
                    self._open.discard(source)
                    raise
        peer.fetch(self._fleet, taker, giver, parcel, lambda *far: self._heard(target, *far))

    def _heard(self, target: str, have: int, whole: int) -> None:
        if self._over.is_set():
            raise OpsError("stopped")
        self._progress[target] = (have, whole)
        if time.monotonic() - self._told > TELL_SECONDS:
            self._told = time.monotonic()
            told = [f"{h} {100 * n // (of or 1)} %" for h, (n, of) in self._progress.items()]
            self._say(", ".join(told))
