"""The work behind a step: do, check, undo. Each kind of step is one class, found by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from ops.errors import OpsError
from ops.fleet.model import Fleet, Host
from ops.operations.plan import Step

KINDS = {
    "app": "ops.app.steps",
    "backup": "ops.backup.steps",
    "driver": "ops.driver.steps",
    "engine": "ops.models.steps",
    "gpu": "ops.restarts.gpu_steps",
    "host": "ops.restarts.host_steps",
    "inventory": "ops.models.inventory",
    "restart": "ops.restarts.engine_steps",
    "secrets": "ops.secrets.steps",
    "weights": "ops.weights.steps",
}
"""By the part of a step's kind before the dot: the module that has `KINDS`, class by whole kind."""


@dataclass(frozen=True)
class Context:
    """What a step works with besides its own values.

    Attributes:
        fleet: The fleet as this checkout's inventory has it.
        operation: The operation's id; playbooks that it runs are let in by it.
        say: Tells a person what goes on within a step.
        note: Adds to the step's entry in the journal, for its undo; on the disk when it returns.
    """

    fleet: Fleet
    operation: str
    say: Callable[[str], None]
    note: Callable[[Mapping[str, Any]], None]


class LastingError(OpsError):
    """An undo found that nothing can bring back what the step did, now or later."""


class Work(Protocol):
    """What a step does. Every method may be called again after a death in the middle of it."""

    def do(self) -> None:
        """Bring it about.

        Raises:
            OpsError: It cannot be; the operation is then undone.
        """

    def holds(self) -> bool:
        """Whether it is so already: asked where a death left that unknown."""

    def undo(self) -> None:
        """Bring back what was before, whatever of `do` happened.

        Raises:
            LastingError: It never can be; the rest is brought back.
            OpsError: It cannot be now; a person, or a later resume, has to.
        """


def make_work(context: Context, step: Step, detail: Mapping[str, Any]) -> Work:
    """Return the work of a step; `detail` is what it noted before, where it was begun before.

    Raises:
        OpsError: This checkout knows no such kind.
    """
    module = KINDS.get(step.kind.partition(".")[0])
    kinds = import_module(module).KINDS if module else {}
    if step.kind not in kinds:
        raise OpsError(
            f"this checkout knows no step {step.kind!r}",
            cure="resume with the version of Rackhand that began the operation",
        )
    work: Work = kinds[step.kind](context, step, detail)
    return work


def host_of(context: Context, step: Step) -> Host:
    """The host that a step is about."""
    return context.fleet.host(step.host)
