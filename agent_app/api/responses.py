"""`POST /v1/responses`: OpenAI's newer API, passed through to engines that offer it.

Between client and engine stand the key, its limits, the bounds and the count. The agent does not:
there is no tool of ours, no system prompt, and nothing is stored, here or in the engine.
"""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from agent_app.agent.events import Done, Failed, Relayed
from agent_app.agent.relay import RelayAsk
from agent_app.agent.run import Run
from agent_app.api.openai import FIRST_EVENT_SECONDS
from agent_app.api.schemas import EVENTS_SCHEMA, Body
from agent_app.api.services import ChatKey, FeatureTag, ServicesNow, current_correlation
from agent_app.api.stream import KEEP_ALIVE, QUIET_SECONDS, EventStream, until_client_leaves
from agent_app.errors import AgentAppError

router = APIRouter(prefix="/v1", tags=["openai"])

_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The engine's answer as it is: one document, or OpenAI's events.",
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "example": {"id": "resp_8c1f…", "object": "response", "status": "completed"},
            },
            "text/event-stream": {
                "schema": EVENTS_SCHEMA,
                "example": "event: response.output_text.delta\ndata: {…}\n\n",
            },
        },
    }
}


class FunctionTool(BaseModel):
    """A function that the client will call itself: the engine's own tools are not let in."""

    model_config = ConfigDict(extra="allow")

    type: Literal["function"]
    name: str = Field(min_length=1, max_length=200)


class ResponsesRequest(Body):
    """Body of `POST /v1/responses`; what is not listed here is not passed on."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "demo", "input": "What is Rackhand?", "max_output_tokens": 200}]
        }
    )

    model: str | None = Field(default=None, max_length=200)
    input: (
        Annotated[str, Field(min_length=1)] | Annotated[list[dict[str, Any]], Field(min_length=1)]
    )
    instructions: str | None = None
    stream: bool = False
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    tools: list[FunctionTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    previous_response_id: None = Field(
        default=None, description="Nothing is stored: give the whole conversation as `input`."
    )
    background: Literal[False] | None = None

    def body(self) -> dict[str, Any]:
        """Return what the engine gets."""
        mine = {"model", "stream", "previous_response_id", "background"}
        return {**self.model_dump(exclude=mine, exclude_none=True), "store": False}


@router.post("/responses", responses=_ANSWER, response_class=Response)
async def respond(
    body: ResponsesRequest,
    request: Request,
    services: ServicesNow,
    key: ChatKey,
    feature: FeatureTag = "",
) -> Response:
    """Pass a request on to an engine of the model and its answer back."""
    run = await services.relay.start(
        RelayAsk(key, current_correlation(), feature, body.model, body.body())
    )
    if not body.stream:
        result = await until_client_leaves(request, run, _collect(run))
        return JSONResponse(result, headers=run.headers)
    early = await until_client_leaves(request, run, run.first(FIRST_EVENT_SECONDS), keep=True)
    if isinstance(early, Failed):
        raise early.error
    return EventStream(run, _encode(run), run.headers)


async def _encode(run: Run) -> AsyncIterator[bytes]:
    number = 0
    async for event in run.events(quiet_seconds=QUIET_SECONDS):
        match event:
            case None:
                yield KEEP_ALIVE
            case Relayed(data):
                number += 1
                yield data
            case Failed(error):
                said = {"type": "error", "code": error.code, "message": error.message}
                text = json.dumps({**said, "param": None, "sequence_number": number})
                yield f"event: error\ndata: {text}\n\n".encode()


async def _collect(run: Run) -> Any:
    last = b""
    async for event in run.events(quiet_seconds=QUIET_SECONDS):
        match event:
            case Relayed(data):
                last = data
            case Failed(error):
                raise error
            case Done():
                return json.loads(last.partition(b"data:")[2])["response"]
    raise AgentAppError("the request ended without a word")
