"""Makes the route of each run, by the policy of its model."""

from agent_app.access.admission import Visit
from agent_app.agent.cloud import CloudEngine
from agent_app.agent.outing import Outings
from agent_app.agent.pool import EnginePool
from agent_app.agent.routing import Errand, Route
from agent_app.config import Config


class Router:
    """Makes the route of each run.

    Args:
        config: The policies.
        engines: Our own, by model.
        clouds: By model.
        outings: Admits and accounts for what goes to them.
    """

    def __init__(
        self,
        config: Config,
        engines: dict[str, EnginePool],
        clouds: dict[str, CloudEngine],
        outings: Outings,
    ) -> None:
        self._config = config
        self._engines = engines
        self._clouds = clouds
        self._outings = outings

    def open(self, model: str, errand: Errand) -> Route:
        """Return the route of a run."""
        return Route(
            self._engines[model],
            self._config.routes.get(model),
            self._clouds.get(model),
            self._outings,
            errand,
            self._config.limits,
        )

    async def choose_model(self, model: str, visit: Visit, correlation: str) -> str:
        """Return the model for a new run: a cheaper one beyond the key's medium budget."""
        policy = self._config.routes.get(model)
        if policy is None or visit.level != "medium" or policy.over_medium in ("local", "cloud"):
            return model
        await self._outings.note_move(visit, model, policy.over_medium, correlation)
        return policy.over_medium

    def may_degrade(self, model: str) -> bool:
        """Return whether requests are served while the model's own engines are down."""
        policy, cloud = self._config.routes.get(model), self._clouds.get(model)
        return (
            policy is not None
            and cloud is not None
            and "unavailable" in policy.degrade_on
            and cloud.breaker.lets_through
        )
