"""The task of a serving process that seals what waits, and tells of the chain's head."""

import asyncio
from typing import Any

import psycopg
import structlog

from agent_app.audit.seal import BATCH, read_head, seal_batch
from agent_app.audit.vault import Vault
from agent_app.errors import AgentAppError
from agent_app.observability import metrics

SEAL_SECONDS = 0.5
RETRY_SECONDS = 5.0
FINGERPRINT_DIGITS = 12  # of the hash, in hex: 48 bits are exact in a metric's float

log = structlog.get_logger(__name__)


class Sealer:
    """Seals in a thread with a connection of its own, so that no request waits on it.

    Args:
        conninfo: Of the app's role.
        vault: The secret.
    """

    def __init__(self, conninfo: str, vault: Vault) -> None:
        self._conninfo = conninfo
        self._vault = vault
        self._connection: psycopg.Connection[Any] | None = None
        self._stop = asyncio.Event()

    async def work(self) -> None:
        """Seal until `stop`, and once more then."""
        while True:
            stopping = self._stop.is_set()
            pause = SEAL_SECONDS
            try:
                await asyncio.to_thread(self._turn)
            except (AgentAppError, psycopg.Error) as error:
                log.warning("audit_not_sealed", why=str(error).strip())
                await asyncio.to_thread(self._disconnect)
                pause = RETRY_SECONDS
            except Exception:
                log.exception("audit_not_sealed")
                pause = RETRY_SECONDS
            if stopping:
                break
            try:
                async with asyncio.timeout(pause):
                    await self._stop.wait()
            except TimeoutError:
                continue
        await asyncio.to_thread(self._disconnect)

    def stop(self) -> None:
        """Let `work` end."""
        self._stop.set()

    def _turn(self) -> None:
        if self._connection is None:
            self._connection = psycopg.connect(self._conninfo, autocommit=True)
        while seal_batch(self._connection, self._vault) == BATCH:
            pass
        head = read_head(self._connection)
        metrics.AUDIT_HEAD.set(head.number)
        metrics.AUDIT_FINGERPRINT.set(int(head.hash[:FINGERPRINT_DIGITS], 16))
        row = self._connection.execute(
            "SELECT extract(epoch FROM now() - min(at)) FROM app.audit_outbox"
        ).fetchone()
        metrics.AUDIT_BEHIND.set(float(row[0] or 0) if row else 0)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
