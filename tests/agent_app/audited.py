"""What the audit has of an app, as its operator exports it."""

import asyncio
import json
from typing import Any

from app_process import AppProcess


def entries_of(app: AppProcess, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in app.run("audit", "export", *words).splitlines()][:-1]


async def sealed(app: AppProcess, kind: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait until so many entries of a kind are chained; return them."""
    async with asyncio.timeout(15):
        while True:
            found = [e for e in entries_of(app) if e["kind"] == kind]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.3)
