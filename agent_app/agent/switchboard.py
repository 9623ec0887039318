"""What a run asks for completions: its route, with the cache of answers before it."""

from collections.abc import Callable

from agent_app.agent.cache import AnswerCache, CachedRoute, Wish
from agent_app.agent.router import Router
from agent_app.agent.routing import Errand, Route


class Switchboard:
    """Connects each run.

    Args:
        router: Where its steps go.
        cache: None where nothing is kept.
    """

    def __init__(self, router: Router, cache: AnswerCache | None) -> None:
        self.router = router
        self._cache = cache

    def connect(
        self, model: str, errand: Errand, wish: Wish, tell: Callable[[str], None], *, resumed: bool
    ) -> Route | CachedRoute:
        """Return what the run streams from.

        Args:
            model: The run's.
            errand: For whom.
            wish: What its client wants of the cache.
            tell: Called once with what the cache did: `hit`, `miss`, `bypass`, "" if there is none.
            resumed: The run goes on from a checkpoint.
        """
        route = self.router.open(model, errand)
        if self._cache is None:
            tell("")
            return route
        if resumed:  # known at once, and its next step may be a long tool call
            tell("bypass")
        return self._cache.before(route, wish, tell, resumed=resumed)
