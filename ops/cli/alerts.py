"""`ops alerts`: what fires, silences, and whether anybody would be told."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ops.cli.options import Inventory, Json
from ops.cli.output import minute, print_json, print_table, tell

app = typer.Typer(
    help="List and silence alerts, and test who is told.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Words = Annotated[
    list[str], typer.Argument(metavar="NAME|MATCHER...", help="Such as GpuHot host=node1.")
]


@app.command("list")
def list_(inventory: Inventory, as_json: Json = False) -> None:
    """List alerts that fire, are pending, or are held back by a silence or their cause.

    Exit status 0: no critical alert fires; 1: one does.

    Example: ops alerts list -i inventories/example
    """
    from ops.alerts.alertmanager import alertmanager
    from ops.alerts.listing import rows
    from ops.errors import RemoteError
    from ops.fleet import load
    from ops.monitoring import prometheus

    fleet = load(inventory)
    told: list[Any] = []
    silences: list[Any] = []
    with prometheus(fleet) as client:
        alerts = client.alerts()
    try:
        with alertmanager(fleet) as manager:
            told, silences = manager.alerts(), manager.silences()
    except RemoteError as error:
        tell(f"nobody is told of these, and silences are not known: {error}")
    found = rows(alerts, told, silences)
    if as_json:
        kept = [_silence(silence) for silence in silences]
        print_json({"alerts": [row.record() for row in found], "silences": kept})
    else:
        _print(found, silences)
    raise typer.Exit(1 if any(row.critical for row in found) else 0)


@app.command()
def silence(
    inventory: Inventory,
    words: Words,
    duration: Annotated[str, typer.Option("--for", help="Such as 30m, 2h, 1d.")],
    why: Annotated[str, typer.Option(help="For whoever looks meanwhile.")],
    as_json: Json = False,
) -> None:
    """Keep alerts from being told for a while; they are still listed.

    Example: ops alerts silence GpuHot host=gpu1 --for 2h --why "fan on order"
    """
    import getpass
    import socket
    from datetime import UTC, datetime

    from ops.alerts.alertmanager import alertmanager
    from ops.alerts.silencing import parse_duration, parse_matchers
    from ops.fleet import load

    matchers, length = parse_matchers(words), parse_duration(duration)
    start = datetime.now(UTC)
    end = start + length
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    with alertmanager(load(inventory)) as manager:
        made = manager.silence(matchers, start=start, end=end, who=who, why=why)
    if as_json:
        print_json({"id": made, "ends": end.isoformat()})
    else:
        typer.echo(f"silenced until {end:%Y-%m-%d %H:%M} UTC: {made}")


@app.command()
def unsilence(
    inventory: Inventory,
    name: Annotated[str, typer.Argument(help="An alert's name, or a silence's id.")],
    as_json: Json = False,
) -> None:
    """End silences of an alert, or one by its id.

    Example: ops alerts unsilence GpuHot
    """
    from ops.alerts.alertmanager import alertmanager
    from ops.alerts.silencing import chosen
    from ops.fleet import load

    with alertmanager(load(inventory)) as manager:
        ended = chosen(manager.silences(), name)
        for found in ended:
            manager.expire(found.id)
    if as_json:
        print_json({"ended": [_silence(found) for found in ended]})
    else:
        for found in ended:
            typer.echo(f"told again: {' '.join(map(str, found.matchers))}")


@app.command()
def test(
    inventory: Inventory,
    receiver: Annotated[str, typer.Argument(help="slack, pagerduty, email, webhook, or all.")],
    as_json: Json = False,
) -> None:
    """Send a real alert through a receiver and say whether it was taken.

    Exit status 0: every one was; 1: not so.

    Example: ops alerts test all -i inventories/example
    """
    from ops.alerts.alertmanager import UNIT, alertmanager
    from ops.alerts.route import choose, try_receiver
    from ops.fleet import load
    from ops.monitoring.http import watcher

    fleet = load(inventory)
    host = watcher(fleet).name
    with alertmanager(fleet) as manager:
        names = choose(receiver, manager.receivers())
        outcomes = [try_receiver(manager, name, host) for name in names]
    if as_json:
        print_json({"receivers": [vars(outcome) for outcome in outcomes]})
    for outcome in outcomes if not as_json else []:
        said = "took it" if outcome.arrived else "did not take it"
        failures = f", {outcome.failures} attempts failed" if outcome.failures else ""
        typer.echo(f"{outcome.receiver} {said} ({outcome.seconds} s{failures})")
    if not all(outcome.arrived for outcome in outcomes):
        tell(f"why: journalctl -u {UNIT} -n 20 --no-pager on {host}")
        raise typer.Exit(1)


def _silence(found: Any) -> dict[str, Any]:
    matchers = [str(matcher) for matcher in found.matchers]
    return {
        "id": found.id,
        "matchers": matchers,
        "state": found.state,
        "ends": found.ends,
        "who": found.who,
        "why": found.why,
    }


def _print(found: list[Any], silences: list[Any]) -> None:
    lines = [
        {
            "state": row.state.value,
            "severity": row.alert.labels.get("severity", ""),
            "name": row.alert.name,
            "host": row.alert.labels.get("host", ""),
            "about": row.about,
            "since": minute(row.alert.since),
            "summary": row.alert.annotations.get("summary", ""),
            "cure": row.alert.annotations.get("cure", ""),
        }
        for row in found
    ]
    columns = {
        "state": "state",
        "severity": "severity",
        "name": "alert",
        "host": "host",
        "about": "about",
        "since": "since (UTC)",
        "summary": "what",
        "cure": "cure",
    }
    if lines:
        print_table(lines, columns, right=frozenset())
    else:
        typer.echo("no alert")
    for silenced in silences:
        matchers = " ".join(map(str, silenced.matchers))
        tell(
            f"silence {silenced.id[:8]} until {minute(silenced.ends)}: {matchers}, by "
            f"{silenced.who}: {silenced.why}"
        )
