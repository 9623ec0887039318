"""The audit of locks can fail, and says why."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ops.places import ROOT

HASH = "--hash=sha256:" + "0" * 64
RECORD = {
    "source": "test",
    "date": "2026-11-01",
    "covers": ["left-pad", "jinja2"],
    "packages": {
        "left-pad": [
            {
                "id": "PYSEC-1",
                "aliases": [],
                "words": "pads to the right",
                "ranges": [
                    {"introduced": "1.2", "fixed": "1.4"},
                    {"introduced": "2", "last_affected": "2.1"},
                ],
                "versions": ["0.9"],
            }
        ]
    },
}


def audit(
    folder: Path, pin: str, explained: str = "[]", today: str = "2026-11-20"
) -> tuple[int, str]:
    (folder / "x.lock").write_text(f"{pin} \\\n    {HASH}\n")
    (folder / "record.json").write_text(json.dumps(RECORD))
    (folder / "audit.yml").write_text(explained)
    command = [sys.executable, "scripts/audit.py", str(folder / "x.lock"), "--today", today]
    command += ["--record", str(folder / "record.json"), "--explained", str(folder / "audit.yml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("version", ["0.9", "1.2", "1.3.9", "1.4rc1", "2.0", "2.1", "1.3+cpu"])
def test_an_affected_version_fails(tmp_path: Path, version: str) -> None:
    code, said = audit(tmp_path, f"left-pad=={version}")
    assert code == 1
    assert "PYSEC-1: pads to the right" in said


@pytest.mark.parametrize("version", ["1.0", "1.4", "1.9", "2.2"])
def test_a_version_before_or_after_it_passes(tmp_path: Path, version: str) -> None:
    assert audit(tmp_path, f"left-pad=={version}")[0] == 0


def test_the_real_record_knows_a_pin_that_is_known_to_be_vulnerable(tmp_path: Path) -> None:
    (tmp_path / "x.lock").write_text(f"jinja2==2.7.1 \\\n    {HASH}\n")
    command = [sys.executable, "scripts/audit.py", str(tmp_path / "x.lock")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "PYSEC-2014-8" in done.stdout


def test_an_explanation_counts_until_its_day(tmp_path: Path) -> None:
    why = "[{id: PYSEC-1, package: left-pad, until: 2026-11-20, reason: never called}]"
    assert audit(tmp_path, "left-pad==1.3", why, "2026-11-20")[0] == 0
    code, said = audit(tmp_path, "left-pad==1.3", why, "2026-11-21")
    assert code == 1
    assert "ended on 2026-11-20" in said
    assert audit(tmp_path, "left-pad==1.3", why.replace("never called", "''"))[0] == 1


def test_an_old_record_and_a_pin_that_it_never_saw_are_findings(tmp_path: Path) -> None:
    code, said = audit(tmp_path, "left-pad==1.0", today="2027-06-01")
    assert (code, "212 days old" in said) == (1, True), said
    code, said = audit(tmp_path, "right-pad==1.0")
    assert (code, "not-covered" in said) == (1, True), said


def test_what_cannot_be_read_is_no_pass(tmp_path: Path) -> None:
    assert audit(tmp_path, "left-pad==1.0", explained="{: [")[0] == 2
