"""The matrix: which fault strikes whom at which moment, and what is promised then.

Bounds are seconds from the fault's end (of what is over at once: from the fault) until every unit,
every engine and the edge answer as before with no hand on them. On a machine of two shared cores
they are generous: what a host takes to boot and its engine to start, or an app's probes to notice.
"""

from dataclasses import dataclass

ENGINE_BACK = 30.0
APP_BACK = 45.0
DATABASE_BACK = 60.0
HOST_BACK = 120.0
NETWORK_BACK = 30.0

ONE_ENGINE = "one engine, which is waited for"
ONE_EDGE = "one edge"
ONE_DATABASE = "one database"
TWO_ENGINES = "two engines"
TWO_INSTANCES = "two instances of the app"


@dataclass(frozen=True)
class Cell:
    """A fault at a moment.

    Attributes:
        fault: As `ops chaos` names it.
        target: Its target.
        moment: One of moments.py.
        bound: Seconds until all is as before.
        stands: What stands beside what is struck.
        flying: Requests under way at that instant that may be lost with it; None: no request is
            promised anything, as there is no second one of what is struck.
        hold: Seconds that the fault lasts; 0: it is over at once.
        more: Further words of `ops chaos inject`.
    """

    fault: str
    target: str
    moment: str
    bound: float
    stands: str
    flying: int | None = None
    hold: float = 0.0
    more: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.moment}-{self.fault}-{self.target}".replace("*", "").replace("/", "_")


CLIENTS = 4
IN_FLIGHT = CLIENTS + 2
"""Each client has one request under way: four of the load, two that order.

They are lost with the instance of the app that holds their streams. An engine's death costs none:
another one, or the same one when it is back, goes on with a stream of /v1, and one of /chat is
retracted and begun anew.
"""

ONE_HOST = (
    Cell("kill", "node1:engine@demo-*", "idle", ENGINE_BACK, ONE_ENGINE),
    Cell("kill", "node1:engine@demo-*", "load", ENGINE_BACK, ONE_ENGINE, 0),
    Cell("hang", "node1:engine@demo-*", "load", ENGINE_BACK, ONE_ENGINE, 0, hold=8),
    Cell("kill", "node1:agent_app@8200.service", "load", APP_BACK, TWO_INSTANCES, IN_FLIGHT),
    Cell("stop", "node1:agent_app@8200.service", "load", APP_BACK, TWO_INSTANCES, 0, hold=8),
    Cell("hang", "node1:agent_app@8200.service", "load", APP_BACK, TWO_INSTANCES, IN_FLIGHT,
         hold=8),
    Cell("kill", "node1:nginx.service", "load", ENGINE_BACK, ONE_EDGE),
    Cell("kill", "node1:postgresql@*", "idle", DATABASE_BACK, ONE_DATABASE),
    Cell("kill", "node1:postgresql@*", "load", DATABASE_BACK, ONE_DATABASE),
    Cell("stop", "node1:postgresql@*", "load", DATABASE_BACK, ONE_DATABASE, hold=8),
    Cell("kill", "node1:redis-server@cache.service", "load", DATABASE_BACK,
         "requests do without the cache", 0),
    Cell("kill", "node1:redis-server@state.service", "load", DATABASE_BACK,
         "limits open while Redis is away", 0),
    Cell("stop", "node1:redis-server@state.service", "load", DATABASE_BACK,
         "limits open while Redis is away", 0, hold=8),
    Cell("net-cut", "node1", "load", NETWORK_BACK, ONE_EDGE, hold=6),
    Cell("net-loss", "node1", "load", NETWORK_BACK, "TCP sends again", 0, hold=10,
         more=("--amount", "10")),
    Cell("net-delay", "node1", "load", NETWORK_BACK, "TCP waits", 0, hold=10,
         more=("--amount", "20")),
    Cell("disk-full", "node1:/var/lib/postgresql", "load", DATABASE_BACK, ONE_DATABASE, hold=15),
    Cell("clock", "node1:agent_app@8200.service", "load", APP_BACK, TWO_INSTANCES, 0, hold=10),
    Cell("cert-expired", "edge", "idle", DATABASE_BACK, ONE_EDGE, hold=1),
    Cell("acme-down", "outside", "load", NETWORK_BACK, "the certificate that is there", 0, hold=5),
    Cell("power-cut", "node1", "idle", HOST_BACK, "one host"),
    Cell("power-cut", "node1", "load", HOST_BACK, "one host"),
    Cell("kill", "node1:engine@demo-*", "upgrade", ENGINE_BACK, ONE_ENGINE, 0),
    Cell("kill", "node1:postgresql@*", "upgrade", DATABASE_BACK, ONE_DATABASE),
    Cell("power-cut", "node1", "upgrade", HOST_BACK, "one host"),
    Cell("kill", "node1:agent_app@8200.service", "restart", APP_BACK, TWO_INSTANCES, IN_FLIGHT),
    Cell("kill", "node1:redis-server@state.service", "site", DATABASE_BACK,
         "limits open while Redis is away", 0),
    Cell("power-cut", "node1", "site", HOST_BACK, "one host"),
    Cell("kill", "node1:postgresql@*", "backup", DATABASE_BACK, ONE_DATABASE),
    Cell("disk-full", "node1:/var/lib/postgresql", "backup", DATABASE_BACK, ONE_DATABASE, hold=15),
)  # fmt: skip
FOUR_HOSTS = (
    Cell("kill", "node2:engine@demo-*", "load", ENGINE_BACK, TWO_ENGINES, 0),
    Cell("stop", "node2:engine@demo-*", "load", ENGINE_BACK, TWO_ENGINES, 0, hold=10),
    Cell("hang", "node2:engine@demo-*", "load", ENGINE_BACK, TWO_ENGINES, 0, hold=10),
    Cell("power-cut", "node2", "load", HOST_BACK, TWO_ENGINES, 0),
    Cell("power-off", "node2", "load", HOST_BACK, TWO_ENGINES, 0, hold=15),
    Cell("net-cut", "node1:node2", "load", NETWORK_BACK, TWO_ENGINES, 0, hold=15),
    Cell("net-loss", "node2", "load", NETWORK_BACK, "TCP sends again", 0, hold=10),
    Cell("kill", "node1:agent_app@8200.service", "load", APP_BACK, TWO_INSTANCES, IN_FLIGHT),
    Cell("power-cut", "node3", "load", HOST_BACK, ONE_DATABASE),
    Cell("net-cut", "node1:node3", "load", NETWORK_BACK, ONE_DATABASE, hold=8),
    Cell("power-cut", "node1", "load", HOST_BACK, ONE_EDGE),
    Cell("kill", "node2:engine@demo-*", "upgrade", ENGINE_BACK, TWO_ENGINES, 0),
    Cell("power-cut", "node2", "upgrade", HOST_BACK, TWO_ENGINES, 0),
    Cell("power-cut", "node3", "upgrade", HOST_BACK, ONE_DATABASE),
    Cell(
        "kill", "node4:engine@demo-*", "restart", ENGINE_BACK, "the engine that restarts is out", 0
    ),
    Cell("power-cut", "node2", "restart", HOST_BACK, "the engine that restarts is out"),
    Cell("net-cut", "node2", "site", NETWORK_BACK, TWO_ENGINES, 0, hold=15),
    Cell("kill", "node2:engine@demo-*", "site", ENGINE_BACK, TWO_ENGINES, 0),
    Cell("power-cut", "node3", "backup", HOST_BACK, ONE_DATABASE),
)
