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
from ansible_collections.rackhand.host.plugins.plugin_utils.fleet_ca import (
    CA_CERTIFICATE,
    CA_KEY,
    builder,
    certificate_text,
    key_text,
    make_ca,
)
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
from cryptography.x509.oid import ExtendedKeyUsageOID

HOST_DAYS, RENEW_DAYS = 397, 30


def host_names(host: str) -> tuple[str, str]:
    """Name a host's certificate and key among the secrets."""
    return f"tls/{host}.crt", f"tls/{host}.key"


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
