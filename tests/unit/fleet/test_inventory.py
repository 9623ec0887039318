from pathlib import Path

import pytest

from ops.errors import InputError
from ops.fleet import load
from ops.places import ROOT
from ops.remote import ssh_config

INVENTORY = """
all:
  vars:
    environment_name: staging
    domain: "{{ environment_name }}.example.com"
    ansible_ssh_common_args: -o UserKnownHostsFile=/keys/known -J jump.example.com
    models:
      - {name: a, source: "hf://x/a", revision: r1}
      - {name: b, source: "hf://x/b", revision: r2}
  hosts:
    one: {ansible_host: 10.0.0.1, ansible_user: admin, ansible_become: true, ansible_port: 2222}
    two: {ansible_host: 10.0.0.2, private_address: 10.1.0.2}
  children:
    gpu: {hosts: {two: {}}}
    edge: {hosts: {one: {}}}
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yml"
    path.write_text(INVENTORY)
    return path


def test_templates_in_an_inventory_are_resolved(inventory: Path) -> None:
    assert load(inventory).domain == "staging.example.com"


def test_files_that_come_and_go_are_seen_by_a_process_that_looked_before(inventory: Path) -> None:
    before = load(inventory).domain
    variables = inventory.parent / "group_vars"
    variables.mkdir()
    (variables / "edge.yml").write_text("domain: edge.example.com\n")
    assert load(inventory).domain == "edge.example.com"
    (variables / "edge.yml").unlink()
    (variables / "gpu.yml").write_text("ansible_user: gpu\n")
    after = load(inventory)
    assert (after.domain, after.host("two").user) == (before, "gpu")


def test_a_host_carries_its_connection_and_groups(inventory: Path) -> None:
    host = load(inventory).host("one")
    assert (host.address, host.port, host.user, host.become) == ("10.0.0.1", 2222, "admin", True)
    assert host.groups == {"edge"}


def test_ports_of_models_follow_their_place_in_the_list(inventory: Path) -> None:
    second = load(inventory).first("gpu").models[1]
    assert (second.proxy_port, second.slot_port("blue"), second.slot_port("green")) == (
        8001,
        8102,
        8103,
    )
    assert str(second.weights) == "/srv/models/b/r2"


def test_a_fleet_listens_on_private_addresses_and_a_single_host_on_loopback(
    inventory: Path,
) -> None:
    fleet = load(inventory)
    assert fleet.listen_address(fleet.host("two")) == "10.1.0.2"
    example = load(ROOT / "inventories/example")
    assert example.listen_address(example.hosts[0]) == "127.0.0.1"


def test_the_ssh_config_says_what_the_inventory_says(inventory: Path) -> None:
    block = ssh_config(load(inventory)).split("Host two")[0]
    for line in ("HostName 10.0.0.1", "Port 2222", "User admin", "ProxyJump jump.example.com"):
        assert line in block
    assert "UserKnownHostsFile /keys/known" in block


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("all: {hosts: {}}", "no host"),
        ("all: {hosts: {one: {}}}", "domain is not set"),
        ("all: {hosts: {one: {}}, vars: {domain: x.org, models: [{name: a}]}}", "models[0] lacks"),
    ],
)
def test_a_wrong_inventory_is_named_with_its_cure(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "hosts.yml"
    path.write_text(text)
    with pytest.raises(InputError, match=message.replace("[", r"\[")) as error:
        load(path)
    assert error.value.place.startswith(str(tmp_path))
    assert error.value.cure


def test_a_missing_inventory_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["example", "fleet"])
def test_shipped_inventories_fill_every_group(name: str) -> None:
    fleet = load(ROOT / "inventories" / name)
    assert all(fleet.group(group) for group in ("gpu", "agent", "data", "edge", "monitoring"))
