"""Run the checks of `ops/verify/checks` with pytest and collect their results."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops.errors import InputError, OpsError
from ops.fleet import Fleet, Host
from ops.remote import ssh_config
from ops.verify.report import Outcome, Report, Result

CHECKS = Path(__file__).parent / "checks"
PARTS = tuple(sorted(path.stem.removeprefix("test_") for path in CHECKS.glob("test_*.py")))
BY_CHOICE = ("hardening",)
"""Parts that are checked only where they are asked for."""


class Plugin:
    """Hands the fleet to the checks and collects what they find."""

    def __init__(self, fleet: Fleet, ssh: Path, trusted: str, seen: Callable[[Result], None]):
        self.fleet = fleet
        self.ssh_config = ssh
        self.trusted = trusted
        self.seen = seen
        self.results: list[Result] = []
        self.errors: list[str] = []

    def pytest_configure(self, config: pytest.Config) -> None:
        """Make the fleet reachable for the checks' fixtures."""
        config.stash[PLUGIN] = self

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep what went wrong before any check ran."""
        if report.failed:
            self.errors.append(str(report.longrepr))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Iterator[None]:
        """Turn a finished check into a Result."""
        report: pytest.TestReport = yield  # type: ignore[assignment]
        if report.when == "call" or not report.passed:
            outcome: Outcome = report.outcome
            message = ""
            if call.excinfo:
                said = str(call.excinfo.value).partition("\nassert ")[0]  # not pytest's own sum
                message = said.strip() or call.excinfo.typename
            target: Host = item.callspec.params["target"]  # type: ignore[attr-defined]
            name = item.originalname or item.name  # type: ignore[attr-defined]
            result = Result(
                host=target.name,
                part=item.path.stem.removeprefix("test_"),
                check=name.removeprefix("test_").replace("_", " "),
                outcome=outcome,
                message=message,
                seconds=round(report.duration, 3),
            )
            self.results.append(result)
            self.seen(result)
        return report  # type: ignore[return-value]


PLUGIN: pytest.StashKey[Plugin] = pytest.StashKey()


def run_checks(
    fleet: Fleet,
    *,
    parts: Collection[str] = (),
    trusted: str = "",
    junit: Path | None = None,
    seen: Callable[[Result], None] = lambda _result: None,
) -> Report:
    """Check every host of a fleet for what its groups promise.

    Args:
        fleet: from `ops.fleet.load`.
        parts: only these, such as `redis`; empty means all but those of BY_CHOICE.
        trusted: PEM text of further roots for the edge's certificate.
        junit: where to write a JUnit file.
        seen: called with each result as it comes.

    Raises:
        InputError: a part that does not exist.
        OpsError: the checks themselves could not run.
    """
    if unknown := sorted(set(parts) - set(PARTS)):
        raise InputError(
            f"nothing to verify is named {', '.join(unknown)}", cure="one of: " + ", ".join(PARTS)
        )
    usual = [part for part in PARTS if part not in BY_CHOICE]
    files = [str(CHECKS / f"test_{part}.py") for part in parts or usual]
    with tempfile.TemporaryDirectory(prefix="rackhand-verify-") as scratch:
        ssh = Path(scratch) / "ssh_config"
        ssh.write_text(ssh_config(fleet), encoding="utf-8")
        plugin = Plugin(fleet, ssh, trusted, seen)
        options = ["-p", "no:terminal", "-p", "no:cacheprovider", "-c", os.devnull]
        options += ["--rootdir", str(CHECKS), "--import-mode", "importlib"]
        options += [f"--junitxml={junit}", "-o", "junit_family=xunit2"] if junit else []
        with no_other_plugins():
            status = pytest.main([*options, *files], plugins=[plugin])
    if plugin.errors or status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        detail = "\n".join(plugin.errors)[-3000:] or f"pytest ended with {status!r}"
        raise OpsError(f"the checks could not run: {detail}", place=str(CHECKS))
    return Report(tuple(plugin.results))


@contextmanager
def no_other_plugins() -> Iterator[None]:
    """Keep pytest plugins that happen to be installed away from the checks."""
    name = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
