"""The step that restarts engines where they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ops.engine.switchboard import Switchboard
from ops.errors import NotIdleError, OpsError
from ops.models.state import model_on
from ops.operations.plan import Step
from ops.operations.together import together
from ops.operations.work import Context
from ops.remote import connect


class RestartEngines:
    """Engines end what they had begun, start anew and make a token; requests go elsewhere."""

    def __init__(self, context: Context, step: Step, detail: Mapping[str, Any]) -> None:
        del detail
        self._context = context
        self._values = step.values

    def do(self) -> None:
        together(self._values["hosts"], self._restart)

    def holds(self) -> bool:
        """Not known: do it again."""
        return False

    def undo(self) -> None:
        """Have them serve; an engine that is restarted already stays so."""
        together(self._values["hosts"], self._let_in)

    def _restart(self, place: Mapping[str, str]) -> None:
        slot = place["slot"]
        with self._board(place) as board:
            board.hold(f"operation {self._context.operation}")
            try:
                board.wait_idle(slot, float(self._values["drain_seconds"]))
            except NotIdleError as error:
                if not self._values.get("cut"):
                    raise
                self._context.say(f"{error.message}: they are cut")
            board.stop(slot)
        self._let_in(place)

    def _let_in(self, place: Mapping[str, str]) -> None:
        with self._board(place) as board:
            board.start(place["slot"], float(self._values["ready_seconds"]))
            board.release()

    @contextmanager
    def _board(self, place: Mapping[str, str]) -> Iterator[Switchboard]:
        fleet, name = self._context.fleet, str(self._values["model"])
        host = fleet.host(place["host"])
        model = model_on(host, name)
        if model is None:
            raise OpsError(
                f"the inventory has no model {name} for {host.name} any more",
                place=str(fleet.inventory),
                cure="put it back until the operation has ended",
            )
        with connect(fleet, host) as connection:
            yield Switchboard(connection, host, model, self._context.say)


KINDS = {"restart.engine": RestartEngines}
