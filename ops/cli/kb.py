"""`ops kb`: the agent's knowledge base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ops.cli.options import Inventory, Json, Yes
from ops.cli.output import minute, print_json, print_table, tell

app = typer.Typer(
    help="The agent's knowledge base: filled, listed, searched.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Collection = Annotated[str, typer.Option(help="A set of documents.")]
NOTHING_FOUND = frozenset({0, 1})


@app.command("ingest")
def ingest(
    inventory: Inventory,
    folder: Annotated[Path, typer.Argument(exists=True, help="A folder here, or one file.")],
    collection: Collection = "default",
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what the collection has and the folder has not.")
    ] = False,
    base_url: Annotated[
        str, typer.Option(help="Where people read the folder: https://docs.example.com/guide")
    ] = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Send documents of this machine to the knowledge base; unchanged ones are left alone.

    Markdown, text, HTML and PDF. Run it again after any interruption: it goes on.
    Exit status 0: all were read; 1: some were not, and each is named.

    Example: ops kb ingest docs/ --base-url https://docs.example.com
    """
    from ops.agent.command import ingest_from_input
    from ops.agent.folder import find_documents, pack
    from ops.agent.host import ask_json
    from ops.fleet import load

    documents = find_documents(folder)
    fleet = load(inventory)
    if prune and not yes:
        typer.confirm(
            f"Remove what collection {collection} has and {folder} has not?", abort=True, err=True
        )
    if not as_json:
        tell(f"sending {len(documents)} documents")
    options: dict[str, str | bool] = {
        "collection": collection, "prune": prune, "base_url": base_url,
    }  # fmt: skip
    done = ask_json(
        fleet,
        ingest_from_input(options),
        say=tell,
        accept=NOTHING_FOUND,
        source=lambda: pack(documents),
    )
    if as_json:
        print_json(done)
    else:
        gone = f", {done['removed']} removed" if prune else ""
        made = f", {done['embedded']} passages embedded" if done["embedded"] else ""
        typer.echo(f"{done['new']} new or changed, {done['unchanged']} unchanged{gone}{made}")
    for path, reason in done["failed"].items():
        tell(f"{path}: passed over: {reason}")
    if done["not_embedded"]:
        tell(f"semantic search is off: {done['not_embedded']}; full text serves")
    raise typer.Exit(1 if done["failed"] else 0)


@app.command("list")
def list_(
    inventory: Inventory,
    collection: Annotated[str, typer.Option(help="Only this one's.")] = "",
    as_json: Json = False,
) -> None:
    """List documents by collection and path.

    Example: ops kb list --collection default
    """
    found = _ask(inventory, "list", collection=collection)
    if as_json:
        print_json({"documents": found})
        return
    columns = {"collection": "collection", "path": "path", "title": "title",
               "passages": "passages", "ingested_at": "ingested", "url": "address"}  # fmt: skip
    shown = [{**document, "ingested_at": minute(document["ingested_at"])} for document in found]
    print_table(shown, columns, right=frozenset({"passages"}))


@app.command("status")
def status(inventory: Inventory, as_json: Json = False) -> None:
    """Show how much there is, and whether semantic search works.

    Example: ops kb status
    """
    found = _ask(inventory, "status")
    if as_json:
        print_json(found)
        return
    columns = {"collection": "collection", "documents": "documents", "passages": "passages",
               "bytes": "bytes", "last_ingested_at": "last ingested"}  # fmt: skip
    numbers = frozenset({"documents", "passages", "bytes"})
    shown = [
        {**one, "last_ingested_at": minute(one["last_ingested_at"])} for one in found["collections"]
    ]
    print_table(shown, columns, right=numbers)
    semantic = found["semantic"]
    if semantic["on"]:
        passages = sum(one["passages"] for one in found["collections"])
        typer.echo(
            f"semantic search is on: {semantic['model']}, {semantic['embedded_passages']} of"
            f" {passages} passages embedded"
        )
    else:
        typer.echo(f"semantic search is off: {semantic['why']}; full text serves")


@app.command("search")
def search(
    inventory: Inventory,
    query: str,
    collection: Annotated[
        list[str] | None, typer.Option(help="Only in this one; repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Search as the agent does.

    Exit status 0: something was found; 1: nothing.

    Example: ops kb search "how do I replace a valve"
    """
    # `--`: a query may begin with a dash.
    found = _ask(inventory, "search", "--", query, collection=collection)
    if as_json:
        print_json({"passages": found})
    else:
        for number, passage in enumerate(found, start=1):
            where = f"{passage['collection']}/{passage['path']} {passage['url']}".rstrip()
            title = " > ".join(filter(None, (passage["title"], passage["heading"])))
            typer.echo(f"[{number}] {title}  ({where})\n    {passage['text']}")
    raise typer.Exit(0 if found else 1)


@app.command("remove")
def remove(
    inventory: Inventory,
    paths: Annotated[list[str] | None, typer.Argument(help="Documents, by path.")] = None,
    collection: Collection = "default",
    every: Annotated[bool, typer.Option("--all", help="All of the collection.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Remove documents, or with --all a whole collection.

    Example: ops kb remove old/manual.md
    """
    if not yes:
        what = f"all of collection {collection}" if every else ", ".join(paths or ())
        typer.confirm(f"Remove {what}?", abort=True, err=True)
    words = ("--", *(paths or ())) if paths else ()
    done = _ask(inventory, "remove", *words, collection=collection, all=every, yes=True)
    if as_json:
        print_json(done)
    else:
        typer.echo(f"{done['removed']} removed")


def _ask(inventory: Path, command: str, *words: str, **options: Any) -> Any:
    from ops.agent.command import agent_app
    from ops.agent.host import ask_json
    from ops.fleet import load

    accept = NOTHING_FOUND if command == "search" else frozenset({0})
    line = agent_app("knowledge", command, *words, json=True, **options)
    return ask_json(load(inventory), line, say=tell, accept=accept)
