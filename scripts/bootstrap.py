#!/usr/bin/env python3
"""Make the control machine ready: system packages and `.venv` from the hashed lock.

Standard library only: it runs before anything is installed. A second run with
nothing to do ends within a few hundredths of a second.
"""

from __future__ import annotations

import ast
import atexit
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlparse

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".rackhand-lock"
LOCK = ROOT / "requirements" / "dev.lock"
UV_LOCK = ROOT / "requirements" / "uv.lock"
CACHE = Path(os.environ.get("RACKHAND_CACHE", "/var/cache/rackhand"))
BUNDLED = VENV / ".rackhand-bundle"
"""Where the bundle of a closed site lies that `.venv` was made from (`RACKHAND_BUNDLE`)."""

CONTROL_PACKAGES = ("python3-venv", "openssh-client")
LAB_PACKAGES = (
    *("systemd-container", "mmdebstrap", "nftables", "iproute2", "debian-archive-keyring"),
    *("apt-utils", "gnupg"),  # the mirror's indexes and signatures
)
SERVER_PACKAGES = ("postgresql", "redis-server", "prometheus", "prometheus-alertmanager")
"""They serve tests, which start their own; the packages' services stay disabled."""
TEST_PACKAGES = (*SERVER_PACKAGES, "shellcheck", "nmap")
JUDGE_PACKAGES = ("lynis",)
"""A judge of converged hosts that is shipped to them: tests/lab/judges."""
BROWSER_PACKAGES = ("chromium",)
"""For the test of the app's page. Debian's only: Ubuntu's fetches a snap, so that there the
test takes a browser that a person installed, and is skipped without one."""


def main(arguments: list[str]) -> int:
    """Bring packages and environment up to date; `tests` adds what the tests need."""
    if sys.version_info < (3, 11):
        return complain(
            f"Python {sys.version.split()[0]} is too old: Rackhand needs 3.11 or newer",
            "use Debian 12 or Ubuntu 24.04, or run: make PYTHON=/path/to/python3.11",
        )
    for_tests = packages_for_tests() if "tests" in arguments else ()
    bundle = chosen_bundle()
    wanted = CONTROL_PACKAGES if bundle else (*CONTROL_PACKAGES, *LAB_PACKAGES, *for_tests)
    try:
        missing = missing_packages(wanted)
        if bundle and (missing or not environment_is_current(bundle)) and not is_good(bundle):
            return 1
        if missing:
            install_packages(missing, bundle)
        if not environment_is_current(bundle):
            build_environment(bundle)
    except subprocess.CalledProcessError as error:
        return complain(
            f"a command failed with status {error.returncode}: {' '.join(map(str, error.cmd))}",
            "read its output above, then run the same make target again",
        )
    except PermissionError as error:
        return complain(str(error), "run as root, or make the path writable")
    return 0


def chosen_bundle() -> Path | None:
    """Return the bundle that everything comes from on a closed site.

    `RACKHAND_BUNDLE` names it once; from then on `.venv` remembers it.
    """
    named = os.environ.get("RACKHAND_BUNDLE", "")
    if not named and BUNDLED.is_file():
        named = BUNDLED.read_text().strip()
    return Path(named).resolve() if named else None


def is_good(bundle: Path) -> bool:
    """Tell whether the bundle is whole and signed, by `RACKHAND_BUNDLE_KEY` where that is set."""
    sys.path.insert(0, str(ROOT))
    from ops.bundle.verification import verify
    from ops.errors import OpsError

    key = os.environ.get("RACKHAND_BUNDLE_KEY", "")
    try:
        proved = verify(bundle, key)
    except OpsError as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return False
    if proved.faults:
        complain(f"the bundle is damaged: {proved.faults[0]}", f"bring {bundle} here again")
        return False
    if not key:
        print(f"bootstrap: the bundle is signed by {proved.fingerprint}; compare it", flush=True)
    return True


def packages_for_tests() -> tuple[str, ...]:
    """Return what the tests need beyond the control machine's own packages."""
    try:
        debian = platform.freedesktop_os_release()["ID"] == "debian"
    except OSError:
        debian = False
    always = (*TEST_PACKAGES, *JUDGE_PACKAGES)
    return (*always, *BROWSER_PACKAGES) if debian else always


def complain(message: str, cure: str) -> int:
    """Print what is wrong with its cure."""
    print(f"bootstrap: {message}\n  cure:  {cure}", file=sys.stderr)
    return 1


def missing_packages(packages: tuple[str, ...]) -> list[str]:
    """Name the packages that dpkg does not report as installed."""
    if not shutil.which("dpkg-query"):
        print("bootstrap: not a Debian or Ubuntu machine, needed:", *packages, file=sys.stderr)
        return []
    report = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    installed = {line.split()[0] for line in report.splitlines() if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


def install_packages(packages: list[str], bundle: Path | None = None) -> None:
    """Install system packages without starting any service they bring."""
    apt = ["apt-get", "-qq", *(bundle_options(bundle) if bundle else [])]
    command = [*apt, "install", "-y", "--no-install-recommends", *packages]
    if os.geteuid() != 0:
        print(complain_text(packages), file=sys.stderr)
        raise SystemExit(1)
    print("bootstrap: installing", *packages, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    cluster = Path("/etc/postgresql-common/createcluster.d/rackhand.conf")
    if "postgresql" in packages:
        cluster.parent.mkdir(parents=True, exist_ok=True)
        cluster.write_text(
            "# Only the tests' own servers run on this machine.\ncreate_main_cluster = false\n"
        )
    try:
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        subprocess.run([*apt, "update"], check=True, env=environment)
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    finally:
        if ours:
            policy.unlink(missing_ok=True)
    services = [name for name in SERVER_PACKAGES if name in packages]
    if services and shutil.which("systemctl"):
        subprocess.run(["systemctl", "disable", "-q", *services], check=False, capture_output=True)


def bundle_options(bundle: Path) -> list[str]:
    """Return what makes apt see the bundle's repository and no other."""
    release = platform.freedesktop_os_release()
    name = release["ID"] + release["VERSION_ID"].replace(".", "")
    folder = Path(tempfile.mkdtemp(prefix="rackhand-apt-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "lists/partial").mkdir(parents=True)
    sources = folder / "sources.list"
    sources.write_text(f"deb [signed-by={bundle}/key.asc] file:{bundle}/apt/{name} /\n")
    values = {
        "Dir::Etc::sourcelist": str(sources),
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": str(folder / "lists"),
        "APT::Sandbox::User": "root",  # the bundle may lie in a folder of root's
    }
    return [word for key, value in values.items() for word in ("-o", f"{key}={value}")]


def complain_text(packages: list[str]) -> str:
    """Say which packages are missing and how an administrator installs them."""
    names = " ".join(packages)
    return (
        f"bootstrap: system packages are missing: {names}\n"
        f"  cure:  sudo apt-get install -y --no-install-recommends {names}"
    )


def lock_of(bundle: Path | None) -> Path:
    """Return the lock of `.venv`: on a closed site the part that running `ops` needs."""
    return bundle / "control.lock" if bundle else LOCK


def fingerprint(bundle: Path | None = None) -> str:
    """Return what `.venv` depends on, as one hash."""
    digest = hashlib.sha256(sys.version.encode())
    for path in (lock_of(bundle), UV_LOCK, ROOT / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    digest.update(str(ROOT).encode())
    return digest.hexdigest()


def environment_is_current(bundle: Path | None = None) -> bool:
    """Tell whether `.venv` was completed from today's lock."""
    made = STAMP.is_file() and (VENV / "bin/ops").exists()
    return made and lock_of(bundle).is_file() and STAMP.read_text() == fingerprint(bundle)


def build_environment(bundle: Path | None = None) -> None:
    """Install the locked packages into `.venv`, every file checked by its hash."""
    print(f"bootstrap: building .venv from {lock_of(bundle)}", flush=True)
    STAMP.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
    if bundle:
        BUNDLED.write_text(f"{bundle}\n")
    python = str(VENV / "bin/python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "-q"]
    wheels = ["--no-index", "--find-links", f"{bundle}/wheels"] if bundle else []
    subprocess.run([*pip, "install", *wheels, "--require-hashes", "-r", str(UV_LOCK)], check=True)
    settings = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=True)
    environment = {
        **({} if bundle else uv_settings(settings.stdout)),
        "UV_CACHE_DIR": str(CACHE / "uv"),
        **os.environ,
        "VIRTUAL_ENV": str(VENV),
    }
    uv, lock = [str(VENV / "bin/uv"), "pip"], str(lock_of(bundle))
    sync = [*uv, "sync", "-q", *wheels, "--require-hashes", "--compile-bytecode", lock]
    subprocess.run(sync, check=True, env=environment)
    # A plain path file instead of an import hook: `ops` starts 8 ms sooner.
    editable = ["--no-deps", "--no-build-isolation", "-C", "editable_mode=compat", "-e", str(ROOT)]
    subprocess.run([*uv, "install", "-q", *editable], check=True, env=environment)
    STAMP.write_text(fingerprint(bundle))


def uv_settings(pip_settings: str) -> dict[str, str]:
    """Translate the output of `pip config list` to uv's environment variables.

    uv does not read pip's configuration, so that an index, a wheel folder or a
    certificate that a site gave to pip would be lost. Paths that do not exist
    are left out: pip passes over them, uv refuses them.
    """
    values: dict[str, list[str]] = {}
    for line in pip_settings.splitlines():
        name, _, value = line.partition("=")
        _, _, key = name.strip().rpartition(".")
        values[key] = ast.literal_eval(value).split()
    result = {}
    if values.get("index-url"):
        result["UV_DEFAULT_INDEX"] = values["index-url"][-1]
    if extra := [url for url in values.get("extra-index-url", []) if exists(url)]:
        result["UV_INDEX"] = " ".join(extra)
        result["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip's own; the hashes keep it safe
    if links := [link for link in values.get("find-links", []) if exists(link)]:
        result["UV_FIND_LINKS"] = ",".join(links)
    if values.get("cert"):
        result["SSL_CERT_FILE"] = values["cert"][-1]
    if values.get("trusted-host"):
        result["UV_INSECURE_HOST"] = " ".join(values["trusted-host"])
    return result


def exists(location: str) -> bool:
    """Tell whether a path or file URL is there; other URLs are taken at their word."""
    url = urlparse(location)
    return url.scheme not in ("", "file") or Path(url.path).exists()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
