"""The gate of an upgrade: a new engine passes its suite, no worse than the one that serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ops.errors import OpsError
from ops.evals import store
from ops.evals.engine import Endpoint
from ops.evals.report import Report
from ops.evals.run import run_suite
from ops.evals.suite import Suite
from ops.fleet.model import Fleet, Host, Model
from ops.remote import connect, forwarded

if TYPE_CHECKING:
    from fabric import Connection

SHOWN_CASES = 5
Say = Callable[[str], None]


@contextmanager
def slot_endpoint(connection: Connection, model: Model, slot: str) -> Iterator[Endpoint]:
    """Reach a slot's loopback port through the SSH connection."""
    with forwarded(connection, model.slot_port(slot)) as url:
        yield Endpoint(url, model.name)


def judge_slot(
    fleet: Fleet,
    host: Host,
    model: Model,
    suite: Suite,
    *,
    slot: str,
    entry: Mapping[str, Any],
    baseline: Report | None,
    say: Say = lambda _: None,
) -> Report:
    """Run a suite against one slot of a host and store the result as its baseline if it passes.

    Raises:
        OpsError: The slot gave no answer.
        RemoteError: The host cannot be reached.
    """
    revision = f"revision {entry.get('revision')}"
    with connect(fleet, host) as connection:
        connection.open()
        with slot_endpoint(connection, model, slot) as endpoint:
            report = run_suite(suite, endpoint, revision=revision, baseline=baseline, say=say)
    if not report.findings:
        store.write(fleet, model.name, entry, report)
    return report


def require_pass(report: Report, place: str) -> None:
    """Refuse a result that does not pass.

    Raises:
        OpsError: With the findings and the first cases that failed.
    """
    if not report.findings:
        return
    failed = [case for case in report.cases if case.passed < case.asked]
    lines = [f"  {case.id}: {case.why[0]}" for case in failed[:SHOWN_CASES] if case.why]
    more = len(failed) - SHOWN_CASES
    lines += [f"  and {more} more"] if more > 0 else []
    raise OpsError(
        "\n".join([f"suite {report.suite}: " + "; ".join(report.findings), *lines]), place=place
    )
