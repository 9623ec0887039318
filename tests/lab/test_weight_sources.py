"""`ops model stage` from a hub, by its real client on the host, and from a folder of the host."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub import COMMIT, Hub, served
from operators import ops
from stack import Stack, run_site

from ops.lab.fleet_plan import require_plan
from ops.models.inventory import wanted_entry

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

TOKEN = "hf_of_the_lab"
TOKEN_FILE = "/etc/engine/hub_token"
REPOSITORY = "org/demo"
STAGED = "/srv/models/demo/{}"


@pytest.fixture(scope="module")
def stack(stacks: Any) -> Stack:
    made: Stack = stacks(1, "bookworm")
    return made


@pytest.fixture
def hub(stack: Stack) -> Iterator[Hub]:
    """A hub that wants a token, named in the inventory as a site with a mirror does."""
    folder = wanted_entry(stack.lab.inventory, "demo")["source"].removeprefix("file://")
    settings = stack.lab.inventory / "group_vars/gpu.yml"
    assert not settings.exists()
    wanted = Hub(REPOSITORY, Path(folder), TOKEN)
    with served(wanted, require_plan(stack.lab.name).gateway) as running:
        settings.write_text(
            f"---\nengine_hub_endpoint: {running.address}\nengine_hub_token_file: {TOKEN_FILE}\n"
        )
        yield running
    settings.unlink()
    stack.lab.ssh("node1", f"rm -f {TOKEN_FILE}")


def stage(revision: str, source: str) -> tuple[str, ...]:
    return ("model", "stage", "demo", "--to", revision, "--source", source, "--yes")


def checksums(stack: Stack, revision: str) -> str:
    path = STAGED.format(revision)
    return stack.lab.ssh("node1", f"cd {path} && sha256sum $(ls -p | grep -v /)")


def test_a_hub_gives_a_revision_to_who_has_its_token(stack: Stack, hub: Hub) -> None:
    serving = wanted_entry(stack.lab.inventory, "demo")["revision"]
    stack.lab.ssh("node1", f"install -m 0600 /dev/null {TOKEN_FILE} && echo wrong >{TOKEN_FILE}")
    refused = ops(stack, *stage(COMMIT, f"hf://{REPOSITORY}"), status=1)
    assert "no token for a gated model" in refused.output
    assert COMMIT not in stack.lab.ssh("node1", "ls /srv/models/demo").split()
    assert hub.sent == {}
    stack.lab.ssh("node1", f"echo {TOKEN} >{TOKEN_FILE}")
    absent = ops(stack, *stage(COMMIT, "hf://org/nowhere"), status=1)
    assert "org/nowhere" in absent.output
    ops(stack, *stage(COMMIT, f"hf://{REPOSITORY}"))
    assert checksums(stack, COMMIT) == checksums(stack, serving)
    sizes = {name: path.stat().st_size for name, path in hub.files().items()}
    assert hub.sent == sizes, "each byte once"


def test_a_folder_of_the_host_is_a_source(stack: Stack) -> None:
    serving = wanted_entry(stack.lab.inventory, "demo")["revision"]
    stack.lab.ssh("node1", f"cp -r {STAGED.format(serving)} /srv/share && rm /srv/share/.manifest*")
    try:
        ops(stack, *stage("from-share", "host:///srv/share"))
        nowhere = ops(stack, *stage("from-nowhere", "host:///srv/nowhere"), status=2)
    finally:
        stack.lab.ssh("node1", "rm -r /srv/share")
    assert checksums(stack, "from-share") == checksums(stack, serving)
    assert "no such folder on node1" in nowhere.output


def test_what_was_staged_goes_with_a_prune_and_site_yml_never_noticed(stack: Stack) -> None:
    ops(stack, "model", "prune", "demo", "--keep", "0", "--yes")
    left = stack.lab.ssh("node1", "ls /srv/models/demo").split()
    assert not {COMMIT, "from-share"} & set(left)
    again = run_site(stack.lab, "--diff")
    assert (again.status, again.total("changed")) == (0, 0), again.output[-5000:]
