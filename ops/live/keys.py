"""Single keys of a terminal, without a return behind them."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from types import TracebackType
from typing import Any


class Keys:
    """Reads keys while it is open, and leaves the terminal as it was; no terminal has no keys."""

    def __init__(self) -> None:
        self._file = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else None
        self._before: list[Any] | None = None

    def __enter__(self) -> Keys:
        if self._file is not None:
            self._before = termios.tcgetattr(self._file)
            tty.setcbreak(self._file)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._file is not None and self._before is not None:
            termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)

    def pressed(self, seconds: float, wanted: str) -> bool:
        """Wait so long, or until one of these keys; tell whether one was pressed."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._file is None:
                time.sleep(left)
            elif select.select([self._file], [], [], left)[0]:
                pressed = os.read(self._file, 64)
                if not pressed:  # the terminal is gone
                    return True
                if any(key in wanted for key in pressed.decode(errors="replace")):
                    return True
        return False
