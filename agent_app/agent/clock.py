"""How long engines work on a step, measured and bounded."""

import asyncio
from types import TracebackType


class EngineClock:
    """Runs while an engine has our request; a context manager.

    What it measures is wall clock from the engine's taking a request on to the end of its stream:
    its own queue is in it, and it shares its GPU with other streams meanwhile.

    Args:
        left: Seconds after which it ends the step with TimeoutError.
    """

    def __init__(self, left: float) -> None:
        self._left = left
        self._sum = 0.0
        self._since: float | None = None
        self._bound = asyncio.timeout(None)

    async def __aenter__(self) -> "EngineClock":
        await self._bound.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._add_up()
        await self._bound.__aexit__(kind, error, trace)

    def go(self) -> None:
        """Run, if it does not already."""
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
            self._bound.reschedule(self._since + self._left - self._sum)

    def pause(self) -> None:
        """Stand still until the next engine takes the request on."""
        self._add_up()
        self._bound.reschedule(None)

    def _add_up(self) -> None:
        if self._since is not None:
            self._sum += asyncio.get_running_loop().time() - self._since
            self._since = None

    @property
    def expired(self) -> bool:
        """It was the clock that ended the step."""
        return self._bound.expired()

    @property
    def seconds(self) -> float:
        """What it has measured, while it stands still."""
        return self._sum
