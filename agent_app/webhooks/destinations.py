"""Where a client's webhook may go: whom the operator named, and no private address by any name.

A name is resolved, every address of it checked, and the post goes to a checked address: a second
resolution could tell otherwise (DNS rebinding).
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

import httpx2

from agent_app.errors import InvalidRequest

RESOLVE_SECONDS = 3.0
URL_CHARACTERS = 2000
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Destinations:
    """The hosts and networks of `jobs.webhook_hosts`.

    Args:
        allowed: Names, `*.name`, `*`, and networks. A name allows its public addresses; an
            address that is not public must be in a network of the list besides.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._names: list[str] = []
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for entry in allowed:
            try:
                self._networks.append(ipaddress.ip_network(entry))
            except ValueError:
                self._names.append(entry)

    async def resolve(self, url: str) -> list[str]:
        """Return the addresses to which a URL's webhook may be posted.

        Raises:
            InvalidRequest: There are none, with the reason; fit for a client to read.
        """
        parsed = self._parse(url)
        host = parsed.raw_host.decode("ascii").lower().strip("[]").rstrip(".")
        literal = _address(host)
        if literal is None and not self._is_named(host):
            raise _refused(f"the host {host} is not one that webhooks may go to")
        addresses = [literal] if literal else await _resolve(host)
        for address in addresses:
            listed = any(address in network for network in self._networks)
            # A bare address is a name that nobody vouched for: it must be listed itself.
            if not listed and (literal is not None or not _is_public(address)):
                raise _refused(f"the host {host} is at an address that webhooks may not go to")
            if not listed and parsed.scheme != "https":
                raise _refused("webhooks go to https URLs")
        return [str(address) for address in addresses]

    def _parse(self, url: str) -> httpx2.URL:
        try:
            parsed = httpx2.URL(url)
        except (httpx2.InvalidURL, ValueError, UnicodeError) as error:
            raise _refused("that is no URL") from error
        if parsed.scheme not in ("https", "http") or not parsed.raw_host:
            raise _refused("webhooks go to https URLs")
        if parsed.userinfo or parsed.fragment:
            raise _refused("leave user, password and fragment out of it")
        return parsed

    def _is_named(self, host: str) -> bool:
        return any(
            name in ("*", host) or (name.startswith("*.") and host.endswith(name[1:]))
            for name in self._names
        )


def pin(url: str, address: str) -> tuple[httpx2.URL, dict[str, str], dict[str, str]]:
    """Return the URL with an address in place of its host; and headers and extensions with which
    the receiver, and the check of its certificate, see the host all the same.
    """
    parsed = httpx2.URL(url)
    host = parsed.raw_host.decode("ascii")
    return (
        parsed.copy_with(host=address),
        {"Host": parsed.netloc.decode("ascii")},
        {"sni_hostname": host.strip("[]").rstrip(".")},
    )


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address in _NAT64:
        address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.is_global and not address.is_multicast


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


async def _resolve(host: str) -> list[Address]:
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, None, type=socket.SOCK_STREAM
            )
    except (TimeoutError, OSError, UnicodeError) as error:
        raise _refused(f"the host {host} cannot be resolved") from error
    addresses = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
    return [ipaddress.ip_address(address) for address in addresses]


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(f"webhook_url: {why}", place="jobs.webhook_hosts")
