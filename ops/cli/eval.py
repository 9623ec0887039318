"""`ops eval`: suites of questions against a served model, with a baseline per revision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli.options import Json
from ops.cli.output import print_json

if TYPE_CHECKING:
    from ops.evals.report import Report
    from ops.evals.suite import Suite

app = typer.Typer(
    help="Questions with graders against a served model, held against a baseline.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the suites that come with Rackhand.

    Example: ops eval list
    """

    from ops.evals.suite import load, shipped_names

    suites = [load(name) for name in shipped_names()]
    if as_json:
        rows = [{"name": s.name, "cases": len(s.cases), "about": s.description} for s in suites]
        print_json({"suites": rows})
        return
    for suite in suites:
        typer.echo(f"{suite.name:<12} {len(suite.cases):>3} cases  {suite.description}")


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="A YAML file, or a name of ops eval list.")],
    model: Annotated[str, typer.Option(help="The served model's name.")],
    inventory: Annotated[
        Path | None,
        typer.Option("-i", "--inventory", envvar="OPS_INVENTORY", help="Folder or file."),
    ] = None,
    host: Annotated[str, typer.Option(help="Which engine host; default: the first.")] = "",
    url: Annotated[str, typer.Option(help="Any OpenAI-compatible address instead.")] = "",
    key_file: Annotated[Path | None, typer.Option(help="File with its API key.")] = None,
    against: Annotated[Path | None, typer.Option(help="A result of --json as baseline.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one HTML page.")] = None,
    as_json: Json = False,
) -> None:
    """Run a suite against the engine that serves a model, or against any address.

    A result that passes becomes the baseline of the revision that serves. Exit
    status 0: it passes; 1: it does not, or is worse than its baseline.

    Example: ops eval run chat -i inventories/example --model assistant --html chat.html
    """

    from rich.console import Console

    from ops.evals import report as reports
    from ops.evals.suite import load

    asked = load(suite)
    baseline = _read_baseline(against)
    with Console(stderr=True).status(f"asking {model} …") as status:
        say = status.update
        if url:
            report = _ask_url(asked, url, model, key_file, baseline, say)
        else:
            report, baseline = _ask_fleet(asked, inventory, host, model, baseline, say)
    if html:
        html.write_text(reports.page(report, baseline), encoding="utf-8")
    if as_json:
        print_json(report.as_record())
    else:
        show(report, baseline)
    raise typer.Exit(1 if report.findings else 0)


def _read_baseline(path: Path | None) -> Report | None:
    import json

    from ops.errors import InputError
    from ops.evals.report import Report

    if path is None:
        return None
    try:
        return Report.from_record(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"no result of ops eval: {error}", place=str(path), cure="ops eval run … --json > FILE"
        ) from error


def _ask_url(
    suite: Suite, url: str, model: str, key_file: Path | None, baseline: Report | None, say: object
) -> Report:
    from ops.evals.engine import Endpoint
    from ops.evals.run import run_suite

    key = key_file.read_text(encoding="utf-8").strip() if key_file else ""
    endpoint = Endpoint(url.removesuffix("/v1"), model, key)
    return run_suite(suite, endpoint, revision=url, baseline=baseline, say=say)  # type: ignore[arg-type]


def _ask_fleet(
    suite: Suite,
    inventory: Path | None,
    host_name: str,
    model: str,
    baseline: Report | None,
    say: object,
) -> tuple[Report, Report | None]:
    from ops.errors import InputError
    from ops.evals import store
    from ops.evals.gate import judge_slot
    from ops.fleet import load
    from ops.models.state import model_on, survey

    if inventory is None:
        raise InputError("name an inventory or an address", cure="-i inventories/…, or --url")
    fleet = load(inventory)
    state = survey(fleet, model, (host_name,) if host_name else ())[0]
    host = fleet.host(state.host)
    served = model_on(host, model)
    assert served is not None
    baseline = baseline or store.read(fleet, model, state.entry, suite.name)
    report = judge_slot(
        fleet, host, served, suite,
        slot=state.active, entry=state.entry, baseline=baseline, say=say,  # type: ignore[arg-type]
    )  # fmt: skip
    return report, baseline


def show(report: Report, baseline: Report | None) -> None:
    """A table and the verdict."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ops.evals.report import p95

    console = Console(highlight=False)
    before = {case.id: case.share for case in baseline.cases} if baseline else {}
    drawn = Table(box=None, pad_edge=False)
    for heading in ("case", "weight", "passed", "before", "why not"):
        drawn.add_column(heading, no_wrap=heading != "why not")
    for case in report.cases:
        style = "green" if case.passed == case.asked else "red"
        old = f"{before[case.id]:.0%}" if case.id in before else "-"
        passed = Text(f"{case.passed} of {case.asked}", style=style)
        drawn.add_row(case.id, f"{case.weight:g}", passed, old, Text("\n".join(case.why)))
    console.print(drawn)
    console.print(
        f"{report.share:.1%} pass · first token {p95(report.first_token) * 1000:.0f} ms, answer "
        f"{p95(report.whole):.2f} s at p95 · {report.tokens_per_second:.0f} tokens/s"
    )
    for finding in report.findings:
        console.print(finding, style="red", markup=False)
