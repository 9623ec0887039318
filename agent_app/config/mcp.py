"""MCP servers as tools: which, how they are reached, and what of them the model may use."""

import re
from typing import Annotated

from pydantic import AnyHttpUrl, Field, model_validator

from agent_app.config.section import Section

TOOL_NAME_CHARACTERS = 64  # what OpenAI's API, and so every engine, allows
SEPARATOR = "__"
_UNFIT = re.compile(r"[^A-Za-z0-9_-]")

ServerName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Header = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")]
Credential = Annotated[str, Field(pattern=r"^tools_mcp_[a-z0-9_]{1,50}$")]
"""Only credentials of that prefix can be handed to a server, so none of the app's own."""


def offered_name(server: str, tool: str) -> str:
    """Return the name under which the model sees a server's tool."""
    return f"{server}{SEPARATOR}{_UNFIT.sub('_', tool)}"


class McpServer(Section):
    """One MCP server: a program of ours (stdio), or a URL (streamable HTTP)."""

    command: tuple[str, ...] = ()
    """Program and arguments; it gets `env` and `credentials`, and of our own environment PATH."""
    env: dict[Variable, str] = Field(default_factory=dict)
    credentials: dict[Variable, Credential] = Field(default_factory=dict)
    """Environment variable: the credential that fills it."""
    cwd: str = ""
    url: AnyHttpUrl | None = None
    headers: dict[Header, Credential] = Field(default_factory=dict)
    """Header: the credential that is its whole value, such as `Bearer …`."""
    tools: tuple[str, ...] = Field(min_length=1, max_length=64)
    """The server's tools that the model may call, as the server names them; no others appear."""
    approval: tuple[str, ...] = ()
    """Those of them that run only when a person has approved the call."""
    seconds: float = Field(default=15, gt=0)
    """Wall clock of one call."""
    bytes: int = Field(default=16_000, ge=256)
    """Most of a result that the model is told."""

    @model_validator(mode="after")
    def _one_way_in(self) -> "McpServer":
        if bool(self.command) == (self.url is not None):
            raise ValueError("give either command (stdio) or url (streamable HTTP)")
        if self.url is None and self.headers:
            raise ValueError("headers belong to a url; give env or credentials to a command")
        if self.url is not None and (self.env or self.credentials or self.cwd):
            raise ValueError("env, credentials and cwd belong to a command; give headers to a url")
        if unknown := set(self.approval) - set(self.tools):
            raise ValueError(f"approval names what tools does not: {', '.join(sorted(unknown))}")
        return self


def check_names(servers: dict[str, McpServer]) -> frozenset[str]:
    """Return the names of all tools of all servers as the model sees them.

    Raises:
        ValueError: One is too long, or two are the same.
    """
    names: set[str] = set()
    for server, settings in servers.items():
        for tool in settings.tools:
            name = offered_name(server, tool)
            if len(name) > TOOL_NAME_CHARACTERS:
                raise ValueError(f"mcp.{server}: {name} is over {TOOL_NAME_CHARACTERS} characters")
            if name in names:
                raise ValueError(f"mcp.{server}: two tools would be named {name}")
            names.add(name)
    return frozenset(names)
