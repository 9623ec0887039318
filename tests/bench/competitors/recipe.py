"""The common recipe: FastAPI, ChatOpenAI in LangChain's agent, `astream_events`, SSE.

Runs in an environment of its own (`recipe.lock`); written as its documentation shows, with the
saver's pool and no debugging, so that it is not let down by us.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel

agents: dict[bool, Any] = {}


@tool
def search_knowledge(query: str) -> str:
    """Search the knowledge base."""
    return f"nothing about {query}"


class Ask(BaseModel):
    message: str
    thread_id: str | None = None


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    model = ChatOpenAI(
        model="demo", base_url=f"{os.environ['ENGINE']}/v1", api_key="none", temperature=0,
        max_tokens=int(os.environ["MAX_TOKENS"]), stream_usage=True, max_retries=0,
    )  # fmt: skip
    settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(os.environ["DATABASE"], max_size=20, kwargs=settings) as pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        agents[True] = create_agent(model, [search_knowledge], checkpointer=saver)
        agents[False] = create_agent(model, [search_knowledge])
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/chat")
async def chat(ask: Ask) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        config = {"configurable": {"thread_id": ask.thread_id}} if ask.thread_id else {}
        asked = {"messages": [{"role": "user", "content": ask.message}]}
        agent = agents[ask.thread_id is not None]
        async for event in agent.astream_events(asked, config, version="v2"):
            if event["event"] == "on_chat_model_stream" and event["data"]["chunk"].content:
                yield f"data: {json.dumps({'text': event['data']['chunk'].content})}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
