"""The host that stands for the internet: Pebble, the ACME test server, and its test DNS.

Pebble validates on ports 80 and 443 as a public authority does; every name leads to the edge.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from ops.errors import OpsError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from ops.lab.fleet_plan import LabPlan
    from ops.lab.upper import Upper

ACME_PORT = 14000
MANAGEMENT_PORT = 15000  # serves the issuing root: https://acme.rackhand.test:15000/roots/0
DNS_PORT = 8053
LIFETIME = datetime.timedelta(days=3650)
CA_FILE = "ca.pem"

DNS_UNIT = """\
[Unit]
Description=Test DNS: every name leads to the edge
After=network-online.target
Wants=network-online.target
[Service]
ExecStart=/usr/local/bin/pebble-challtestsrv -dns01 :{port} -defaultIPv4 {edge} -defaultIPv6 "" \
-management 127.0.0.1:8055 -http01 "" -https01 "" -tlsalpn01 ""
DynamicUser=yes
Restart=always
[Install]
WantedBy=multi-user.target
"""
PEBBLE_UNIT = """\
[Unit]
Description=Pebble, a certificate authority for tests
After=network-online.target pebble-challtestsrv.service
Wants=network-online.target
[Service]
Environment=PEBBLE_VA_NOSLEEP=1
ExecStart=/usr/local/bin/pebble -config /etc/pebble/pebble.json -dnsserver 127.0.0.1:{port}
ExecStartPost=/usr/bin/python3 /usr/local/lib/keep-issuing-root.py
StateDirectory=pebble
Restart=always
[Install]
WantedBy=multi-user.target
"""

# Pebble makes a new issuing root at each start, while certificates of before still end in the old
# one: each root is kept, as a public authority's would be.
ROOTS = "var/lib/pebble/roots.pem"
KEEP_ROOT = f"""\
import pathlib, ssl, time, urllib.request
context = ssl.create_default_context(cafile="/etc/pebble/{CA_FILE}")
for _ in range(100):
    try:
        url = "https://outside:{MANAGEMENT_PORT}/roots/0"
        root = urllib.request.urlopen(url, timeout=5, context=context).read()
        break
    except OSError:
        time.sleep(0.1)
kept = pathlib.Path("/{ROOTS}")
known = kept.read_bytes() if kept.exists() else b""
if root not in known:
    new = kept.with_suffix(".new")
    new.write_bytes(known + root)
    new.replace(kept)
"""


def fill_upper(upper: Upper, plan: LabPlan) -> None:
    """Lay down Pebble, its test DNS, their units and their certificate.

    Args:
        upper: The host's files.
        plan: The lab.
    """
    folder = ensure_authority(plan)
    for name in ("pebble", "pebble-challtestsrv"):
        upper.write(f"usr/local/bin/{name}", _program(plan, name), 0o755)
    config = {
        "listenAddress": f"0.0.0.0:{ACME_PORT}",
        "managementListenAddress": f"0.0.0.0:{MANAGEMENT_PORT}",
        "certificate": "/etc/pebble/server.pem",
        "privateKey": "/etc/pebble/server.key",
        "httpPort": 80,
        "tlsPort": 443,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
    }
    upper.write("etc/pebble/pebble.json", json.dumps({"pebble": config}, indent=2) + "\n")
    for name in ("server.pem", "server.key"):
        upper.write(f"etc/pebble/{name}", (folder / name).read_bytes(), 0o600)
    upper.write(f"etc/pebble/{CA_FILE}", (folder / CA_FILE).read_bytes())
    upper.write("usr/local/lib/keep-issuing-root.py", KEEP_ROOT)
    edge = plan.address(plan.groups()["edge"][0])
    units = {
        "pebble-challtestsrv.service": DNS_UNIT.format(port=DNS_PORT, edge=edge),
        "pebble.service": PEBBLE_UNIT.format(port=DNS_PORT),
    }
    for name, unit in units.items():
        upper.write(f"etc/systemd/system/{name}", unit)
        upper.link(f"etc/systemd/system/multi-user.target.wants/{name}", f"../{name}")


def _program(plan: LabPlan, name: str) -> bytes:
    """A program of Debian's package pebble, out of the image's package cache."""
    archives = plan.image.folder / "var/cache/apt/archives"
    package = next(archives.glob("pebble_*.deb"), None)
    if package is None:
        raise OpsError(
            "The image carries no package `pebble`",
            place=str(archives),
            cure=f"ops lab down; rm -r {plan.image.folder}; ops lab up",
        )
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True)
    tar = ["tar", "-xO", f"./usr/bin/{name}"]
    return subprocess.run(tar, input=data.stdout, capture_output=True, check=True).stdout


def ensure_authority(plan: LabPlan) -> Path:
    """Make the authority that signs Pebble's own server certificate, once per lab.

    Returns:
        A folder with `ca.pem`, which certbot is told to trust, `server.pem` and `server.key`.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from ops.lab.fleet_plan import ACME_NAME, OUTSIDE
    from ops.lab.paths import write_atomically

    folder = plan.paths.authority
    if (folder / CA_FILE).exists():
        return folder
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca = _certificate(f"Rackhand lab {plan.name} ACME CA", ca_key, ca_key, None, [])
    address = plan.address(OUTSIDE)
    server = _certificate(ACME_NAME, key, ca_key, ca, [ACME_NAME, OUTSIDE, address])
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_atomically(folder / "server.key", private, 0o600)
    write_atomically(folder / "server.pem", server.public_bytes(serialization.Encoding.PEM))
    write_atomically(folder / CA_FILE, ca.public_bytes(serialization.Encoding.PEM))
    return folder


def _certificate(
    name: str,
    key: EllipticCurvePrivateKey,
    signer: EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    names: list[str],
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
    )
    if issuer is None:
        builder = builder.add_extension(_may_sign(), critical=True)
    if names:
        general = [_general_name(value) for value in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _may_sign() -> x509.KeyUsage:
    from cryptography import x509

    uses = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
    others = dict.fromkeys((*uses, "key_agreement", "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(key_cert_sign=True, crl_sign=True, **others)


def _general_name(value: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(value))
    except ValueError:
        return x509.DNSName(value)
