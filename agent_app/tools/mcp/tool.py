"""A server's tool as the model's, and the server's result as the model's text."""

import json
from typing import Any

from mcp_types import (
    CallToolResult,
    EmbeddedResource,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from agent_app.config.mcp import offered_name
from agent_app.tools.mcp.link import ServerLink
from agent_app.tools.mcp.schema import clean
from agent_app.tools.toolbox import CallContext, Output, Tool

NAME_CHARACTERS = 200


class McpTool(Tool):
    """One tool of one server.

    Args:
        link: The session with its server.
        tool: Its name there.
    """

    def __init__(self, link: ServerLink, tool: str) -> None:
        self.name = offered_name(link.name, tool)
        self.seconds = link.settings.seconds
        self._link = link
        self._tool = tool

    @property
    def available(self) -> bool:
        """Whether the server has it now."""
        return self._tool in self._link.offers

    @property
    def repeatable(self) -> bool:
        """Whether the server says that a second call does no harm."""
        offer = self._link.offers.get(self._tool)
        return offer is not None and offer.repeatable

    @property
    def schema(self) -> dict[str, Any]:
        """What the engine is told of it, as the server has it now."""
        offer = self._link.offers.get(self._tool)
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": offer.description if offer else "",
                "parameters": offer.parameters if offer else {},
            },
        }

    async def check(self, arguments: dict[str, Any]) -> None:
        """Hold the arguments against the server's schema."""
        (await self._link.offer(self._tool)).check(arguments)

    async def run(self, arguments: dict[str, Any], _context: CallContext) -> Output:
        """Call it and return its result as text."""
        result = await self._link.call(self._tool, arguments)
        return read_result(result, self._link.settings.bytes)


def read_result(result: CallToolResult, most: int) -> Output:
    """Return a result as text: what is not text is named, and what is too long is cut.

    Args:
        result: What the server said.
        most: Bytes.
    """
    parts = [_text(part) for part in result.content]
    if result.structured_content is not None and not any(
        isinstance(part, TextContent) for part in result.content
    ):
        parts.append(json.dumps(result.structured_content, ensure_ascii=False))
    whole = "\n".join(parts).replace("\0", "") or "(no content)"
    data = whole.encode(errors="replace")
    if len(data) > most:
        kept = data[:most].decode(errors="ignore")
        whole = f"{kept}\n(cut at {most} bytes of {len(data)}; ask for less)"
    else:
        whole = data.decode()
    return Output(f"error: {whole}" if result.is_error else whole, ok=not result.is_error)


def _text(part: object) -> str:
    match part:
        case TextContent(text=text):
            return text
        case EmbeddedResource(resource=TextResourceContents(uri=uri, text=text)):
            return f"(resource {clean(str(uri), NAME_CHARACTERS)})\n{text}"
        case EmbeddedResource(resource=resource):
            return f"(resource {clean(str(resource.uri), NAME_CHARACTERS)}, not text, left out)"
        case ResourceLink(uri=uri):
            return f"(link to {clean(str(uri), NAME_CHARACTERS)}, not followed)"
        case _:
            kind = clean(str(getattr(part, "type", "something")), NAME_CHARACTERS)
            media = clean(str(getattr(part, "mime_type", "")), NAME_CHARACTERS)
            return f"({kind} {media}, left out)"
