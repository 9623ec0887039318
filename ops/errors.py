"""The errors that `ops` shows to a person: what is wrong, where, and the cure."""

from __future__ import annotations

from typing import ClassVar


class OpsError(Exception):
    """Something a person can act on; printed without a traceback.

    Args:
        message: What is wrong, one sentence without the final full stop.
        place: Where: a file and key, a host, a unit or a command.
        cure: What to do, as a command where there is one.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, place: str = "", cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.cure = cure

    def __str__(self) -> str:
        lines = [self.message]
        if self.place:
            lines.append(f"  where: {self.place}")
        if self.cure:
            lines.append(f"  cure:  {self.cure}")
        return "\n".join(lines)


class InputError(OpsError):
    """The command, an inventory or a file that a person wrote is wrong."""

    exit_code = 2


class MissingToolError(OpsError):
    """A program of the control machine that the command needs is not installed."""


class NotIdleError(OpsError):
    """Requests under way did not end in the time that they had."""


class RemoteError(OpsError):
    """A host could not be reached, or a command on it failed."""


class UnreachableError(RemoteError):
    """A host could not be reached at all, so nothing was begun there."""
