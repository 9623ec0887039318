"""What module `tree` lets the host's journal and a run's output know of the files it lays down."""

from __future__ import annotations

import base64
import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.rackhand.host.plugins.modules import tree

SECRET = base64.b64encode(b"a password of the database").decode()
ENTRY = {"path": "/etc/x/password", "mode": "0600", "sensitive": True, "content": SECRET}


def test_contents_of_files_reach_neither_the_journal_nor_the_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(tree.QuietModule, "log", lambda _self, text, **_more: logged.append(text))
    with patch_module_args({"files": [ENTRY]}):
        module = tree.QuietModule(argument_spec={"files": {"type": "list", "elements": "dict"}})
        with pytest.raises(SystemExit):
            module.exit_json(changed=True, changed_paths=["/etc/x/password"])
    assert logged == ["Invoked with 1 files: /etc/x/password"]
    said = capsys.readouterr().out
    assert SECRET not in said
    (shown,) = json.loads(said)["invocation"]["module_args"]["files"]
    assert shown == {**ENTRY, "content": "(not shown)"}
