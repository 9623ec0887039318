"""`agent-app knowledge`."""

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent_app.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, open_database
from agent_app.config import Config, load_config

if TYPE_CHECKING:
    from agent_app.knowledge.ingest import Ingested

app = typer.Typer(help="The knowledge base.", no_args_is_help=True)

Collection = Annotated[
    str, typer.Option(help="A set of documents; keys can be limited to some (keys create --scope).")
]
_NAME = r"[a-z0-9][a-z0-9._-]{0,39}"


@app.command("ingest")
def ingest(
    directory: Annotated[Path, typer.Argument(help="A folder, or one file.")],
    collection: Collection = "default",
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what the collection has and the folder has not.")
    ] = False,
    base_url: Annotated[
        str, typer.Option(help="Where people read the folder: https://docs.example.com/guide")
    ] = "",
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Read Markdown, text, HTML and PDF files; what has not changed is left alone.

    Exit status 0: all were read; 1: some were not, and each is named.
    """
    from agent_app.knowledge.ingest import Wish
    from agent_app.knowledge.ingest import ingest as run_ingest

    settings = load_config(config)
    _check_name(collection)
    with open_database(settings) as connection:
        wish = Wish(directory, collection, base_url, prune)
        done = run_ingest(connection, settings.knowledge, wish, _show_progress)
    _end_progress()
    embedded, why_not = asyncio.run(_embed(settings))
    if as_json:
        typer.echo(json.dumps({**done.as_dict(), "embedded": embedded, "not_embedded": why_not}))
    else:
        gone = f", {done.removed} removed" if prune else ""
        made = f", {embedded} passages embedded" if embedded else ""
        typer.echo(f"{done.new} new or changed, {done.unchanged} unchanged{gone}{made}")
    for path, reason in done.failed.items():
        typer.echo(f"agent-app: {path}: passed over: {reason}", err=True)
    if why_not:
        typer.echo(f"agent-app: semantic search is off: {why_not}; full text serves", err=True)
    raise typer.Exit(1 if done.failed else 0)


@app.command("list")
def list_of_documents(
    collection: Annotated[str | None, typer.Option(help="Only this one's.")] = None,
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """List documents by collection and path."""
    from agent_app.knowledge.holdings import list_documents

    with open_database(load_config(config)) as connection:
        found = list_documents(connection, collection)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for document in found:
        line = "{collection}/{path}  {passages} passages  {ingested_at}  {title}  {url}"
        typer.echo(line.format(**document).rstrip())


@app.command("status")
def status(as_json: AsJson = False, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Show what there is, and whether semantic search works."""
    from agent_app.knowledge.holdings import count_holdings

    settings = load_config(config)
    identity, why_off = asyncio.run(_look_at_semantic(settings))
    with open_database(settings) as connection:
        found = count_holdings(connection, settings, identity)
    semantic = found["semantic"]
    semantic["why"] = semantic["why"] or why_off
    semantic["on"] = not semantic["why"]
    if as_json:
        typer.echo(json.dumps(found))
        return
    passages = 0
    for one in found["collections"]:
        passages += one["passages"]
        typer.echo(
            "{collection}: {documents} documents, {passages} passages, {bytes:,} bytes,"
            " last ingested {last_ingested_at}".format(**one)
        )
        if one["other_language"]:
            typer.echo(
                f"  {one['other_language']} documents were ingested in another language than"
                f" {found['language']}: ingest them again"
            )
    if semantic["on"]:
        how = "with an index" if semantic["indexed"] else "without an index: run agent-app migrate"
        typer.echo(
            f"semantic search is on: {semantic['model']}, {semantic['embedded_passages']} of"
            f" {passages} passages embedded, {how}"
        )
    else:
        typer.echo(f"semantic search is off: {semantic['why']}; full text serves")


@app.command("search")
def search(
    query: str,
    collection: Annotated[
        list[str] | None, typer.Option(help="Only in this one; repeatable.")
    ] = None,
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Search as the agent does.

    Exit status 0: something was found; 1: nothing.
    """
    found = asyncio.run(_search(load_config(config), query, collection))
    if as_json:
        typer.echo(json.dumps(found))
    else:
        for number, passage in enumerate(found, start=1):
            where = f"{passage['collection']}/{passage['path']} {passage['url']}".rstrip()
            title = " › ".join(filter(None, (passage["title"], passage["heading"])))  # noqa: RUF001
            typer.echo(f"[{number}] {title}  ({where})\n    {passage['text']}")
    raise typer.Exit(0 if found else 1)


@app.command("remove")
def remove(
    paths: Annotated[list[str] | None, typer.Argument(help="Documents, by path.")] = None,
    collection: Collection = "default",
    every: Annotated[bool, typer.Option("--all", help="All of the collection.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Remove documents, or with --all a whole collection."""
    from agent_app.errors import InvalidRequest
    from agent_app.knowledge.holdings import remove_documents

    if bool(paths) == every:
        raise InvalidRequest(
            "name documents, or all of them", place="knowledge remove", cure="PATH … or --all"
        )
    what = f"all of collection {collection}" if every else ", ".join(paths or ())
    if not yes:
        typer.confirm(f"Remove {what}?", abort=True, err=True)
    with open_database(load_config(config)) as connection:
        removed = remove_documents(connection, collection, paths or [])
    typer.echo(json.dumps({"removed": removed}) if as_json else f"{removed} removed")


def _check_name(collection: str) -> None:
    import re

    from agent_app.errors import InvalidRequest

    if re.fullmatch(_NAME, collection) is None:
        raise InvalidRequest(
            f"{collection!r} is no name for a collection",
            place="--collection",
            cure="up to 40 of a-z 0-9 . _ -",
        )


def _show_progress(done: "Ingested") -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done.documents} documents, {done.new} new, {done.passages} passages")


def _show_embedding(made: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{made} passages embedded")


def _end_progress() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")


async def _embed(config: Config) -> tuple[int, str]:
    """Return how many vectors were made, and why not all of them were; no model: no reason."""
    from agent_app.agent.embeddings import EmbeddingFailure
    from agent_app.knowledge.assembly import open_semantic
    from agent_app.state.vectors import NO_EXTENSION

    made = 0

    def note(count: int) -> None:
        nonlocal made
        made = count
        _show_embedding(count)

    async with open_semantic(config) as semantic:
        if semantic is None:
            return 0, ""
        try:
            if await semantic.embed_lacking(note) is None:
                why = await semantic.why_off()
                return 0, why if why == NO_EXTENSION else ""  # else another process makes them
        except EmbeddingFailure as error:
            return made, f"{error}; the app makes what is missing once it answers"
    _end_progress()
    return made, ""


async def _look_at_semantic(config: Config) -> tuple[str, str]:
    from agent_app.knowledge.assembly import open_semantic

    async with open_semantic(config) as semantic:
        return (semantic.identity, await semantic.why_off()) if semantic else ("", "")


async def _search(
    config: Config, query: str, collections: list[str] | None
) -> list[dict[str, Any]]:
    from dataclasses import asdict

    from agent_app.knowledge.assembly import open_pool, open_semantic
    from agent_app.knowledge.search import Knowledge, Reader

    async with open_pool(config) as pool, open_semantic(config) as semantic:
        knowledge = Knowledge(pool, config.knowledge, semantic)
        return [asdict(passage) for passage in await knowledge.search(query, Reader(collections))]
