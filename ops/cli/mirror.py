"""`ops mirror`: what a closed site's GPU hosts need, listed, copied and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ops.cli.options import Inventory

app = typer.Typer(
    help="A closed site's package mirror: list what its GPU hosts need, copy it, check the copy.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
Folder = Annotated[Path, typer.Argument(help="The copy; serve it by any web server.")]


@app.command()
def manifest(
    inventory: Inventory,
    output: Annotated[Path, typer.Option("-o", "--output", help="The manifest's file.")] = Path(
        "manifest.json"
    ),
    distribution: Annotated[
        str, typer.Option(help="Of the GPU hosts: ubuntu2204, ubuntu2404, debian12 or debian13.")
    ] = "ubuntu2404",
) -> None:
    """Write the exact packages, sizes and checksums that the inventory's GPU hosts install.

    Reads the repositories' signed indexes; a wrong signature or key stops it.

    Example: ops mirror manifest -i inventories/example -o manifest.json
    """
    from ops.fleet import load
    from ops.lab.paths import write_atomically
    from ops.mirror import manifest as copy
    from ops.mirror.wanted import wanted

    made = copy.make(*wanted(load(inventory), distribution))
    write_atomically(output, made.render())
    packages = sum(len(each.packages) for each in made.repositories)
    typer.echo(f"{output}: {packages} packages, {made.size / 1e6:.1f} MB with indexes")
    if made.from_distribution:
        names = ", ".join(made.from_distribution)
        typer.echo(f"also needed, from a mirror of the distribution: {names}")


@app.command()
def sync(
    source: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Of `ops mirror manifest`.")],
    folder: Folder,
) -> None:
    """Copy what a manifest names; run it again to go on after an interruption.

    Example: ops mirror sync manifest.json /srv/mirror
    """
    from rich.console import Console

    from ops.mirror import manifest as copy

    with Console(stderr=True).status("reading the manifest") as status:
        fetched = copy.sync(copy.load(source), folder, status.update)
    typer.echo(f"{folder} is complete; {fetched} files were downloaded")


@app.command()
def verify(folder: Folder) -> None:
    """Check every file of a copy against its manifest. Exit status 1: something is wrong.

    Example: ops mirror verify /srv/mirror
    """
    from ops.mirror import manifest as copy

    wrong = copy.faults(folder)
    for path in wrong:
        typer.echo(f"missing or changed: {path}")
    if wrong:
        typer.echo(f"cure: ops mirror sync {folder / copy.NAME} {folder}")
        raise typer.Exit(1)
    typer.echo(f"{folder} is complete and unchanged")
