"""Start-time fair queueing over tokens: who gets the next place at the engines.

Each key has a virtual time, the tokens it used over its weight. A free place goes to the waiting
key that is furthest behind. The queue's own virtual time is that of the last step that began; a key
with nothing waiting begins again there, so idleness saves nothing up and past use is not held
against it. (Goyal, Vin and Cheng, "Start-time Fair Queueing", 1996; served D at a time as in Jin,
Chase and Kaur's SFQ(D), 2004.)

A step is charged an estimate when it begins: places that come free together would all go to the
same key otherwise. What it uses beyond that is charged as it streams, and the estimate is put right
in the end.

This is the queue of one process without Redis, and what `shared_queue`'s script is tested against.
"""

from bisect import insort
from dataclasses import dataclass, field

from agent_app.agent.queue_terms import UNKNOWN, Charge, Line, Report, Ruling, Ticket

SPARE_MOST = 8
"""Places in reserve per process: enough to begin steps while the next report is on its way."""
RATE_SECONDS = 10.0


@dataclass(slots=True)
class _Process:
    """One that uses the engines."""

    until: float
    held: int = 0
    spare: int = 0
    knows: bool = False
    """That steps wait: from then on it gives places back as they come free."""
    granted: list[tuple[Ticket, float]] = field(default_factory=list)
    """Not yet told, as are refused."""
    refused: list[Ticket] = field(default_factory=list)


class FairQueue:
    """The queue before the engines of one model. It has no clock and does nothing by itself."""

    def __init__(self, time: float = 0.0, tags: dict[str, float] | None = None) -> None:
        self.time = time
        self._tags = dict(tags or {})
        self._weights: dict[str, int] = {}
        self._waiting: dict[str, list[Ticket]] = {}
        self._processes: dict[str, _Process] = {}
        self._seen = self._busy = self._served = 0.0

    def turn(self, report: Report, now: float) -> tuple[Ruling, set[str]]:
        """Take in a report and return the ruling, and the processes to wake.

        Args:
            report: Of one process.
            now: Seconds of a clock that all reports share.
        """
        self._observe(now)
        for name in [name for name, other in self._processes.items() if other.until < now]:
            if name != report.process:
                self._forget(name)
        if report.process not in self._processes and not report.afresh:
            return UNKNOWN, set()
        if report.afresh:
            self._forget(report.process)
        process = self._processes.setdefault(report.process, _Process(now))
        process.until = now + report.lease_seconds
        process.held = report.held + len(process.granted)
        process.spare = report.held - report.used
        for ticket in report.gone:
            self._withdraw(ticket)
        for charge in report.charges:
            self._charge(charge)
        for ticket in report.joins:
            self._join(ticket, report.length)
        if report.lease_seconds <= 0:
            self._forget(report.process)
            process = _Process(now)
        self._let_in(report.capacity)
        reserve, spare = self._reserve(process, report)
        self._rest()
        return self._rule(report, process, reserve, spare), self._wake(report.process)

    def _observe(self, now: float) -> None:
        if self._waiting:
            self._busy += now - self._seen
        self._seen = now
        if self._busy > RATE_SECONDS:
            self._busy, self._served = self._busy / 2, self._served / 2

    def _forget(self, name: str) -> None:
        self._processes.pop(name, None)
        for tickets in list(self._waiting.values()):
            for ticket in [ticket for ticket in tickets if ticket.process == name]:
                self._withdraw(ticket)

    def _withdraw(self, ticket: Ticket) -> None:
        tickets = self._waiting.get(ticket.key, [])
        if ticket in tickets:
            tickets.remove(ticket)
            if not tickets:
                del self._waiting[ticket.key]

    def _charge(self, charge: Charge) -> None:
        key, weight = charge.flow.key, charge.flow.weight
        tag = self._tags.get(key, 0.0)
        if key not in self._waiting:
            tag = max(tag, self.time)
        if charge.starts:  # the last of them began when the others were charged already
            others = charge.tokens * (charge.starts - 1) / charge.starts
            self.time = max(self.time, tag + max(others, 0.0) / weight)
        self._tags[key] = tag + charge.tokens / weight
        self._weights[key] = weight

    def _join(self, ticket: Ticket, length: int) -> None:
        """Let a step wait. In a full queue the key with most steps per weight gives way."""
        key = ticket.key
        if sum(map(len, self._waiting.values())) >= length:
            load, longest = max(
                (
                    (len(tickets) / self._weights[name], name)
                    for name, tickets in self._waiting.items()
                ),
                default=(0.0, key),
            )
            if load <= (len(self._waiting.get(key, [])) + 1) / ticket.weight:
                self._processes[ticket.process].refused.append(ticket)
                return
            victim = self._waiting[longest][-1]
            self._withdraw(victim)
            self._processes[victim.process].refused.append(victim)
        if key not in self._waiting:
            self._tags[key] = max(self._tags.get(key, 0.0), self.time)
        self._weights[key] = ticket.weight
        insort(self._waiting.setdefault(key, []), ticket)

    def _let_in(self, capacity: int) -> None:
        while self._waiting and self._held() < capacity:
            key = min(self._waiting, key=lambda name: (self._tags[name], name))
            ticket, tag = self._waiting[key][0], self._tags[key]
            self._withdraw(ticket)
            self.time = max(self.time, tag)
            self._tags[key] = tag + ticket.cost / self._weights[key]
            self._served += 1
            process = self._processes[ticket.process]
            process.held += 1
            process.granted.append((ticket, tag))

    def _held(self) -> int:
        return sum(process.held for process in self._processes.values())

    def _reserve(self, process: _Process, report: Report) -> tuple[int, int]:
        """Return the process's reserve: a part of what is free, and what it gets to fill it."""
        if self._waiting or report.lease_seconds <= 0:
            return 0, 0
        free = report.capacity - self._held() + process.spare
        reserve = max(0, min(SPARE_MOST, free // (2 * len(self._processes))))
        spare = max(0, reserve - process.spare)
        process.held += spare
        process.spare += spare
        return reserve, spare

    def _rest(self) -> None:
        """Forget what no longer matters: keys behind, and all of them when all is quiet."""
        quiet = not any(process.held > process.spare for process in self._processes.values())
        if quiet and not self._waiting:
            self.time = max([self.time, *self._tags.values()])
        for key in [key for key, tag in self._tags.items() if tag <= self.time]:
            if key not in self._waiting:
                del self._tags[key]
                self._weights.pop(key, None)

    def _rule(self, report: Report, process: _Process, reserve: int, spare: int) -> Ruling:
        granted, process.granted = tuple(process.granted), []
        refused, process.refused = tuple(process.refused), []
        return Ruling(
            granted=granted,
            refused=refused,
            reserve=reserve,
            spare=spare,
            waiting=sum(map(len, self._waiting.values())),
            processes=len(self._processes),
            time=self.time,
            rate=self._served / self._busy if self._busy >= 1 else 0.0,
            lines={
                key: Line(self._tags[key], self._weights[key], len(tickets))
                for key, tickets in self._waiting.items()
            },
            ranks={
                ticket: self._waiting[ticket.key].index(ticket)
                for ticket in report.asks
                if ticket in self._waiting.get(ticket.key, ())
            },
        )

    def _wake(self, but: str) -> set[str]:
        """Return who has news, or places that it may not use while others wait for them."""
        woken = set()
        for name, process in self._processes.items():
            if not self._waiting:
                process.knows = False
            elif name == but:
                process.knows = True
            news = bool(process.granted or process.refused)
            if name != but and (news or (self._waiting and process.held and not process.knows)):
                woken.add(name)
                process.knows = bool(self._waiting)
        return woken
