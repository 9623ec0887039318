"""The tool `search_knowledge`: passages of the ingested documents, numbered for citation."""

from typing import Any

from agent_app.knowledge.passages import BETWEEN_HEADINGS
from agent_app.knowledge.search import Knowledge, Passage
from agent_app.tools.toolbox import CallContext, InvalidArguments, Output, Source, Tool


class SearchKnowledge(Tool):
    """Search over the ingested documents that the run's key may see."""

    name = "search_knowledge"
    repeatable = True
    schema: dict[str, Any] = {  # noqa: RUF012 - constant
        "type": "function",
        "function": {
            "name": "search_knowledge",
            "description": (
                "Search the knowledge base. Results are numbered passages of documents."
                " Cite each that the answer rests on by its number in brackets, such as [1],"
                " right after the sentence; cite nothing else."
            ),
            "parameters": {
                "type": "object",
                "properties": {"query": {"type": "string"}},
                "required": ["query"],
            },
        },
    }

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge

    async def run(self, arguments: dict[str, Any], context: CallContext) -> Output:
        """Return the best passages, numbered, or `nothing`.

        Numbers go on through a run's searches, and a passage found again keeps its own, so that
        `[2]` in the answer means one passage only.
        """
        query = arguments.get("query")
        if not isinstance(query, str) or not query.strip():
            raise InvalidArguments('give {"query": "<what to look for>"}')
        reader = await self._knowledge.reader(context.key_id)
        passages = await self._knowledge.search(query, reader)
        numbers = {source.chunk: source.number for source in context.shown if source.number}
        for passage in passages:
            numbers.setdefault(passage.chunk, len(numbers) + 1)
        lines = [f"[{numbers[p.chunk]}] {_name(p)}: {p.text}" for p in passages]
        sources = tuple(
            Source(p.title, p.path, numbers[p.chunk], p.heading, p.chunk, p.url) for p in passages
        )
        return Output("\n".join(lines) or "nothing", sources)


def _name(passage: Passage) -> str:
    return BETWEEN_HEADINGS.join(filter(None, (passage.title, passage.heading)))
