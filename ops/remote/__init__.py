"""Commands on hosts, over SSH, with the inventory's own connection settings."""

from ops.remote.connection import connect, run
from ops.remote.ssh_config import ssh_config

__all__ = ["connect", "run", "ssh_config"]
