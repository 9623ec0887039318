"""A site that has no way outside: `site.yml` converges from a bundle alone.

The host starts as bare as a server from a closed site's installer: no downloaded packages, no
package lists, no shared wheels. Writes docs/results/<date>-closed-site.md.
"""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from results import write_result
from stack import Lab, SiteRun, Stack, final_of, run_site, text_of
from stand_in_stack import SETTINGS

from ops.bundle.site import FILE
from ops.demo.prepare import ensure_key
from ops.lab.fleet_plan import require_plan
from ops.lab.outside import ACME_PORT
from ops.places import ROOT

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(1800)]

PORT = 8480
#: What the lab's image has at hand for quick runs; a server from an installer has none of it.
LAY_BARE = (
    "apt-get clean; rm -rf /var/lib/apt/lists/*; umount /srv/wheelhouse; umount /opt/vllm/*;"
    "find /srv/wheelhouse /opt/vllm /var/cache/apt/archives -mindepth 1"
    " \\( -name '*.deb' -o -name '*.whl' -o -name vllm \\) | wc -l"
)
ANSWERS = "timeout 5 bash -c '</dev/tcp/{}/{}' 2>/dev/null && echo open || echo shut"


@dataclass
class Closed:
    """A closed lab, the bundle that it lives on, and what each step said and took."""

    stack: Stack
    bundle: Path
    key: str
    gateway: str
    seconds: dict[str, float] = field(default_factory=dict)
    runs: dict[str, SiteRun] = field(default_factory=dict)

    @property
    def lab(self) -> Lab:
        return self.stack.lab

    def timed(self, title: str, act: Callable[[], SiteRun]) -> SiteRun:
        began = time.monotonic()
        self.runs[title] = act()
        self.seconds[title] = time.monotonic() - began
        return self.runs[title]


def ops(*words: str | Path, code: int = 0, seconds: float = 600) -> str:
    done = subprocess.run(
        ["ops", *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + (done.stderr if code else "")


@pytest.fixture(scope="module")
def closed(labs: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    lab = labs(1, "bookworm", purpose="closed")
    plan = require_plan(lab.name)
    files = {lab.inventory / f"group_vars/{name}.yml": text for name, text in SETTINGS.items()}
    all_vars = lab.inventory / "group_vars/all.yml"
    before = all_vars.read_text()
    for path, text in files.items():
        path.write_text(f"---\n{text}")
    bundle = tmp_path_factory.mktemp("closed") / "bundle"
    began = time.monotonic()
    made = json.loads(
        ops("bundle", "create", bundle, "-i", lab.inventory, "--distribution", "debian12", "--json")
    )
    found = Closed(Stack(lab), bundle, made["key"], plan.gateway)
    found.seconds["bundle made"] = time.monotonic() - began
    ops("lab", "network", "close", "--name", lab.name)
    assert lab.ssh("node1", LAY_BARE).splitlines()[-1] == "0"
    address = f"http://{plan.gateway}:{PORT}"
    use = ("--key", made["key"], "--url", address)
    ops("bundle", "install", bundle, "-i", lab.inventory, *use)
    serve = ["ops", "bundle", "serve", str(bundle), "--listen", plan.gateway, "--port", str(PORT)]
    server = subprocess.Popen(serve, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"{address}/wheels/index.html")
        yield found
    finally:
        server.terminate()
        server.wait(10)
        for path in (*files, lab.inventory / FILE):
            path.unlink(missing_ok=True)
        all_vars.write_text(before)
        ops("lab", "network", "open", "--name", lab.name)


def wait_for(address: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{address} does not answer")


def test_the_outside_is_out_of_reach_and_the_bundle_is_within_it(closed: Closed) -> None:
    from ops.lab.control_machine import debian_mirror

    mirror = debian_mirror().split("//")[1].split("/")[0].partition(":")
    gone = closed.lab.ssh(
        "node1", "apt-get -o Acquire::Retries=0 update 2>&1 | tail -n 3", check=False
    )
    assert "Failed to fetch" in gone or "resolv" in gone, gone
    for host, port in ((mirror[0], mirror[2] or "80"), ("1.1.1.1", "443")):
        assert closed.lab.ssh("node1", ANSWERS.format(host, port)) == "shut", host
    assert closed.lab.ssh("node1", ANSWERS.format(closed.gateway, PORT)) == "open"
    assert closed.lab.ssh("node1", ANSWERS.format("outside", ACME_PORT)) == "open"


def test_a_bundle_with_one_flipped_byte_is_refused_by_name(closed: Closed) -> None:
    victim = next(closed.bundle.glob("apt/debian12/nginx_*.deb"))
    whole = victim.read_bytes()
    victim.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    try:
        named = victim.relative_to(closed.bundle).as_posix()
        assert f"{named}: another content" in ops("bundle", "verify", closed.bundle, code=1)
        use = ("--url", f"http://{closed.gateway}:{PORT}", "--key", closed.key)
        said = ops("bundle", "install", closed.bundle, "-i", closed.lab.inventory, *use, code=1)
        assert named in said
    finally:
        victim.write_bytes(whole)
    ops("bundle", "verify", closed.bundle, "--key", closed.key)


def test_site_converges_from_the_bundle_alone_and_a_second_run_changes_nothing(
    closed: Closed,
) -> None:
    check = closed.timed("check of a fresh host", lambda: run_site(closed.lab, "--check", "--diff"))
    assert check.status == 0, check.output[-6000:]
    first = closed.timed("first run", lambda: run_site(closed.lab))
    assert first.status == 0, first.output[-6000:]
    again = closed.timed("second run", lambda: run_site(closed.lab, "--diff"))
    assert (again.status, again.total("changed")) == (0, 0), again.output[-5000:]
    policy = closed.lab.ssh("node1", "apt-cache policy nginx; cat /etc/apt/sources.list.d/*")
    assert closed.gateway in policy
    assert "Enabled: no" in policy


def test_a_reply_streams_and_figures_are_written(closed: Closed) -> None:
    lab, stack = closed.lab, closed.stack
    stack.key = ensure_key(stack.fleet, require_plan(lab.name).paths.root / "test_key")
    stack.wait_until_ready()
    heard = stack.chat({"message": "The word is heron"})
    assert [name for name, _ in heard].count("token") > 1, heard
    assert text_of(heard) == final_of(heard)
    assert closed.lab.ssh("node1", ANSWERS.format("1.1.1.1", "443")) == "shut"
    manifest = json.loads((closed.bundle / "manifest.json").read_text())
    kinds: dict[str, list[int]] = {}
    for entry in manifest["files"]:
        kinds.setdefault(entry["kind"], []).append(entry["size"])
    rows = [[f"bundle: {k}", str(len(v)), f"{sum(v) / 1e6:.1f}", "-"] for k, v in kinds.items()]
    rows += [[title, "-", "-", f"{took:.0f}"] for title, took in closed.seconds.items()]
    changed = closed.runs["first run"].total("changed")
    write_result(
        "closed-site",
        "A closed site, from its bundle alone",
        ("what", "files", "MB", "seconds"),
        rows,
        f"""One host (Debian 12, all groups, stand-in engine) whose way outside was cut, without a
package list, a downloaded package or a shared wheel. It reached the control machine's bundle over
HTTP and the ACME server, nothing else: the distribution's archive and an address of the internet
were tried before and after, and shut. The first run made {changed} changes and none failed, the
second none; then a reply streamed through the edge. A bundle with one flipped byte was refused, and
the file named.""",
    )


def test_the_control_machine_is_made_from_the_bundle_alone(closed: Closed, tmp_path: Path) -> None:
    unpack = ["tar", "-xzf", str(closed.bundle / "rackhand.tar.gz"), "-C", str(tmp_path)]
    subprocess.run(unpack, check=True)
    tree = tmp_path / "rackhand"
    no_network = ["unshare", "--net"]
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(tmp_path),
        "RACKHAND_BUNDLE": str(closed.bundle),
        "RACKHAND_BUNDLE_KEY": closed.key,
        "RACKHAND_CACHE": str(tmp_path / "cache"),
        "PIP_CONFIG_FILE": "/dev/null",
    }
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
    done = subprocess.run(
        [*no_network, python, "scripts/bootstrap.py"],
        cwd=tree, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = subprocess.run(
        [*no_network, str(tree / ".venv/bin/ops"), "bundle", "verify", str(closed.bundle)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    assert closed.key in said.stdout
    assert tree != ROOT
