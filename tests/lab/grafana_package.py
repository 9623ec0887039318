"""A repository with a stand-in for Grafana's package: its name, unit and paths, not its program.

Grafana's own repository is out of reach of the machines that this is built on. What a role does
around the package can be shown with it, what Grafana does with its files cannot.
"""

from __future__ import annotations

import base64
import io
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

PORT = 8099
VERSION = "13.2.2"
PROGRAM = """\
#!/usr/bin/python3
# A stand-in: serves its settings with what the password file has, as proof that it can read both.
import configparser, http.server, json, pathlib, sys
settings = configparser.ConfigParser(interpolation=None)
settings.read("/etc/grafana/grafana.ini")
if "cli" in sys.argv:
    pathlib.Path("/var/lib/grafana/reset").write_text(sys.stdin.read())
    sys.exit()
name = settings["security"]["admin_password"].removeprefix("$__file{").removesuffix("}")
password = pathlib.Path(name).read_text()
pathlib.Path("/var/lib/grafana/grafana.db").touch()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"password": password, "argv": sys.argv}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
address = settings["server"]["http_addr"], int(settings["server"]["http_port"])
http.server.HTTPServer(address, Handler).serve_forever()
"""
# As the package of Grafana 13 has it, less what has no meaning here.
UNIT = """\
[Unit]
Description=Grafana instance
Wants=network-online.target
After=network-online.target
[Service]
User=grafana
Group=grafana
Type=simple
Restart=on-failure
WorkingDirectory=/usr/share/grafana
RuntimeDirectory=grafana
RuntimeDirectoryMode=0750
ExecStart=/usr/share/grafana/bin/grafana server --config=/etc/grafana/grafana.ini --packaging=deb
LimitNOFILE=10000
TimeoutStopSec=20
[Install]
WantedBy=multi-user.target
"""
SHELL = "#!/bin/sh\n"
POSTINST = f"""{SHELL}\
set -e
getent group grafana >/dev/null || groupadd --system grafana
getent passwd grafana >/dev/null ||
  useradd --system --gid grafana --home-dir /usr/share/grafana --shell /bin/false grafana
mkdir -p /var/lib/grafana /var/log/grafana
chown grafana:grafana /var/lib/grafana /var/log/grafana
"""
CONTROL = f"""\
Package: grafana
Version: {VERSION}
Architecture: all
Maintainer: Rackhand <nobody@example.com>
Depends: python3
Description: stand-in for Grafana
"""
SERVER = f"""\
[Service]
ExecStart=/usr/bin/python3 -m http.server {PORT} --bind 127.0.0.1 --directory /srv/grafana-repo
"""


@dataclass(frozen=True)
class Made:
    """A repository: `archive` is its folder as a base64 tar; the key's file and fingerprint."""

    archive: str
    key: Path
    fingerprint: str


def make(folder: Path) -> Made:
    """Build the package and a repository of it, signed with a key of its own."""
    package, repo, home = folder / "package", folder / "repo", folder / "gnupg"
    write(package / "DEBIAN/control", CONTROL)
    write(package / "DEBIAN/conffiles", "/etc/grafana/grafana.ini\n")
    write(package / "DEBIAN/postinst", POSTINST, 0o755)
    write(package / "etc/grafana/grafana.ini", "; the package's own\n")
    write(package / "usr/share/grafana/bin/grafana", PROGRAM, 0o755)
    write(package / "usr/lib/systemd/system/grafana-server.service", UNIT)
    index = repo / "dists/stable/main/binary-amd64"
    index.mkdir(parents=True)
    (repo / "pool").mkdir()
    deb = repo / f"pool/grafana_{VERSION}_all.deb"
    run("dpkg-deb", "--root-owner-group", "--build", str(package), str(deb))
    (index / "Packages").write_text(run("apt-ftparchive", "packages", "pool", cwd=repo))
    stable = repo / "dists/stable"
    fields = {"Suite": "stable", "Components": "main", "Architectures": "amd64 all"}
    options = [f"-oAPT::FTPArchive::Release::{key}={value}" for key, value in fields.items()]
    release = run("apt-ftparchive", *options, "release", str(stable))
    (folder / "Release").write_text(release)
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
    run(*gpg, "--quick-gen-key", "grafana@test", "rsa2048", "sign", "never")
    run(*gpg, "--clearsign", "-o", str(stable / "InRelease"), str(folder / "Release"))
    key = folder / "grafana.asc"
    key.write_text(run(*gpg, "--armor", "--export", "grafana@test"))
    listed = run(*gpg, "--with-colons", "--fingerprint", "grafana@test")
    mark = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(repo, arcname="grafana-repo")
    return Made(base64.b64encode(packed.getvalue()).decode(), key, mark)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout
