"""The fleet that an inventory describes, typed."""

from ops.fleet.inventory import load
from ops.fleet.model import Fleet, Host, Model

__all__ = ["Fleet", "Host", "Model", "load"]
