"""What processes and the fair queue tell each other, whoever keeps it: Redis or one process."""

import math
from dataclasses import dataclass, field

BACKGROUND_SECONDS = 1e9  # thirty years: more than any two clocks differ


@dataclass(frozen=True, slots=True)
class Flow:
    """Whose steps are served in turn: a key, and its weight beside other keys."""

    key: str
    weight: int = 1
    background: bool = False
    """Nobody waits for the answer: served after all other steps of its key."""


@dataclass(frozen=True, order=True, slots=True)
class Ticket:
    """One step that waits, or waited, for a place. Tickets of a key are served in their order."""

    key: str
    since: str
    """A `stamp`, which only orders one key's."""
    process: str
    number: int
    weight: int
    cost: int
    """Tokens it is charged when it gets its place: prompt and answer, by estimate."""

    def __str__(self) -> str:
        """Return it as Redis keeps it: sorted as text, a key's tickets stand in their order."""
        return (
            f"{self.key}|{self.since}|{self.process}|{self.number:012d}|{self.weight}|{self.cost}"
        )

    @staticmethod
    def parse(text: str) -> "Ticket":
        """Return the ticket of a text."""
        key, since, process, number, weight, cost = text.split("|")
        return Ticket(key, since, process, int(number), int(weight), int(cost))


def stamp(seconds: float, *, background: bool = False) -> str:
    """Return a time as tickets carry it, of fixed length.

    Args:
        seconds: Since 1970, by the process's clock.
        background: Stand behind all that is not.
    """
    return f"{seconds + background * BACKGROUND_SECONDS:017.6f}"


@dataclass(frozen=True, slots=True)
class Charge:
    """Tokens of a key since the last report; fewer than none where an estimate was too high."""

    flow: Flow
    tokens: int
    starts: int = 0
    """Steps that began at places the process held in reserve."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that changed in a process, or with `afresh` all there is."""

    process: str
    lease_seconds: float
    """0 says goodbye."""
    capacity: int
    """Completions that the engines this process thinks fit can take at a time.

    Whoever reports is taken at its word: one process that cannot reach an engine takes nothing
    from the others.
    """
    length: int
    """Most steps that may wait, of all processes."""
    held: int
    """Places it keeps: used ones and a reserve, which lets steps begin without asking."""
    used: int
    joins: tuple[Ticket, ...] = ()
    """Steps that begin to wait."""
    gone: tuple[Ticket, ...] = ()
    charges: tuple[Charge, ...] = ()
    asks: tuple[Ticket, ...] = ()
    """Steps whose rank is wanted."""
    afresh: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """The waiting steps of one key."""

    tag: float
    """The key's virtual time: tokens used, over its weight."""
    weight: int
    count: int


@dataclass(frozen=True, slots=True)
class Ruling:
    """The queue's answer to a report."""

    known: bool = True
    """False: the process was thought dead, or the queue is new: report afresh."""
    granted: tuple[tuple[Ticket, float], ...] = ()
    """Steps that have a place now, with their key's virtual time as it was."""
    refused: tuple[Ticket, ...] = ()
    """Steps that the queue has no room for."""
    reserve: int = 0
    """Places the process may keep without using them."""
    spare: int = 0
    """Places added to the process's reserve."""
    waiting: int = 0
    """Steps that wait, of all processes."""
    processes: int = 1
    time: float = 0.0
    """Virtual time: a key that was idle begins there."""
    rate: float = 0.0
    """Steps a second that got a place while others waited, lately; 0 where nobody knows."""
    lines: dict[str, Line] = field(default_factory=dict)
    ranks: dict[Ticket, int] = field(default_factory=dict)
    """Steps of the same key before each."""


UNKNOWN = Ruling(known=False)


def position(key: str, rank: int, lines: dict[str, Line], *, cost: float) -> int:
    """Return a waiting step's place in the whole queue, from 1, if nobody else comes.

    Each step before it moves its key's virtual time on, so keys take turns.

    Args:
        key: Its key.
        rank: Steps of its key before it.
        lines: The queue by key.
        cost: Tokens a step is expected to use.
    """
    own = lines[key]
    due = own.tag + rank * cost / own.weight
    before = rank
    for other, line in lines.items():
        if other == key:
            continue
        turns = (due - line.tag) * line.weight / cost
        sooner = math.ceil(turns) + (turns == math.ceil(turns) and other < key)
        before += min(max(sooner, 0), line.count)
    return before + 1
