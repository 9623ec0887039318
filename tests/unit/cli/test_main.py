import subprocess
import sys
from pathlib import Path

import pytest
import typer

from ops.cli.main import COMMANDS
from ops.places import ROOT

OPS = Path(sys.executable).parent / "ops"


def ops(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(OPS), *arguments],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environment},
        check=False,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_root_can_be_imported_and_has_help(name: str) -> None:
    assert isinstance(COMMANDS[name].load(), typer.Typer)
    result = ops(name, "--help")
    assert result.returncode == 0, result.stderr
    assert "Usage: ops" in result.stdout


def test_help_imports_no_command_and_nothing_heavy() -> None:
    code = (
        "import sys; from ops.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'rich', 'ansible', 'fabric', 'pydantic', 'ops.cli.lab'} & sys.modules.keys()\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_version_names_the_tool() -> None:
    assert ops("--version").stdout.startswith("ops 0.")


def test_a_mistyped_command_exits_2_with_a_suggestion() -> None:
    result = ops("verfy")
    assert result.returncode == 2
    assert "verify" in result.stderr


def test_an_error_has_place_and_cure_and_no_traceback() -> None:
    result = ops("provision", "-i", "/nowhere")
    assert result.returncode == 2
    assert "error: the inventory does not exist" in result.stderr
    assert "where: /nowhere" in result.stderr
    assert "cure:" in result.stderr
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback() -> None:
    assert "Traceback" in ops("--debug", "provision", "-i", "/nowhere").stderr


def test_no_colour_is_printed_when_it_is_not_wanted() -> None:
    stderr = ops("provision", "-i", "/nowhere", NO_COLOR="1", FORCE_COLOR="1").stderr
    assert "\x1b[1;31m" not in stderr


def test_the_checkout_is_found_from_anywhere() -> None:
    assert (ROOT / "playbooks/site.yml").is_file()
