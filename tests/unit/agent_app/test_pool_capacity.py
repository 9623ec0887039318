import httpx2

from agent_app.agent.pool import EnginePool
from agent_app.config import Limits, Model


def pool(concurrency: int) -> EnginePool:
    model = Model(
        endpoints=("http://one:1", "http://two:2"),  # type: ignore[arg-type]
        concurrency=concurrency,
    )
    return EnginePool("demo", model, Limits(), httpx2.AsyncClient())


def test_an_endpoint_that_is_put_aside_takes_its_places_with_it() -> None:
    engines = pool(10)
    assert engines.capacity() == 20
    engines.endpoints[0].failed()
    assert engines.capacity() == 10
    engines.endpoints[1].failed()
    assert engines.capacity() == 10  # somebody has to find out that they are back
    engines.endpoints[0].succeeded()
    engines.endpoints[1].succeeded()
    assert engines.capacity() == 20


def test_no_bound_is_no_bound_however_engines_are() -> None:
    engines = pool(0)
    engines.endpoints[0].failed()
    assert engines.capacity() == 0
