"""The record of what is installed and what was before: the way back depends on it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible_collections.rackhand.host.plugins.module_utils.driver_record import (
    advance,
    is_older,
    render,
    replace,
    state,
)

OLD = state("archive", {"nvidia-utils-580-server": "580.126.09-1"})
NEW = state("archive", {"nvidia-utils-595-server": "595.91.07-1"})


def test_a_state_tells_channel_branch_version_and_kind() -> None:
    packages = {
        "nvidia-utils-580-server": "580.178.04-0ubuntu0.24.04.1",
        "linux-modules-nvidia-580-server-open-6.8.0-90-generic": "6.8.0-90.91",
        "linux-image-generic": "6.8.0-90.91",
    }
    assert state("", packages) == {
        "channel": "archive",
        "branch": "580",
        "version": "580.178.04",
        "module": "open",
        "packages": packages,
    }
    assert state("", {"nvidia-kernel-dkms": "580.178.04-1"})["channel"] == "cuda"
    assert state("cuda", {}) == {}


def test_a_first_installation_has_nothing_before_it() -> None:
    assert advance("", NEW, {}) == {**NEW, "previous": {}}


def test_a_driver_that_a_person_installed_is_what_was_before() -> None:
    assert advance("", NEW, OLD)["previous"] == OLD


def test_an_upgrade_keeps_the_state_before_it_and_none_before_that() -> None:
    first = render(advance("", OLD, {}))
    second = advance(first, NEW, OLD)
    assert second["previous"] == OLD


def test_a_run_that_changed_nothing_keeps_the_way_back() -> None:
    record = render(advance(render(advance("", OLD, {})), NEW, OLD))
    assert render(advance(record, NEW, NEW)) == record


def test_a_run_that_died_before_it_wrote_loses_no_way_back() -> None:
    before = render(advance("", OLD, {}))
    # The packages are the new ones already, and the record is still the old one.
    assert advance(before, NEW, NEW)["previous"] == OLD


def test_a_damaged_record_is_begun_anew() -> None:
    assert advance("{half", NEW, OLD) == {**NEW, "previous": OLD}


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "facts.d" / "x.fact"
    replace(str(target), render(NEW))
    stored: dict[str, Any] = json.loads(target.read_text())
    assert stored == NEW
    assert list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == 0o644


def test_an_image_is_older_than_a_file_that_changed_after_it(tmp_path: Path) -> None:
    image, source = tmp_path / "initrd", tmp_path / "conf"
    assert not is_older(str(image), [str(source)]), "there is no image to rebuild"
    source.write_text("x")
    image.write_text("y")
    assert not is_older(str(image), [str(source)])
    os.utime(image, ns=(0, source.stat().st_ctime_ns - 1))
    assert is_older(str(image), [str(source)])
    assert not is_older(str(image), [str(tmp_path / "absent")])
