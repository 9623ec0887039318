"""Commands on hosts, over SSH, with the inventory's own connection settings."""

from ops.remote.connection import connect, run
from ops.remote.forward import forwarded
from ops.remote.line import Line
from ops.remote.pipe import pipe
from ops.remote.ssh_config import ssh_config

__all__ = ["Line", "connect", "forwarded", "pipe", "run", "ssh_config"]
