"""What an injection and its end consist of: frozen, so that they can be printed and tested."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shell:
    """A script that root runs on a host over SSH.

    Attributes:
        host: Where.
        script: For `sh`.
        stdin: What it reads; never printed.
    """

    host: str
    script: str
    stdin: str = ""

    def __str__(self) -> str:
        return f"{self.host}: {self.script}"


@dataclass(frozen=True)
class Act:
    """Something that the lab does on this machine.

    Attributes:
        verb: `network`, `delay`, `power cut`, `power off`, `power on`, `mirror`, or a `gpu …`.
        host: The host that it is about.
        words: What else it needs.
    """

    verb: str
    host: str
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(("this machine:", self.verb, self.host, *self.words))


Step = Shell | Act
