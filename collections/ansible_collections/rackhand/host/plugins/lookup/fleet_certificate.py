# Copyright: the Rackhand founders
"""A host's certificate from the fleet's own CA, made once and kept on the control machine."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_certificate
short_description: A host's certificate from the fleet's own CA
description:
  - Traffic between hosts is encrypted with certificates of a CA that only this fleet has. The CA and
    the hosts' keys lie in a folder of the control machine, each file with mode 0600.
  - A certificate is made anew when it is missing, names other addresses, or has under 30 days left.
options:
  _terms: {description: "One of ca, certificate, key."}
  folder: {description: Folder of the control machine., type: path, required: true}
  host: {description: The host's name., type: str}
  addresses: {description: Names and addresses that the certificate is valid for., type: list, elements: str}
"""

import datetime
import fcntl
import ipaddress
import os
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS, HOST_DAYS, RENEW_DAYS = 3650, 397, 30
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


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads, in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
        os.fsync(stream.fileno())
    temporary.replace(path)


def key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PEM of a private key."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


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


class Authority:
    """The fleet's CA in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def ensure_ca(self) -> None:
        """Make the CA once."""
        if (self.folder / "ca.crt").exists():
            return
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            builder("Rackhand fleet CA", name("Rackhand fleet CA"), key.public_key(), CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(CA_USAGE, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .sign(key, hashes.SHA256())
        )
        write_private(self.folder / "ca.key", key_bytes(key))
        write_private(self.folder / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM))

    def ensure_host(self, host: str, addresses: list[str]) -> None:
        """Make a host's certificate when it is missing, other, or about to lapse."""
        if self.is_good(host, addresses):
            return
        ca = x509.load_pem_x509_certificate((self.folder / "ca.crt").read_bytes())
        ca_key = serialization.load_pem_private_key((self.folder / "ca.key").read_bytes(), None)
        if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
            raise AnsibleError(f"{self.folder}/ca.key is not the key that Rackhand made")
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            builder(host, ca.subject, key.public_key(), HOST_DAYS)
            .add_extension(x509.SubjectAlternativeName(alternatives(addresses)), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False
            )
            .sign(ca_key, hashes.SHA256())
        )
        write_private(self.folder / f"{host}.key", key_bytes(key))
        write_private(
            self.folder / f"{host}.crt", certificate.public_bytes(serialization.Encoding.PEM)
        )

    def is_good(self, host: str, addresses: list[str]) -> bool:
        """Whether the host's files are there, its own CA's, for these addresses, and not lapsing."""
        path = self.folder / f"{host}.crt"
        if not path.exists() or not (self.folder / f"{host}.key").exists():
            return False
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        ca = x509.load_pem_x509_certificate((self.folder / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((self.folder / f"{host}.key").read_bytes(), None)
        left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        try:
            certificate.verify_directly_issued_by(ca)
        except Exception:  # any kind of mismatch means: not this CA's
            return False
        return (
            left.days >= RENEW_DAYS
            and list(names) == alternatives(addresses)
            and key.public_key() == certificate.public_key()
        )


def alternatives(addresses: list[str]) -> list[x509.GeneralName]:
    """Subject alternative names, in a stable order."""
    names: list[x509.GeneralName] = []
    for address in sorted(set(addresses)):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError:
            names.append(x509.DNSName(address))
    return names


class LookupModule(LookupBase):
    """`lookup('rackhand.host.fleet_certificate', 'key', folder=…, host=…, addresses=[…])`."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[str]:
        """Return the PEM texts that the terms name."""
        self.set_options(var_options=variables, direct=kwargs)
        folder = Path(str(self.get_option("folder")))
        host, addresses = self.get_option("host"), self.get_option("addresses") or []
        authority = Authority(folder)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            authority.ensure_ca()
            if any(term != "ca" for term in terms):
                authority.ensure_host(str(host), [str(a) for a in addresses])
        files = {"ca": "ca.crt", "certificate": f"{host}.crt", "key": f"{host}.key"}
        return [(folder / files[term]).read_text(encoding="ascii") for term in terms]
