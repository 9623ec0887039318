"""A certificate that has expired, with its key."""

from __future__ import annotations

import datetime

from ops.lab.fleet_plan import DOMAIN

EXPIRED_SINCE = datetime.timedelta(days=1)
LIFETIME = datetime.timedelta(days=90)


def expired_pair(domain: str = DOMAIN) -> str:
    """Make a self-signed certificate that expired yesterday: PEM, then its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domain)])
    end = datetime.datetime.now(datetime.UTC) - EXPIRED_SINCE
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - LIFETIME)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return (made.public_bytes(serialization.Encoding.PEM) + private).decode()
