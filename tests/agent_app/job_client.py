"""What tests of jobs say and wait for."""

import asyncio
import json
from typing import Any

import httpx2
from app_process import AppProcess
from scripted_engine import USAGE, chunk

OVER = ("done", "failed", "cancelled")


async def submit(app: AppProcess, message: str = "Work.", key: str = "", **body: Any) -> str:
    """Submit a job and return its id."""
    answer = await post(app, {"message": message, **body}, key)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def post(
    app: AppProcess, body: dict[str, Any], key: str = "", **headers: str
) -> httpx2.Response:
    bearer = {"Authorization": f"Bearer {key or app.key}"}
    return await app.client.post("/jobs", json=body, headers={**bearer, **headers})


async def read(app: AppProcess, job: str, key: str = "") -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key or app.key}"}
    answer = await app.client.get(f"/jobs/{job}", headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def until(
    app: AppProcess, job: str, *statuses: str, key: str = "", seconds: float = 30
) -> dict[str, Any]:
    """Poll a job until it has one of the statuses, by default until it is over."""
    async with asyncio.timeout(seconds):
        while (found := await read(app, job, key))["status"] not in (statuses or OVER):
            await asyncio.sleep(0.03)
    return found


def open_ticket(title: str = "Fan") -> list[Any]:
    """A step in which the model opens a ticket."""
    arguments = json.dumps({"title": title, "body": "It smokes."})
    function = {"name": "create_ticket", "arguments": arguments}
    delta = {"tool_calls": [{"index": 0, "id": "call_0", "function": function}]}
    return [chunk(delta), chunk(reason="tool_calls"), USAGE]
