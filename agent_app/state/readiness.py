"""Whether this process can serve: database, both Redis databases and engine, truly asked."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import uuid4

import redis.asyncio as redis

from agent_app.agent.engine import EngineFailure
from agent_app.agent.pool import EnginePool
from agent_app.config import Config
from agent_app.errors import DatabaseUnavailable
from agent_app.knowledge.semantic import Semantic
from agent_app.state.database import Pool, database_errors
from agent_app.tools.assembly import Remote

CHECK_SECONDS = 3.0
PROBE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `why` is empty when all is well."""

    name: str
    why: str = ""
    required: bool = True


class EngineCheck:
    """A real one-token completion, asked at most once per interval however many ask us."""

    def __init__(self, pool: EnginePool, *, every_seconds: float) -> None:
        self._pool = pool
        self._every = every_seconds
        self._lock = asyncio.Lock()
        self._asked_at = float("-inf")
        self._why = ""

    async def why_not_ready(self) -> str:
        """Return "" if the engine answered lately, else why it did not."""
        async with self._lock:
            if time.monotonic() - self._asked_at >= self._every:
                self._why = await self._ask()
                self._asked_at = time.monotonic()
            return self._why

    async def _ask(self) -> str:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._pool.probe(f"ready-{uuid4().hex[:12]}")
        except EngineFailure as failure:
            return f"the engine failed: {failure.reason}"
        except TimeoutError:
            return f"the engine gave no token within {PROBE_SECONDS:.0f} s"
        return ""


class Readiness:
    """All checks of this process."""

    def __init__(
        self,
        config: Config,
        pool: Pool,
        caches: dict[str, redis.Redis],
        engines: dict[str, EnginePool],
        servers: Sequence[Remote] = (),
        *,
        semantic: Semantic | None = None,
        may_degrade: Callable[[str], bool] = lambda _model: False,
    ) -> None:
        self._semantic = semantic
        self._may_degrade = may_degrade
        self._default = config.default_model
        self._pool = pool
        self._caches = caches
        self._servers = servers
        every = config.limits.ready_probe_seconds
        self._engines = {
            name: EngineCheck(engine, every_seconds=every) for name, engine in engines.items()
        }

    async def check(self) -> list[Finding]:
        """Ask everything at once; MCP servers are watched anyway, so they are not asked."""
        asked = await asyncio.gather(
            self._check_database(),
            *(self._check_redis(name, client) for name, client in self._caches.items()),
            *(self._check_engine(name) for name in self._engines),
            *([self._check_semantic(self._semantic)] if self._semantic else ()),
        )
        servers = [Finding(f"mcp_{s.name}", s.why_down, required=False) for s in self._servers]
        return [*asked, *servers]

    async def _check_database(self) -> Finding:
        try:
            async with (
                asyncio.timeout(CHECK_SECONDS),
                database_errors(),
                self._pool.connection() as connection,
            ):
                await connection.execute("SELECT 1 FROM app.runs LIMIT 1")
        except (TimeoutError, DatabaseUnavailable):
            return Finding("database", "PostgreSQL does not answer")
        except Exception as error:
            return Finding("database", f"PostgreSQL refuses: {type(error).__name__}")
        return Finding("database")

    async def _check_redis(self, name: str, client: redis.Redis) -> Finding:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await client.ping()
        except (TimeoutError, redis.RedisError, OSError) as error:
            return Finding(name, f"Redis does not answer: {type(error).__name__}")
        return Finding(name)

    async def _check_engine(self, name: str) -> Finding:
        why = await self._engines[name].why_not_ready()
        required = name == self._default and not self._may_degrade(name)
        return Finding(f"engine_{name}", why, required=required)

    async def _check_semantic(self, semantic: Semantic) -> Finding:
        """Without it the knowledge base is searched by words alone: worse, but not down."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                why = await semantic.why_off()
        except (TimeoutError, DatabaseUnavailable):
            why = "its endpoint or the database does not answer"
        said = f"semantic search is off: {why}; full text serves" if why else ""
        return Finding("semantic_search", said, required=False)
