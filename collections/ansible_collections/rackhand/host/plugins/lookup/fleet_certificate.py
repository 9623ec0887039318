# Copyright: the Rackhand founders
"""A host's certificate from the fleet's own CA, made once and kept encrypted on the control machine."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_certificate
short_description: A host's certificate from the fleet's own CA
description:
  - Traffic between hosts is encrypted with certificates of a CA that only this fleet has. The CA and
    the hosts' keys are among the fleet's secrets on the control machine.
  - A certificate is made anew when it is missing, names other addresses, or has under 30 days left.
options:
  _terms: {description: "One of ca, certificate, key."}
  folder: {description: Folder of the fleet's secrets., type: path, required: true}
  host: {description: The host's name., type: str}
  addresses: {description: Names and addresses that the certificate is valid for., type: list, elements: str}
"""

import datetime
import ipaddress
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.rackhand.host.plugins.plugin_utils.secret_store import (
    Entry,
    SecretStoreError,
    accepted,
    new_entry,
    used,
)
from ansible_collections.rackhand.host.plugins.plugin_utils.vault_secrets import store_of
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


CA_CERTIFICATE, CA_KEY = "tls/ca.crt", "tls/ca.key"


def host_names(host: str) -> tuple[str, str]:
    """Name a host's certificate and key among the secrets."""
    return f"tls/{host}.crt", f"tls/{host}.key"


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


class Authority:
    """The fleet's CA among the fleet's secrets.

    Args:
        entries: The secrets; what is made is added to them.
    """

    def __init__(self, entries: MutableMapping[str, Entry]) -> None:
        self.entries = entries

    def ensure_ca(self) -> None:
        """Make the CA once."""
        if CA_CERTIFICATE not in self.entries:
            certificate, key = make_ca()
            self.entries[CA_KEY] = new_entry(key)
            self.entries[CA_CERTIFICATE] = new_entry(certificate)

    def ensure_host(self, host: str, addresses: list[str]) -> None:
        """Make a host's certificate when it is missing, other, or about to lapse.

        Raises:
            AnsibleLookupError: The CA's key is not one that Rackhand made.
        """
        if is_good(self.entries, host, addresses):
            return
        ca = x509.load_pem_x509_certificate(used(self.entries[CA_CERTIFICATE]).encode())
        ca_key = serialization.load_pem_private_key(used(self.entries[CA_KEY]).encode(), None)
        if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
            raise AnsibleLookupError(f"{CA_KEY} is not the key that Rackhand made")
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
        certificate_name, key_name = host_names(host)
        self.entries[key_name] = new_entry(key_text(key))
        self.entries[certificate_name] = new_entry(certificate_text(certificate))


def is_good(entries: Mapping[str, Entry], host: str, addresses: list[str]) -> bool:
    """Whether a host's certificate is there, the CA's, for these addresses, and not lapsing."""
    certificate_name, key_name = host_names(host)
    if not {certificate_name, key_name, CA_CERTIFICATE} <= entries.keys():
        return False
    certificate = x509.load_pem_x509_certificate(used(entries[certificate_name]).encode())
    ca = x509.load_pem_x509_certificate(used(entries[CA_CERTIFICATE]).encode())
    key = serialization.load_pem_private_key(used(entries[key_name]).encode(), None)
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
        """Return the PEM texts that the terms name; `ca` has two while the CA is rotated."""
        self.set_options(var_options=variables, direct=kwargs)
        host = str(self.get_option("host"))
        addresses = [str(address) for address in self.get_option("addresses") or []]
        store = store_of(Path(str(self.get_option("folder"))), self._loader)
        try:
            entries = store.read()
            if not is_good(entries, host, addresses) or store.holds_clear:
                with store.changing() as entries:
                    authority = Authority(entries)
                    authority.ensure_ca()
                    authority.ensure_host(host, addresses)
        except SecretStoreError as error:
            raise AnsibleLookupError(str(error)) from error
        certificate_name, key_name = host_names(host)
        texts = {
            "ca": "".join(accepted(entries[CA_CERTIFICATE])),
            "certificate": used(entries[certificate_name]),
            "key": used(entries[key_name]),
        }
        return [texts[term] for term in terms]
