"""Tools beside the knowledge base."""

from typing import Annotated, Literal

from pydantic import AnyHttpUrl, Field, model_validator

from agent_app.config.mcp import McpServer, ServerName, check_names, offered_name
from agent_app.config.section import Section

OWN_TOOLS = ("search_knowledge", "query_database", "create_ticket")


class SqlTool(Section):
    """Where `query_database` reads, as whom, and what."""

    host: str
    port: int = Field(default=5432, ge=1, le=65535)
    name: str
    user: str
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    sslrootcert: str = ""
    relations: tuple[Annotated[str, Field(pattern=r"^[^.]+\.[^.]+$")], ...] = Field(min_length=1)
    """Tables and views the model may read, as schema.name."""
    functions: tuple[str, ...] = ()
    """Functions of PostgreSQL it may call besides the safe ones."""
    seconds: float = Field(default=5, gt=0)
    rows: int = Field(default=100, ge=1)
    bytes: int = Field(default=16_000, ge=256)


class TicketTool(Section):
    """How `create_ticket` tells others of a new ticket."""

    webhook_url: AnyHttpUrl | None = None
    """Where each new ticket is posted; without it tickets stay in the table."""
    webhook_attempts: int = Field(default=12, ge=1)
    """After so many failures a delivery is given up; waits double from 2 s to 1 h."""


class Tools(Section):
    """Tools beside the knowledge base; a section that is absent leaves its tool out."""

    sql: SqlTool | None = None
    tickets: TicketTool | None = None
    mcp: dict[ServerName, McpServer] = Field(default_factory=dict)
    approval: tuple[str, ...] = ()
    """Tools that run only when a person has approved the call, by the name the model sees."""

    @model_validator(mode="after")
    def _names_exist(self) -> "Tools":
        known = {*OWN_TOOLS, *check_names(self.mcp)}
        if unknown := set(self.approval) - known:  # a slip here would leave a tool unguarded
            raise ValueError(
                f"approval: no such tool: {', '.join(sorted(unknown))};"
                f" there are: {', '.join(sorted(known))}"
            )
        return self

    @property
    def need_approval(self) -> frozenset[str]:
        """All tools whose calls a person must approve, by the name the model sees."""
        of_servers = {
            offered_name(name, tool) for name, s in self.mcp.items() for tool in s.approval
        }
        return frozenset({*self.approval, *of_servers})
