"""A Redis whose answer to a question is lost, and whose clients it closes all at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import redis.asyncio as redis
from data_servers import PASSWORD, RedisServer

from tests.ports import free_port


class LossyRedis:
    """Stands before a Redis, and closes the connection in the place of chosen answers.

    Args:
        port: The Redis's.
    """

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self._behind = port
        self.lose = b""
        """What a question has in it whose answer is lost, once; the question is passed on."""
        self.lost = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["LossyRedis"]:
        server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()

    async def _carry(self, asker: asyncio.StreamReader, to_asker: asyncio.StreamWriter) -> None:
        answers, behind = await asyncio.open_connection("127.0.0.1", self._behind)
        with contextlib.suppress(OSError):
            while question := await asker.read(65_536):
                behind.write(question)
                answer = await answers.read(65_536)
                if self.lose and self.lose in question:
                    self.lose, self.lost = b"", self.lost + 1
                    break
                to_asker.write(answer)
        for writer in (behind, to_asker):
            writer.close()


async def close_its_clients(server: RedisServer, *, busy_seconds: float) -> None:
    """Have Redis close its clients, those too whose questions came while it was busy.

    Reading its users anew (ACL LOAD) does the same in Redis 7.0.
    """
    client = redis.Redis(port=server.port, password=PASSWORD)
    async with client.pipeline(transaction=False) as together:
        together.execute_command("DEBUG", "SLEEP", str(busy_seconds))
        together.client_kill_filter(_type="normal", skipme=True)
        _, closed = await together.execute()
    await client.aclose()
    assert closed
