# Copyright: the Rackhand founders
"""The CA that only this fleet has: made, and told in PEM. `ops` uses this module too, by a link."""

from __future__ import annotations

import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CA_DAYS = 3650
CA_CERTIFICATE, CA_KEY = "tls/ca.crt", "tls/ca.key"
#: Python 3.13 verifies strictly (RFC 5280): a CA must say that it signs certificates.
CA_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def name(common_name: str) -> x509.Name:
    """A subject with only a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def key_text(key: ec.EllipticCurvePrivateKey) -> str:
    """PEM of a private key."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode("ascii")


def certificate_text(certificate: x509.Certificate) -> str:
    """PEM of a certificate."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def builder(subject: str, issuer: x509.Name, key: Any, days: int) -> x509.CertificateBuilder:
    """A certificate valid from an hour ago, for clocks that disagree."""
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def make_ca() -> tuple[str, str]:
    """Return certificate and key of a new CA, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        builder("Rackhand fleet CA", name("Rackhand fleet CA"), key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(CA_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .sign(key, hashes.SHA256())
    )
    return certificate_text(certificate), key_text(key)
