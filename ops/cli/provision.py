"""`ops provision`: bring hosts to what the inventory says."""

from __future__ import annotations

from typing import Annotated

import typer

from ops.cli.options import Inventory

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def provision(
    inventory: Inventory,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; say what would.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show the lines that change.")] = False,
    tags: Annotated[str, typer.Option(help="Only these roles or layers: engine,edge")] = "",
    limit: Annotated[str, typer.Option(help="Only these hosts or groups.")] = "",
    extra: Annotated[
        list[str] | None, typer.Option("-e", "--extra-vars", help="name=value or @file.")
    ] = None,
) -> None:
    """Bring the hosts of an inventory to what it says.

    Runs playbooks/site.yml. A second run changes nothing; --check --diff shows
    what a run would do.

    Example: ops provision -i inventories/example --check --diff
    """
    from rich.console import Console  # heavy

    from ops.cli.output import tell
    from ops.playbook.provision import provision as provision_fleet
    from ops.secrets.clear import CURE, in_clear

    for secret in in_clear(inventory):
        tell(f"warning: {secret.name} stands in clear in {secret.path}\n  cure:  {CURE}")

    arguments = [flag for flag, on in (("--check", check), ("--diff", diff)) if on]
    for name, value in (("--tags", tags), ("--limit", limit)):
        arguments += [name, value] if value else []
    for value in extra or ():
        arguments += ["-e", value]
    provision_fleet(inventory, Console(), arguments)
