"""Clients whose every turn opens a ticket, and who go on, as they are told, until it is done.

They know what was acknowledged to them: the matrix of faults holds it against the database.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx2
from stack import Event, Stack
from traffic import at_work

GIVE_UP_SECONDS = 240.0
AGAIN_SECONDS = 0.5
SCRIPT = "/etc/engine/script.yml"
DROP_IN = "/etc/systemd/system/engine@.service.d/orders.conf"
ANSWER = "The ticket is open, and somebody will look at it before the day is over. " * 3
#: What the stand-in engine answers to an order: a call of the tool, then text.
RULES = (
    "answers: [{match: '^Order ', tool: create_ticket, arguments: {title: An order, body: Please}, "
    f"text: '{ANSWER.strip()}'}}]"
)


@dataclass
class Order:
    """One turn in a thread of its own: how often it was interrupted, and what was acknowledged."""

    thread: str
    began: float
    interrupted: list[str] = field(default_factory=list)
    done: str = ""


@dataclass
class Orders:
    """Clients that order one after another until they are told to end."""

    stack: Stack
    clients: int
    orders: list[Order] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Be one client."""
        while not self.over.is_set():
            order = Order(str(uuid.uuid4()), time.monotonic())
            self.orders.append(order)
            self._until_done(order)
            time.sleep(0.2)

    def _until_done(self, order: Order) -> None:
        """Ask; whatever breaks off, resume; where nothing was begun, ask again."""
        ask = {"message": f"Order {order.thread}", "thread_id": order.thread}
        resume = {"thread_id": order.thread, "resume": True}
        body: dict[str, object] = dict(ask)
        end = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < end:
            heard, why = self._ask(body)
            if heard and heard[-1][0] == "done":
                order.done = str(heard[-1][1]["content"])
            elif "nothing_to_resume" in why:  # it had come to its end, unheard
                order.done = self._read(order.thread)
            if order.done:
                return
            order.interrupted.append(why or _end_of(heard))
            body = dict(ask) if "not_found" in why else dict(resume)
            time.sleep(AGAIN_SECONDS)

    def _read(self, thread: str) -> str:
        """Return the answer that a thread ends with, as a client looks it up."""
        sni = {"sni_hostname": self.stack.fleet.domain}
        with contextlib.suppress(httpx2.HTTPError), self.stack.client() as client:
            told = client.get(f"/threads/{thread}", extensions=sni)
            if told.status_code == 200 and told.json()["messages"]:
                last = told.json()["messages"][-1]
                return str(last["content"]) if last["role"] == "assistant" else ""
        return ""

    def _ask(self, body: dict[str, object]) -> tuple[list[Event], str]:
        try:
            return self.stack.chat(body), ""
        except AssertionError as refused:
            return [], str(refused)[:200]
        except httpx2.HTTPError as problem:
            return [], repr(problem)

    @property
    def acknowledged(self) -> list[Order]:
        """Those of which the client heard the end."""
        return [order for order in self.orders if order.done]

    @property
    def interruptions(self) -> int:
        """How often an answer broke off or was refused."""
        return sum(len(order.interrupted) for order in self.orders)


def _end_of(heard: list[Event]) -> str:
    return f"ended with {heard[-1]}"[:200] if heard else "the stream was cut before its first event"


@contextlib.contextmanager
def ordering(stack: Stack, clients: int = 2) -> Iterator[Orders]:
    """Keep clients ordering meanwhile; the orders under way are brought to their end."""
    running = Orders(stack, clients)
    with at_work(running.run, running.over, clients, patience=GIVE_UP_SECONDS + 30):
        yield running


def teach_engines(stack: Stack) -> None:
    """Have the stand-in engines of all hosts answer orders by a call of the tool."""
    setting = f"[Service]\\nEnvironment=STAND_IN_SCRIPT={SCRIPT}\\n"
    for host in stack.fleet.group("gpu"):
        stack.lab.ssh(
            host.name,
            f'mkdir -p $(dirname {DROP_IN}); echo "{RULES}" >{SCRIPT}; '
            f"printf '{setting}' >{DROP_IN}; systemctl daemon-reload; "
            "systemctl restart 'engine@*.service'",
        )
    stack.wait_until_ready()


def forget(stack: Stack) -> None:
    """Leave the engines as their role did."""
    for host in stack.fleet.group("gpu"):
        stack.lab.ssh(host.name, f"rm -f {DROP_IN} {SCRIPT}; systemctl daemon-reload")
