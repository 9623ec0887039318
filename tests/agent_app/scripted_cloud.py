"""A scripted engine that plays an OpenAI-compatible cloud: it wants its own API key."""

import json
from typing import Any

from scripted_engine import ScriptedEngine
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

SECRET = "cloud-secret-for-tests"


class ScriptedCloud(ScriptedEngine):
    """Counts every request, admitted or not, and keeps what crossed."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.crossed: list[dict[str, Any]] = []

    async def _complete(self, request: Request) -> Response:
        self.calls += 1
        body = await request.json()
        self.crossed.append({"headers": dict(request.headers), "body": body})
        if request.headers.get("authorization") != f"Bearer {SECRET}":
            message = f"wrong key {request.headers.get('authorization')}"
            return JSONResponse({"error": {"message": message}}, 401)
        return await super()._complete(request)

    def all_that_crossed(self) -> str:
        return json.dumps(self.crossed)
