"""The root of the `ops` command: global options, lazily loaded groups, errors for people."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from ops.errors import OpsError

DEBUG_VARIABLE = "OPS_DEBUG"


class Entry(NamedTuple):
    """A command or group of `ops`, named without importing it."""

    module: str
    """`module`, whose `app` it is, or `module:name`."""
    help: str
    hidden: bool = False

    def load(self) -> typer.Typer:
        """Import the command."""
        module, _, attribute = self.module.partition(":")
        found: typer.Typer = getattr(import_module(module), attribute or "app")
        return found


COMMANDS = {
    "provision": Entry("ops.cli.provision", "Bring the hosts of an inventory to what it says."),
    "verify": Entry("ops.cli.verify", "Prove that the hosts are what the inventory says."),
    "status": Entry("ops.cli.status", "Show hosts, models, slots, GPUs and units."),
    "top": Entry("ops.cli.top", "The same live, with requests, tokens and errors per second."),
    "report": Entry("ops.cli.report", "Write one page with plots about a period."),
    "alerts": Entry("ops.cli.alerts", "List and silence alerts, and test who is told."),
    "doctor": Entry("ops.cli.doctor", "Name what ails hosts, why, and the cure."),
    "model": Entry("ops.cli.model", "Stage, upgrade, roll back and prune models."),
    "app": Entry("ops.cli.app", "Deploy the agent app and take it back."),
    "restart": Entry("ops.cli.restart", "Restart engines, the app, GPUs or hosts, in turn."),
    "backup": Entry("ops.cli.backup", "Back up the fleet, list and prove its backups."),
    "restore": Entry("ops.cli.backup:restore_app", "Bring the database back, to any moment."),
    "eval": Entry("ops.cli.eval", "Ask a served model a suite of questions and judge it."),
    "history": Entry("ops.cli.operations:history_app", "List operations on the fleet."),
    "show": Entry("ops.cli.operations:show_app", "Tell one operation step by step."),
    "resume": Entry("ops.cli.operations:resume_app", "Go on with an unfinished operation."),
    "abort": Entry("ops.cli.operations:abort_app", "Bring back what an unfinished one changed."),
    "remediate": Entry("ops.cli.remediate", "What remediation does, did and would do."),
    "driver": Entry("ops.cli.driver", "Show and move the hosts' GPU drivers."),
    "gpu-exporter": Entry("ops.cli.gpu_exporter", "Serve metrics of this machine's GPUs."),
    "certs": Entry("ops.cli.certs", "List the fleet's certificates and what is left of each."),
    "secrets": Entry("ops.cli.secrets", "List, show and rotate the fleet's own secrets."),
    "keys": Entry("ops.cli.keys", "Make, limit, rotate, revoke and erase API keys."),
    "usage": Entry("ops.cli.usage", "Show what keys used: requests, tokens, engine seconds."),
    "kb": Entry("ops.cli.kb", "Fill and search the agent's knowledge base."),
    "audit": Entry("ops.cli.audit", "Export and verify the agent's audit."),
    "fit": Entry("ops.cli.fit", "Tell whether a model fits GPUs, and with which flags."),
    "bundle": Entry("ops.cli.bundle", "Make, prove and use what a closed site needs."),
    "mirror": Entry("ops.cli.mirror", "Copy what a closed site's GPU hosts need."),
    "lab": Entry("ops.cli.lab", "Boot and end a rehearsal fleet on this machine."),
    "chaos": Entry("ops.cli.chaos", "Break the rehearsal fleet on purpose; refuses others."),
    "demo": Entry("ops.cli.demo", "From nothing to a streamed reply in the lab.", hidden=True),
}
"""Each module holds `app`, a Typer. Help reads this table; a module is imported when its
command runs, which keeps `ops --help` quick."""


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, entry in COMMANDS.items():
            self.add_command(TyperCommand(name, help=entry.help, hidden=entry.hidden))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command that the arguments name."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in COMMANDS:
            command = typer.main.get_command(COMMANDS[name].load())
            command.name = name
        return name, command, rest


app = typer.Typer(
    cls=LazyGroup,
    rich_markup_mode=None,  # plain help: Rich's panels would cost 120 ms at every --help
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def print_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        from importlib.metadata import version  # 20 ms that help does not need

        typer.echo(f"ops {version('rackhand')}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Operate an AI-agent stack on your own GPU servers."""
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


def main() -> None:
    """Run `ops`; an OpsError becomes its message, place and cure, and its exit code."""
    try:
        app()
    except OpsError as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        print_error(error)
        sys.exit(error.exit_code)


def print_error(error: OpsError) -> None:
    """Print an error for a person on standard error; colours only on a terminal."""
    from rich.console import Console  # only a failing command pays for it

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    first, *rest = str(error).splitlines()
    console.print("error:", style="bold red", end=" ")
    console.print(first, markup=False)
    for line in rest:
        console.print(line, markup=False)


if __name__ == "__main__":
    main()
