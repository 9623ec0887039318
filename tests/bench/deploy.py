"""pyinfra's side of the no-op benchmark: the same packages, files and units as site.yml's."""

import json
import os
from pathlib import Path

from pyinfra import host
from pyinfra.operations import apt, files, systemd

STATE = json.loads(Path(os.environ["RACKHAND_BENCH_STATE"]).read_text())[host.name]

apt.packages(name="Packages", packages=STATE["packages"], update=False)
for path, entry in STATE["files"].items():
    files.put(
        name=path,
        src=entry["copy"],
        dest=path,
        user=entry["user"],
        group=entry["group"],
        mode=entry["mode"],
    )
for unit in STATE["units"]:
    systemd.service(name=unit, service=unit, running=True, enabled=True)
