"""The tool `search_knowledge`: passages of the ingested documents, with their sources."""

from typing import Any

from agent_app.state.knowledge import Knowledge
from agent_app.tools.toolbox import CallContext, InvalidArguments, Output, Source


class SearchKnowledge:
    """Full-text search over the ingested documents."""

    name = "search_knowledge"
    schema: dict[str, Any] = {  # noqa: RUF012 - constant
        "type": "function",
        "function": {
            "name": "search_knowledge",
            "description": "Search the knowledge base.",
            "parameters": {
                "type": "object",
                "properties": {"query": {"type": "string"}},
                "required": ["query"],
            },
        },
    }

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge

    async def run(self, arguments: dict[str, Any], _context: CallContext) -> Output:
        """Return the best passages, numbered, or `nothing`."""
        query = arguments.get("query")
        if not isinstance(query, str) or not query.strip():
            raise InvalidArguments('give {"query": "<what to look for>"}')
        passages = await self._knowledge.search(query)
        lines = [f"[{n}] {p.title}: {p.text}" for n, p in enumerate(passages, start=1)]
        sources = tuple(dict.fromkeys(Source(p.title, p.path) for p in passages))
        return Output("\n".join(lines) or "nothing", sources)
