"""A port that nothing listens on."""

import socket


def free_port() -> int:
    """Return one of the loopback's; whoever wants it takes it soon."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
