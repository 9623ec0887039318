"""Faults on demand, from the environment or from a file that may change while the engine runs.

One fault per word or line: `slow_load:SECONDS crash_at_load crash_after_tokens:N garbage
out_of_memory hang hang_at_load slow:FACTOR error_rate:P small_cache:TOKENS`.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

WITH_NUMBER = ("slow_load", "crash_after_tokens", "slow", "error_rate", "small_cache")
ALONE = ("crash_at_load", "garbage", "out_of_memory", "hang", "hang_at_load")
OUT_OF_MEMORY = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
    "capacity of 79.25 GiB of which 1.10 GiB is free. Including non-PyTorch memory, this process "
    "has 78.14 GiB memory in use. Of the allocated memory 76.92 GiB is allocated by PyTorch, and "
    "512.31 MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is "
    "large try setting PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)


class UnknownFaultError(ValueError):
    """A fault that does not exist, or a number that is none."""


def parse(text: str) -> dict[str, float]:
    """Faults by name; 1.0 stands for a fault that takes no number.

    Raises:
        UnknownFaultError: Names the word and lists what there is.
    """
    faults = {}
    for word in text.replace(",", " ").split():
        name, colon, number = word.partition(":")
        known: tuple[str, ...] = WITH_NUMBER if colon else ALONE
        try:
            faults[name] = float(number) if colon else 1.0
        except ValueError:
            known = ()
        if name not in known:
            wanted = ", ".join([*ALONE, *(f"{n}:NUMBER" for n in WITH_NUMBER)])
            raise UnknownFaultError(f"no fault is written {word!r}; use {wanted}")
    return faults


@dataclass
class Faults:
    """The faults of this moment.

    Attributes:
        initial: Those that hold where there is no file.
        file: Read again whenever it changes; its absence means `initial`.
    """

    initial: dict[str, float] = field(default_factory=dict)
    file: Path | None = None
    _seen: tuple[int, int] = (0, 0)
    _read: dict[str, float] = field(default_factory=dict)
    _owed_errors: float = 0.0

    def now(self) -> dict[str, float]:
        """The faults that hold now; a file that cannot be understood changes nothing."""
        if self.file is None:
            return self.initial
        try:
            stat = self.file.stat()
            if self._seen != (stat.st_mtime_ns, stat.st_size):
                self._seen = (stat.st_mtime_ns, stat.st_size)
                self._read = parse(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return self.initial
        except UnknownFaultError as error:
            print(f"{self.file}: {error}", file=sys.stderr, flush=True)
        return self._read

    def at_load(self) -> None:
        """Take the time, or the end, that loading has been told to take."""
        faults = self.now()
        time.sleep(faults.get("slow_load", 0.0))
        while "hang_at_load" in self.now():
            time.sleep(0.1)
        self.out_of_memory()
        if "crash_at_load" in faults:
            print("RuntimeError: Engine core initialization failed.", file=sys.stderr, flush=True)
            os._exit(1)

    def out_of_memory(self) -> None:
        """End as vLLM does where the GPU's memory does not suffice."""
        if "out_of_memory" in self.now():
            print(OUT_OF_MEMORY, file=sys.stderr, flush=True)
            os._exit(1)

    def next_request_fails(self) -> bool:
        """Whether this request is one of the share that fails; spread evenly, not by chance."""
        self._owed_errors += self.now().get("error_rate", 0.0)
        if self._owed_errors < 1.0:
            return False
        self._owed_errors -= 1.0
        return True
