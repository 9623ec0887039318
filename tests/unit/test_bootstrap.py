import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from ops.places import ROOT


@pytest.fixture(scope="module")
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "scripts/bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_settings_of_pip_reach_uv(bootstrap: ModuleType, tmp_path: Path) -> None:
    settings = "\n".join(
        [
            "global.index-url='https://mirror.example.com/simple'",
            f"global.extra-index-url='\\nfile://{tmp_path}\\nfile:///nowhere/simple'",
            "global.cert='/etc/ssl/site.pem'",
            f":env:.find-links='{tmp_path}'",
        ]
    )
    assert bootstrap.uv_settings(settings) == {
        "UV_DEFAULT_INDEX": "https://mirror.example.com/simple",
        "UV_INDEX": f"file://{tmp_path}",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": str(tmp_path),
        "SSL_CERT_FILE": "/etc/ssl/site.pem",
    }


def test_a_variable_of_pip_wins_over_its_file(bootstrap: ModuleType) -> None:
    settings = "global.index-url='https://one.example'\n:env:.index-url='https://two.example'"
    assert bootstrap.uv_settings(settings)["UV_DEFAULT_INDEX"] == "https://two.example"


def test_no_settings_of_pip_leave_uv_alone(bootstrap: ModuleType) -> None:
    assert bootstrap.uv_settings("") == {}


def test_without_root_missing_packages_are_named_with_the_cure(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as leaving:
        bootstrap.install_packages(["mmdebstrap", "nftables"])
    assert leaving.value.code == 1
    assert "sudo apt-get install -y --no-install-recommends mmdebstrap nftables" in (
        capsys.readouterr().err
    )


def test_an_uninstalled_package_is_missing_and_dpkg_is_not(bootstrap: ModuleType) -> None:
    assert bootstrap.missing_packages(("dpkg", "no-such-package")) == ["no-such-package"]


@pytest.mark.parametrize(("system", "browser"), [("debian", True), ("ubuntu", False)])
def test_the_tests_browser_is_asked_for_only_where_it_is_a_package(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, system: str, browser: bool
) -> None:
    monkeypatch.setattr(bootstrap.platform, "freedesktop_os_release", lambda: {"ID": system})
    packages = bootstrap.packages_for_tests()
    assert ("chromium" in packages) is browser
    assert "postgresql" in packages


def test_an_old_python_is_refused_with_the_cure(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 2))
    assert bootstrap.main([]) == 1
    assert "3.11 or newer" in capsys.readouterr().err


def test_uv_is_pinned_alike_in_both_locks() -> None:
    pins = {
        re.search(r"^uv==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE)[1]
        for name in ("uv.lock", "dev.lock")
    }
    assert len(pins) == 1


def test_locks_have_the_wheels_of_every_python_that_hosts_have() -> None:
    for lock in ("requirements/dev.lock", "agent_app/requirements.lock"):
        pins = re.split(r"^(?=\S+==)", (ROOT / lock).read_text(), flags=re.MULTILINE)
        (compiled,) = [pin for pin in pins if pin.startswith("uvloop==")]
        assert compiled.count("--hash=") > 20, f"{lock}: of one Python's wheel only"
