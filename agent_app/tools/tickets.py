"""The tool `create_ticket`."""

from typing import Any

from agent_app.state.tickets import Ticket, Tickets
from agent_app.tools.toolbox import CallContext, InvalidArguments, Output, Tool

TITLE_CHARACTERS = 200
BODY_CHARACTERS = 8_000
PRIORITIES = ("low", "normal", "high")


class CreateTicket(Tool):
    """Writes a ticket, once per call however often the call is repeated."""

    name = "create_ticket"
    repeatable = True
    schema: dict[str, Any] = {  # noqa: RUF012 - constant
        "type": "function",
        "function": {
            "name": "create_ticket",
            "description": "Open a ticket for the people who operate this service.",
            "parameters": {
                "type": "object",
                "properties": {
                    "title": {"type": "string", "maxLength": TITLE_CHARACTERS},
                    "body": {"type": "string", "maxLength": BODY_CHARACTERS},
                    "priority": {"type": "string", "enum": list(PRIORITIES)},
                },
                "required": ["title", "body"],
            },
        },
    }

    def __init__(self, tickets: Tickets, *, webhook: bool) -> None:
        self._tickets = tickets
        self._webhook = webhook

    async def check(self, arguments: dict[str, Any]) -> None:
        """Refuse a ticket that could not be written."""
        _read(arguments)

    async def run(self, arguments: dict[str, Any], context: CallContext) -> Output:
        """Write the ticket and return its number."""
        number = await self._tickets.create(
            _read(arguments),
            run_id=context.run_id,
            call_id=context.call_id,
            thread_id=context.thread_id,
            key_id=context.key_id,
            webhook=self._webhook,
        )
        return Output(f"ticket {number} is open")


def _read(arguments: dict[str, Any]) -> Ticket:
    title, body = arguments.get("title"), arguments.get("body")
    priority = arguments.get("priority", "normal")
    for name, text, most in (("title", title, TITLE_CHARACTERS), ("body", body, BODY_CHARACTERS)):
        if not isinstance(text, str) or not text.strip() or len(text) > most or "\0" in text:
            raise InvalidArguments(f"{name} must be a text of 1 to {most} characters")
    if priority not in PRIORITIES:
        raise InvalidArguments(f"priority must be one of {', '.join(PRIORITIES)}")
    return Ticket(str(title), str(body), priority)
