"""What dpkg leaves half done, asked of a dpkg of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.doctor.evidence import command, machine


@pytest.fixture
def dpkg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    made = tmp_path / "dpkg"
    made.touch(mode=0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setitem(command.ENVIRONMENT, "PATH", path)
    return made


def test_a_warning_of_dpkg_is_no_package(dpkg: Path) -> None:
    dpkg.write_text(
        "#!/bin/sh\necho 'dpkg: warning: failed to open /root/.dpkg.cfg: Permission denied' >&2\n"
    )
    assert machine.packages()["audit"] == ""


def test_a_package_that_is_half_configured_is(dpkg: Path) -> None:
    dpkg.write_text("#!/bin/sh\necho 'only half configured:'; echo ' nvidia-dkms-580'\n")
    assert "nvidia-dkms-580" in machine.packages()["audit"]
