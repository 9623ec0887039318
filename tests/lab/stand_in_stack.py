"""A stack whose engines are the stand-in, with an edge that takes a load, in a lab of its own."""

import contextlib
from collections.abc import Callable, Iterator

from stack import Lab, Stack, run_site

from ops.demo.prepare import ensure_key
from ops.lab.fleet_plan import require_plan

SETTINGS = {
    "gpu": "engine_kind: stand_in\nengine_environment: stand-in\n"
    "engine_find_links: [/srv/wheelhouse]\n",
    "edge": "nginx_requests_per_second: 1000\nnginx_request_burst: 200\nnginx_connections: 200\n",
}


@contextlib.contextmanager
def stand_in_stack(
    labs: Callable[..., Lab],
    hosts: int = 1,
    image: str = "bookworm",
    gpu: str = "",
    more: str = "",
    purpose: str = "stand-in",
) -> Iterator[Stack]:
    """Converge it, with `more` in the inventory's variables, and leave the inventory as it was."""
    made = Stack(labs(hosts, image, gpu, purpose=purpose))
    files = {made.lab.inventory / f"group_vars/{name}.yml": text for name, text in SETTINGS.items()}
    for path, text in files.items():
        path.write_text(f"---\n{text}")
    all_vars = made.lab.inventory / "group_vars/all.yml"
    before = all_vars.read_text()
    all_vars.write_text(before + more)
    try:
        first = run_site(
            made.lab, "-e", "engine_accept_restart=true", "-e", "agent_app_accept_restart=true"
        )
        assert first.status == 0, first.output[-6000:]
        made.key = ensure_key(made.fleet, require_plan(made.lab.name).paths.root / "test_key")
        made.wait_until_ready()
        yield made
    finally:
        for path in files:
            path.unlink()
        all_vars.write_text(before)


def assert_site_changes_nothing(stack: Stack, *arguments: str) -> None:
    again = run_site(stack.lab, "--diff", *arguments)
    assert (again.status, again.total("changed")) == (0, 0), again.output[-5000:]
