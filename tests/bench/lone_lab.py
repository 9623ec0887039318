"""A lab that one benchmark has to itself."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator

from stack import Lab

from ops.places import ROOT


@contextlib.contextmanager
def lone_lab(name: str) -> Iterator[Callable[..., Lab]]:
    """Boot it when asked, as the fixture `labs` does, and take it down unless it is to be kept."""

    def run(verb: str, *words: str) -> None:
        command = ["ops", "lab", verb, "--name", name, *words]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True)

    def boot(hosts: int, image: str, _gpu: str = "", *, purpose: str = "") -> Lab:
        run("up", "--hosts", str(hosts), "--image", image)
        nodes = [f"node{number}" for number in range(1, hosts + 1)]
        return Lab(name, ROOT / "inventories" / f"lab-{name}", nodes)

    try:
        yield boot
    finally:
        if os.environ.get("RACKHAND_KEEP_LAB") != "1":
            run("down")
