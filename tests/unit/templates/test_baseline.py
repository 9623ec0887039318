"""What module baseline tightens, and that it never loosens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.rackhand.host.plugins.filter.address_inside import address_inside
from ansible_collections.rackhand.host.plugins.modules.baseline import Baseline


class Module:
    """As much of an AnsibleModule as is asked."""

    def __init__(self, check_mode: bool = False) -> None:
        self.check_mode = check_mode
        self.ran: list[str] = []

    def run_command(self, command: list[str], check_rc: bool = False) -> tuple[int, str, str]:
        self.ran.append(" ".join(command))
        return 0, "", ""


def baseline(check_mode: bool = False) -> Any:
    module: Any = Module(check_mode)
    return Baseline(module)


UMASK = {"path": "", "key": "UMASK", "line": "UMASK 027"}


def test_a_line_takes_the_place_of_the_first_that_its_key_begins(tmp_path: Path) -> None:
    path = tmp_path / "login.defs"
    path.write_text("# UMASK is below\nUMASK\t\t022\nERASECHAR 0177\n")
    path.chmod(0o640)
    work = baseline()
    work.ensure_lines(str(path), [UMASK])
    assert path.read_text() == "# UMASK is below\nUMASK 027\nERASECHAR 0177\n"
    assert path.stat().st_mode & 0o777 == 0o640
    again = baseline()
    again.ensure_lines(str(path), [UMASK])
    assert again.changes == []


def test_a_line_that_is_not_there_is_added_and_check_mode_only_tells(tmp_path: Path) -> None:
    path = tmp_path / "login.defs"
    path.write_text("ERASECHAR 0177\n")
    work = baseline(check_mode=True)
    work.ensure_lines(str(path), [UMASK])
    assert work.changes == [str(path)]
    assert path.read_text() == "ERASECHAR 0177\n"
    baseline().ensure_lines(str(path), [UMASK])
    assert path.read_text() == "ERASECHAR 0177\nUMASK 027\n"


def test_a_mode_loses_bits_and_never_gains_any(tmp_path: Path) -> None:
    loose, tight = tmp_path / "loose", tmp_path / "tight"
    for path, mode in ((loose, 0o644), (tight, 0o400)):
        path.touch()
        path.chmod(mode)
        baseline().ensure_mode(str(path), 0o640)
    assert loose.stat().st_mode & 0o777 == 0o640
    assert tight.stat().st_mode & 0o777 == 0o400


def test_a_file_system_is_mounted_again_only_where_it_lacks_an_option() -> None:
    work = baseline()
    work.ensure_mount("/proc", ["rw"])
    work.ensure_mount("/no/such/mount", ["noexec"])
    assert work.changes == []
    work.ensure_mount("/proc", ["rw", "no-such-option"])
    assert work.module.ran == ["mount -o remount,rw,no-such-option /proc"]


def test_an_address_is_inside_its_network_and_no_other() -> None:
    assert address_inside("198.51.100.7", ["10.0.0.0/8", "198.51.100.0/24"])
    assert address_inside("fe80::1%eth0", ["fe80::/10"])
    assert not address_inside("203.0.113.7", ["198.51.100.0/24", "203.0.113.8"])
