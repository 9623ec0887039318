"""Every certificate of a fleet: the edges' as they serve it, the fleet's own from its secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from shlex import quote
from typing import TYPE_CHECKING, Any

from ops.errors import RemoteError
from ops.fleet.model import Fleet, Host
from ops.secrets.store import Entries, other, used

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, Name

EDGE, CA, HOST = "edge", "fleet CA", "fleet host"
RENEWED = {
    EDGE: "certbot on the host",
    CA: "ops secrets rotate tls",
    HOST: "site.yml, 30 days before it lapses",
}
SERVED = (
    "openssl s_client -connect 127.0.0.1:443 -servername {name} </dev/null 2>/dev/null "
    "| openssl x509"
)
MOST_AT_ONCE = 16
Ask = Callable[[Fleet, Host], str]


@dataclass(frozen=True)
class Row:
    """A certificate, or why nothing is known of it.

    Attributes:
        kind: EDGE, CA or HOST.
        where: The host that shows it; empty for the CA.
        names: What it is valid for.
        issuer: Who signed it.
        expires: RFC 3339.
        days: Left; negative once it has lapsed.
        renewed: By what.
        problem: Why the rest is empty.
    """

    kind: str
    where: str
    names: str = ""
    issuer: str = ""
    expires: str = ""
    days: int | None = None
    renewed: str = ""
    problem: str = ""

    def as_record(self) -> dict[str, Any]:
        """The row for scripts."""
        return asdict(self)


def listing(fleet: Fleet, entries: Entries, ask: Ask | None = None) -> list[Row]:
    """Return all certificates, the one that lapses first at the top of its kind.

    Args:
        fleet: The fleet.
        entries: Its secrets.
        ask: Returns the PEM that an edge serves; default: over SSH.
    """
    edges = fleet.group("edge")
    with ThreadPoolExecutor(max_workers=MOST_AT_ONCE) as pool:
        rows = list(pool.map(lambda host: _served(fleet, host, ask or served), edges))
    rows += _own(entries)
    order = (EDGE, CA, HOST)
    return sorted(rows, key=lambda row: (order.index(row.kind), row.expires, row.where))


def served(fleet: Fleet, host: Host) -> str:
    """Return what an edge shows for the fleet's name, as PEM.

    Raises:
        RemoteError: It cannot be reached, or serves none.
    """
    from ops.remote import connect, run

    with connect(fleet, host) as connection:
        return run(connection, host, SERVED.format(name=quote(fleet.domain)))


def _served(fleet: Fleet, host: Host, ask: Ask) -> Row:
    try:
        return read(EDGE, host.name, ask(fleet, host))
    except (RemoteError, ValueError) as error:
        why = error.message if isinstance(error, RemoteError) else "it serves no certificate"
        return Row(EDGE, host.name, problem=why, renewed=RENEWED[EDGE])


def _own(entries: Entries) -> Iterator[Row]:
    for name, entry in entries.items():
        if not (name.startswith("tls/") and name.endswith(".crt")):
            continue
        host = name.removeprefix("tls/").removesuffix(".crt")
        kind, where = (CA, "") if host == "ca" else (HOST, host)
        yield from (read(kind, where, text) for text in (used(entry), other(entry)) if text)


def read(kind: str, where: str, pem: str) -> Row:
    """Read one certificate.

    Raises:
        ValueError: The text holds none.
    """
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(pem.encode())
    expires = certificate.not_valid_after_utc
    return Row(
        kind=kind,
        where=where,
        names=", ".join(_names(certificate)),
        issuer=_common(certificate.issuer),
        expires=f"{expires:%Y-%m-%dT%H:%M:%SZ}",
        days=(expires - datetime.now(UTC)).days,
        renewed=RENEWED[kind],
    )


def _names(certificate: Certificate) -> list[str]:
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [_common(certificate.subject)]
    return [str(name.value) for name in found]


def _common(name: Name) -> str:
    from cryptography.x509.oid import NameOID

    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()
