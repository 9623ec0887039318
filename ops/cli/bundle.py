"""`ops bundle`: everything that a site without internet needs, made, proved, served, used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops.cli.options import DryRun, Inventory, Json
from ops.cli.output import print_json, print_table, tell

if TYPE_CHECKING:
    from ops.bundle.contents import Contents

app = typer.Typer(
    help="What a closed site needs from outside: make it, prove it, serve it, use it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Its folder, or the .tar of one.")]
Key = Annotated[
    str, typer.Option(help="Fingerprint, or file, of the key that must have signed it.")
]
PORT = 8480


@app.command()
def create(
    target: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="A folder, or a .tar.")],
    inventory: Inventory,
    distribution: Annotated[
        str,
        typer.Option(
            help="Of hosts without a variable site_distribution: debian12, debian13, ubuntu2204 "
            "or ubuntu2404."
        ),
    ] = "ubuntu2404",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Fetch and sign all that an inventory needs; run it again to go on, or to bring it up to date.

    Example: ops bundle create /srv/bundle -i inventories/production --distribution debian12
    """
    from ops.bundle import create as maker
    from ops.bundle.contents import WORK, work_out
    from ops.bundle.signing import signer
    from ops.fleet import load
    from ops.lab.locks import locked

    packed = target.suffix == ".tar"
    folder = target.with_name(f"{target.name}.folder") if packed else target
    maker.require_place(folder)
    fleet = load(inventory)
    with locked(folder / WORK / "lock"):
        with _progress() as shown:
            contents = work_out(fleet, distribution, folder / WORK, shown.say)
            missing = maker.missing_bytes(contents, folder)
        if dry_run:
            _show(contents, missing, as_json)
            return
        with signer(_secrets(inventory)) as key, _progress(missing) as shown:
            manifest = maker.carry_out(contents, folder, key, shown.say, shown.advance)
            fingerprint = key.fingerprint
        if packed:
            maker.pack(folder, target)
            maker.remove(folder)
    for name in (*contents.left_out, *contents.needs.untold):
        tell(f"left out: {name}")
    files = manifest["files"]
    size = sum(each["size"] for each in files)
    if as_json:
        kinds = {kind: {"files": n, "bytes": b} for kind, (n, b) in contents.sizes().items()}
        print_json(
            {"bundle": str(target), "files": len(files), "bytes": size, "kinds": kinds}
            | {"key": fingerprint, "left_out": contents.left_out}
        )
        return
    typer.echo(f"{target}: {len(files)} files, {size / 1e9:.2f} GB, signed by {fingerprint}")
    typer.echo("Tell the closed site that fingerprint by another way than the bundle's.")


@app.command()
def verify(bundle: Bundle, key: Key = "", as_json: Json = False) -> None:
    """Prove a bundle's signature and every checksum. Exit status 1: something is wrong.

    Example: ops bundle verify /srv/bundle --key 0123456789ABCDEF0123456789ABCDEF01234567
    """
    from ops.bundle.verification import verify as prove

    with _progress() as shown:
        proved = prove(bundle, key, lambda path, _size: shown.say(f"checking {path}"))
    if as_json:
        print_json(
            {"bundle": str(bundle), "files": len(proved.manifest["files"])}
            | {"key": proved.fingerprint, "key_was_given": proved.known}
            | {"faults": list(proved.faults)}
        )
    else:
        for fault in proved.faults:
            typer.echo(fault)
        if not proved.faults:
            count = len(proved.manifest["files"])
            typer.echo(f"{bundle}: {count} files as signed by {proved.fingerprint}")
        if not proved.known:
            typer.echo(
                "That key came with the bundle: compare its fingerprint, or name it by --key"
            )
    raise typer.Exit(1 if proved.faults else 0)


@app.command()
def install(
    bundle: Bundle,
    inventory: Inventory,
    url: Annotated[str, typer.Option(help="Where hosts find it, like http://10.0.0.1:8480.")],
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Make an inventory use a bundle, which is verified first: package sources, wheels, weights.

    Example: ops bundle install /srv/bundle -i inventories/production --url http://10.0.0.1:8480
    """
    from ops.bundle import site
    from ops.fleet import load

    changed = site.install(bundle, key, load(inventory), url)
    if as_json:
        print_json({"changed": [str(path) for path in changed]})
        return
    for path in changed:
        typer.echo(f"wrote {path}")
    if not changed:
        typer.echo("the inventory uses this bundle already")


@app.command()
def serve(
    bundle: Bundle,
    listen: Annotated[str, typer.Option(help="Address of this machine that hosts reach.")],
    port: Annotated[int, typer.Option(min=1, max=65535)] = PORT,
    key: Key = "",
) -> None:
    """Serve a verified bundle to the hosts, until interrupted. Any web server does it as well.

    Example: ops bundle serve /srv/bundle --listen 10.0.0.1
    """
    from ops.bundle.serve import server
    from ops.bundle.site import require_good

    require_good(bundle, key)
    with server(bundle, listen, port) as running:
        tell(f"serving {bundle} at http://{listen}:{port}")
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            tell("stopped")


def _secrets(inventory: Path) -> Path:
    return (inventory if inventory.is_dir() else inventory.parent) / ".secrets"


def _show(contents: Contents, missing: int, as_json: bool) -> None:
    sizes = contents.sizes()
    if as_json:
        kinds = {kind: {"files": files, "bytes": size} for kind, (files, size) in sizes.items()}
        print_json({"kinds": kinds, "missing": missing, "left_out": contents.left_out})
        return
    rows: list[dict[str, Any]] = [
        {"what": kind, "files": files, "mb": size / 1e6} for kind, (files, size) in sizes.items()
    ]
    columns = {"what": "what", "files": "files", "mb": "MB"}
    print_table(rows, columns, right=frozenset({"files", "mb"}))
    typer.echo(f"{contents.size / 1e9:.2f} GB, of which {missing / 1e9:.2f} GB are to be fetched")
    for name in contents.left_out:
        typer.echo(f"left out, as only a repository of its own has it: {name}")


class _Shown:
    """A line for the step and a bar for its bytes; plain lines where nobody watches."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TransferSpeedColumn,
        )

        self.console = Console(stderr=True)
        parts = [BarColumn(), DownloadColumn(), TransferSpeedColumn()] if total else []
        self.bar = Progress(
            TextColumn("{task.description}", markup=False), *parts,
            console=self.console, transient=True, disable=not self.console.is_terminal,
        )  # fmt: skip
        self.task = self.bar.add_task("starting", total=total or None)

    def __enter__(self) -> _Shown:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def say(self, words: str) -> None:
        """Tell the step."""
        self.bar.update(self.task, description=words)
        if not self.console.is_terminal and not words.startswith("checking "):
            tell(f"{words} …")

    def advance(self, size: int) -> None:
        """Tell bytes that came."""
        self.bar.advance(self.task, size)


def _progress(total: int = 0) -> _Shown:
    return _Shown(total)
