# Copyright: the Rackhand founders
"""Whether an address lies in one of some networks."""

from __future__ import annotations

DOCUMENTATION = r"""
name: address_inside
short_description: Whether an address lies in one of some networks
description:
  - True where the address is one of those named or lies in one of the networks.
positional: networks
options:
  _input: {description: The address., type: str, required: true}
  networks: {description: Addresses or networks in CIDR., type: list, elements: str, required: true}
"""

EXAMPLES = r"""
allowed: "{{ '192.0.2.7' | rackhand.host.address_inside(['192.0.2.0/24']) }}"
"""

RETURN = r"""
_value: {description: Whether it does., type: bool}
"""

import ipaddress
from collections.abc import Callable

from ansible.errors import AnsibleFilterError


def address_inside(address: str, networks: list[str]) -> bool:
    """Tell whether an address lies in one of some networks."""
    try:
        wanted = ipaddress.ip_address(address.partition("%")[0])
        found = [ipaddress.ip_network(network, strict=False) for network in networks]
    except ValueError as error:
        raise AnsibleFilterError(f"address_inside: {error}") from error
    return any(wanted in network for network in found)


class FilterModule:
    """The collection's filter."""

    def filters(self) -> dict[str, Callable[..., bool]]:
        """Name and function."""
        return {"address_inside": address_inside}
