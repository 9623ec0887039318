"""What a killed `ops lab down` may leave, so that the next `up` finds hosts it can speak to."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.lab import host, network, paths, reconcile
from ops.lab.cgroup import Group
from ops.lab.fleet_plan import LabPlan


class PowerLossError(Exception):
    """Stands for the death of the command."""


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabPlan:
    monkeypatch.setattr(paths, "STATE", tmp_path / "state")
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path / "checkout")
    monkeypatch.setattr(Group, "remove", lambda self: None)
    monkeypatch.setattr(network, "remove_network", lambda plan: None)
    plan = LabPlan("remains", 4, "bookworm", 1)
    for folder in ("ssh", "hosts/node1", "acme"):
        (plan.paths.root / folder).mkdir(parents=True)
    plan.save()
    return plan


@pytest.mark.parametrize("deaths", range(1, 6))
def test_a_host_never_outlives_its_identity(
    plan: LabPlan, deaths: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = deaths

    def discard(folder: Path) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise PowerLossError
        host.discard_tree(folder)

    monkeypatch.setattr(reconcile, "discard_tree", discard)
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(self.glob("*"), reverse=True)))
    try:
        reconcile.down("remains", lambda _: None)
    except PowerLossError:
        assert plan.paths.private_key.parent.exists() or not plan.paths.hosts.exists()
    else:
        assert not plan.paths.root.exists()


def test_a_key_takes_its_name_when_it_is_whole(plan: LabPlan) -> None:
    orphan = host.host_key_path(plan, plan.hosts[0])
    orphan.write_text("half of a key, whose command was killed")
    host.ensure_keys(plan)
    public = orphan.with_suffix(".pub").read_text().split()[1]
    assert "OPENSSH PRIVATE KEY" in orphan.read_text()
    assert public in plan.paths.known_hosts.read_text()
    assert sorted(path.name for path in orphan.parent.iterdir()) == sorted(
        [
            "known_hosts",
            *("id_ed25519", "id_ed25519.pub"),
            *(name for each in plan.hosts for name in (f"host_{each}", f"host_{each}.pub")),
        ]
    )
