"""A port that nothing listens on, and that no other test is told of for a long while."""

import fcntl
import socket
import tempfile
from pathlib import Path

FIRST, LAST = 12_000, 31_999
"""Below Linux' default range for ports of the kernel's choice (32768 on), so that neither a client
nor a server on port 0 takes one between its being told and its being bound."""

_COUNTER = Path(tempfile.gettempdir()) / "rackhand-test-ports"


def free_port() -> int:
    """Return one of the loopback's; tests that run side by side are told different ones."""
    with _COUNTER.open("a+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        counter.seek(0)
        port = int(counter.read() or FIRST)
        while not _is_free(port := port + 1 if port < LAST else FIRST):
            pass
        counter.truncate(0)
        counter.write(str(port))
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
