"""The MCP server of the tests, as configuration has it and as a process."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent_app.config import McpServer
from agent_app.state.audit import Audit
from agent_app.tools.mcp.link import ServerLink
from agent_app.tools.mcp.start import _make_opener
from tests.ports import free_port

PROGRAM = Path(__file__).with_name("mcp_program.py")
ALLOWED = ["refund", "stock", "slow_stock", "slow_refund", "fail", "big", "picture", "say",
           "environment", "flood", "hang", "change"]  # fmt: skip


class Shop:
    """Its folder, and what it did."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder

    def settings(self, **more: Any) -> dict[str, Any]:
        """Of `tools.mcp.shop`, over stdio."""
        command = [sys.executable, str(PROGRAM), str(self.folder)]
        return {"command": command, "tools": ALLOWED, **more}

    def effects(self) -> list[str]:
        path = self.folder / "effects"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def pid(self) -> int:
        return int((self.folder / "pid").read_text())

    def alive(self) -> bool:
        status = Path(f"/proc/{self.pid}/stat")
        try:
            return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    async def did(self, line: str, seconds: float = 10) -> None:
        """Wait until it did something."""
        async with asyncio.timeout(seconds):
            while line not in self.effects():
                await asyncio.sleep(0.02)


class HttpShop(Shop):
    """The same over streamable HTTP."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def settings(self, **more: Any) -> dict[str, Any]:
        return {"url": f"http://127.0.0.1:{self.port}/mcp", "tools": ALLOWED, **more}

    async def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(self.folder), "--port", str(self.port)],
                stdout=log, stderr=log, env={**os.environ, "SLOW_SECONDS": "30"},
            )  # fmt: skip
        for _ in range(1000):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            await asyncio.sleep(0.02)
        pytest.fail((self.folder / "log").read_text()[-3000:])

    async def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            await asyncio.to_thread(self.process.wait, 10)


@contextlib.asynccontextmanager
async def linked(shop: Shop, **more: Any) -> AsyncIterator[ServerLink]:
    """The shop's link at work, once its first attempt was made."""
    settings = McpServer.model_validate(shop.settings(**more))
    link = ServerLink("shop", settings, _make_opener("shop", settings, ""), Audit())
    work = asyncio.create_task(link.work())
    try:
        async with asyncio.timeout(30):
            await link.settled()
        yield link
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
