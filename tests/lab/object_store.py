"""An S3 service of a lab: OpenStack Swift with its S3 API, of Debian's packages, on `outside`.

One disk, one copy, TLS with the certificate that the lab's own CA gave that host.
"""

from __future__ import annotations

import json
import shlex

from stack import Lab

from ops.lab.fleet_plan import OUTSIDE

ENDPOINT = f"{OUTSIDE}:8443"
REGION = "lab-1"
BUCKET = "backups"
KEY = "lab:backups"  # account and user
DISK = "/srv/store"

KINDS = {"account": 6201, "container": 6202, "object": 6203}
UNLESS_THERE = "! systemctl is-active -q store-proxy || exit 0"
INSTALL = """
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get -q update && apt-get -qy install --no-install-recommends curl swift-proxy swift-account \
  swift-container swift-object
cd /etc/swift && mkdir -p {DISK}/disk && chown -R swift {DISK}
printf '[swift-hash]\\nswift_hash_path_suffix = lab\\n' >swift.conf
"""
SERVER = """\
[DEFAULT]
devices = {DISK}
mount_check = false
bind_ip = 127.0.0.1
bind_port = {port}
user = swift
workers = 0
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
RING = """
swift-ring-builder {kind}.builder create 4 1 1
swift-ring-builder {kind}.builder add r1z1-127.0.0.1:{port}/disk 1
swift-ring-builder {kind}.builder rebalance
"""
PROXY = f"""\
[DEFAULT]
bind_port = 8443
cert_file = /etc/pebble/server.pem
key_file = /etc/pebble/server.key
workers = 0
[pipeline:main]
pipeline = catch_errors cache s3api tempauth slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
[filter:s3api]
use = egg:swift#s3api
location = {REGION}
[filter:slo]
use = egg:swift#slo
[filter:tempauth]
use = egg:swift#tempauth
user_{KEY.replace(":", "_")} = """
START = "systemd-run -q --unit store-{kind} swift-{kind}-server /etc/swift/{kind}-server.conf"
NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # its SHA-256
MAKE_BUCKET = f"""
curl -sSf --retry 30 --retry-all-errors --cacert /etc/pebble/ca.pem -X PUT \
  --aws-sigv4 aws:amz:{REGION}:s3 -H x-amz-content-sha256:{NOTHING} \
  https://{KEY.replace(":", "%3A")}:{{secret}}@{ENDPOINT}/{BUCKET}
"""
# Ciphertext does not shrink; what pgBackRest encrypts begins with Salted__, as with OpenSSL.
LOOK = f"""
import json, pathlib, sys, zlib
found = [path.read_bytes() for path in pathlib.Path("{DISK}").rglob("objects*/**/*.data")]
shrunk = [len(zlib.compress(data)) / len(data) for data in found if len(data) > 1000]
print(json.dumps({{
    "salted": sum(data.startswith(b"Salted__") for data in found),
    "shrinks": sum(ratio < 0.9 for ratio in shrunk),
    "zstd": sum(data.startswith(bytes.fromhex("28b52ffd")) for data in found),
    "marked": sum(sys.argv[1].encode() in data for data in found),
}}))
"""


def serve_objects(lab: Lab, secret: str) -> None:
    """Have `outside` serve S3 with an empty bucket, which KEY with its secret may use."""
    script = ["set -e", UNLESS_THERE, INSTALL.format(DISK=DISK)]
    for kind, port in KINDS.items():
        script.append(_write(f"{kind}-server", SERVER.format(DISK=DISK, kind=kind, port=port)))
        script.append(RING.format(kind=kind, port=port))
    script.append(_write("proxy-server", f"{PROXY}{secret} .admin\n"))
    script += [START.format(kind=kind) for kind in (*KINDS, "proxy")]
    lab.ssh(OUTSIDE, "\n".join([*script, MAKE_BUCKET.format(secret=secret)]))


def kept_objects(lab: Lab, mark: str) -> dict[str, int]:
    """How many objects, as they lie on the disk, are encrypted, could be read, have a mark."""
    look = shlex.join(["python3", "-c", LOOK, mark])
    return dict(json.loads(lab.ssh(OUTSIDE, look)))


def _write(name: str, text: str) -> str:
    return f"printf %s {shlex.quote(text)} >/etc/swift/{name}.conf"
