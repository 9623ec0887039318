import importlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from remote_app import RemoteApp
from typer.testing import CliRunner, Result

from agent_app.knowledge.files import SUFFIXES as APP_SUFFIXES
from ops.agent.command import SUFFIXES, agent_app
from ops.agent.usage import sum_up
from ops.errors import InputError, OpsError, RemoteError, UnreachableError

KEY = "rh_Zx81-secret"
ROW = {"key": "a", "day": "2026-11-01", "model": "m", "feature": "", "requests": 1,
       "prompt_tokens": 10, "completion_tokens": 5, "engine_seconds": 0.25}  # fmt: skip


def ops(group: str, *arguments: str, answer: str | None = None) -> Result:
    app = importlib.import_module(f"ops.cli.{group}").app
    return CliRunner().invoke(app, arguments, input=answer, env={"OPS_INVENTORY": "inventory"})


def error_of(result: Result) -> OpsError:
    assert isinstance(result.exception, OpsError), result.output
    return result.exception


def test_words_are_quoted_and_empty_options_left_out() -> None:
    line = agent_app("keys", "create", name="it's $(me)", expires="", scope=["a", "b c"], json=True)
    assert line == (
        """agent-app keys create --name 'it'"'"'s $(me)' --scope a --scope 'b c' --json"""
    )
    assert agent_app("x", base_url="u", prune=False, all=True, limit=3, key=None) == (
        "agent-app x --base-url u --all --limit 3"
    )


def test_a_new_key_is_printed_once_and_alone_on_stdout(remote: RemoteApp) -> None:
    remote.says({"id": "1", "name": "me", "key": KEY})
    result = ops("keys", "create", "me", "--expires", "90d", "--limit", "budget_hard=5")
    assert result.exit_code == 0
    assert result.stdout == f"{KEY}\n"
    assert KEY not in result.stderr
    assert remote.lines == [
        "agent-app keys create --name me --expires 90d --limit budget_hard=5 --json"
    ]


def test_a_rotated_key_is_in_the_json_for_scripts(remote: RemoteApp) -> None:
    remote.says({"name": "me", "key": KEY})
    result = ops("keys", "rotate", "me", "--json")
    assert json.loads(result.stdout)["key"] == KEY
    assert remote.lines == ["agent-app keys rotate me --overlap 24h --json"]


def test_keys_are_listed_with_state_and_limits(remote: RemoteApp) -> None:
    key = {"name": "me", "prefix": "rh_abc", "revoked_at": None, "expires_at": "2027-01-01",
           "last_used_at": None, "budget_hard": 9000, "weight": 2, "scopes": ["chat"],
           "resident": True}  # fmt: skip
    remote.says([key, {**key, "name": "old", "revoked_at": "2026-01-01"}])
    out = ops("keys", "list").stdout
    assert all(word in out for word in ("budget_hard=9000", "weight=2", "until", "revoked"))
    assert "chat resident" in out


def test_a_key_may_be_resident_and_approve(remote: RemoteApp) -> None:
    remote.says({"id": "1", "name": "me", "key": KEY})
    assert ops("keys", "create", "me", "--resident", "--scope", "approve").exit_code == 0
    assert remote.lines == ["agent-app keys create --name me --scope approve --resident --json"]


@pytest.mark.parametrize("words", [("revoke", "me"), ("erase", "me")])
def test_what_is_lost_is_asked_for_first(remote: RemoteApp, words: tuple[str, ...]) -> None:
    remote.says({"found": {"threads": 3}})
    result = ops("keys", *words, answer="n\n")
    assert result.exit_code == 1
    assert not [line for line in remote.lines if "revoke" in line or "--yes" in line]


def test_a_key_is_revoked_without_a_question_when_yes_is_given(remote: RemoteApp) -> None:
    remote.answers.append(remote_text("me is revoked"))
    assert json.loads(ops("keys", "revoke", "me", "--yes", "--json").stdout) == {
        "name": "me", "revoked": True,
    }  # fmt: skip


def remote_text(text: str) -> Any:
    from ops.remote.stream import Finished

    return Finished(0, text, "")


def test_erasing_shows_what_there_is_and_prints_the_receipt_alone(remote: RemoteApp) -> None:
    remote.says({"found": {"threads": 3}})
    remote.says({"receipt": "r1"})
    result = ops("keys", "erase", "me", answer="y\n")
    document = result.stdout[result.stdout.index("{") :]  # after the runner's echo of the answer
    assert json.loads(document) == {"receipt": "r1"}
    assert "threads: 3" in result.stderr
    assert remote.lines == [
        "agent-app erase --key me --usage sums --dry-run --json",
        "agent-app erase --key me --usage sums --yes --json",
    ]


def test_a_host_that_is_down_is_passed_over_and_told_of(remote: RemoteApp) -> None:
    remote.down = {"agent1"}
    remote.says([])
    result = ops("keys", "list", "--json")
    assert result.exit_code == 0
    assert [name for name, _ in remote.commands] == ["agent2"]
    assert "agent1 cannot be reached" in result.stderr
    assert json.loads(result.stdout) == {"keys": []}


def test_without_any_host_the_first_ones_error_is_told(remote: RemoteApp) -> None:
    remote.down = {"agent1", "agent2"}
    error = error_of(ops("keys", "list"))
    assert isinstance(error, UnreachableError)
    assert error.message.startswith("agent1 cannot be reached")


def test_a_command_that_failed_is_not_begun_again_elsewhere(remote: RemoteApp) -> None:
    remote.fails("agent-app: key me: a live key has this name. Cure: agent-app keys revoke me")
    error = error_of(ops("keys", "create", "me"))
    assert isinstance(error, RemoteError)
    assert error.message == "key me: a live key has this name"
    assert error.place.startswith("agent1: agent-app keys create")
    assert error.cure == "ops keys revoke me"
    assert len(remote.commands) == 1


def test_what_the_operator_got_wrong_exits_2(remote: RemoteApp) -> None:
    remote.fails("agent-app: config.yml: embeddings.model: missing. Cure: correct it", status=2)
    error = error_of(ops("kb", "status"))
    assert isinstance(error, InputError)
    assert error.exit_code == 2


def test_a_host_without_the_app_is_told_how_to_get_it(remote: RemoteApp) -> None:
    remote.fails("sh: 1: agent-app: not found", status=127)
    assert "ops provision --tags app" in error_of(ops("usage")).cure


def test_an_answer_that_is_no_json_is_told(remote: RemoteApp) -> None:
    remote.answers.append(remote_text("hello"))
    assert "no JSON" in error_of(ops("usage")).message


def test_usage_is_summed_up_by_what_is_asked_for() -> None:
    rows = [ROW, {**ROW, "day": "2026-11-02", "feature": "x", "prompt_tokens": 90},
            {**ROW, "key": "b"}]  # fmt: skip
    by_key = sum_up(rows, "key")
    assert [(row["key"], row["total_tokens"], row["requests"]) for row in by_key] == [
        ("a", 110, 2), ("b", 15, 1),
    ]  # fmt: skip
    assert [row["feature"] for row in sum_up(rows, "feature")] == ["x", ""]
    assert [row["day"] for row in sum_up(rows, "day")] == ["2026-11-01", "2026-11-02"]
    assert sum_up(rows, "model")[0]["engine_seconds"] == 0.75
    assert sum_up([], "key") == []


def test_usage_of_a_month_is_asked_for_and_shown(remote: RemoteApp) -> None:
    remote.says([{**ROW, "prompt_tokens": 1_234_567}])
    result = ops("usage", "--month", "2026-10", "--by", "feature")
    assert "1,234,567" in result.stdout
    assert remote.lines == ["agent-app usage --month 2026-10 --json"]


def ingested(**changes: Any) -> dict[str, Any]:
    done = {"collection": "default", "new": 1, "unchanged": 1, "removed": 0, "passages": 2,
            "failed": {}, "embedded": 0, "not_embedded": ""}  # fmt: skip
    return done | changes


def test_a_folder_is_sent_as_a_tar_of_its_documents_only(remote: RemoteApp, tmp_path: Path) -> None:
    (tmp_path / "outside.md").write_text("secret")
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.md", "sub/b.html", ".hidden.md", "image.png"):
        (folder / name).write_text(name)
    (folder / "link.md").symlink_to(tmp_path / "outside.md")
    (folder / "large.txt").write_bytes(b"x" * 300_000)
    remote.says(ingested())
    result = ops("kb", "ingest", str(folder), "--base-url", "https://e.com/$x")
    assert (result.exit_code, result.stdout) == (0, "1 new or changed, 1 unchanged\n")
    with tarfile.open(fileobj=io.BytesIO(remote.received)) as archive:
        assert archive.getnames() == ["a.md", "large.txt", "sub/b.html"]
        assert {entry.mode for entry in archive} == {0o600}
        content = archive.extractfile("large.txt")
        assert content is not None and len(content.read()) == 300_000
    last = remote.lines[0].splitlines()[-1]
    assert last == (
        'agent-app knowledge ingest "$folder" --json --collection default'
        " --base-url 'https://e.com/$x'"
    )


def test_documents_that_were_passed_over_are_named_and_exit_1(
    remote: RemoteApp, tmp_path: Path
) -> None:
    (tmp_path / "a.md").write_text("a")
    off = "no extension pgvector"
    remote.says(ingested(failed={"a.md": "not UTF-8"}, not_embedded=off), status=1)
    result = ops("kb", "ingest", str(tmp_path))
    assert result.exit_code == 1
    assert "a.md: passed over: not UTF-8" in result.stderr
    assert f"semantic search is off: {off}; full text serves" in result.stderr


def test_an_empty_folder_is_refused_before_any_host_is_asked(
    remote: RemoteApp, tmp_path: Path
) -> None:
    assert error_of(ops("kb", "ingest", str(tmp_path))).exit_code == 2
    assert remote.commands == []


def test_pruning_is_asked_for_first(remote: RemoteApp, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("a")
    assert ops("kb", "ingest", str(tmp_path), "--prune", answer="n\n").exit_code == 1
    assert remote.commands == []


def test_a_search_that_finds_nothing_exits_1_and_may_begin_with_a_dash(remote: RemoteApp) -> None:
    remote.says([], status=1)
    result = ops("kb", "search", "--json", "--", "-x")
    assert (result.exit_code, json.loads(result.stdout)) == (1, {"passages": []})
    assert remote.lines == ["agent-app knowledge search --json -- -x"]


def test_both_sides_read_the_same_kinds_of_files() -> None:
    assert SUFFIXES == APP_SUFFIXES


def verdict(**changes: Any) -> dict[str, Any]:
    return {"ok": True, "entries": 2, "head": {"number": 2, "hash": "ff"}} | changes


def test_an_export_is_private_and_verified_as_it_was_written(
    remote: RemoteApp, tmp_path: Path
) -> None:
    to = tmp_path / "audit.jsonl"
    remote.answers.append(remote_text('{"n":1}\n{"n":2}\n'))
    remote.says(verdict())
    result = ops("audit", "export", "--to", str(to), "--since", "2026-11-01")
    assert (result.exit_code, result.stdout) == (0, f"{to}: 2 entries hold; head 2:ff\n")
    assert to.read_text() == '{"n":1}\n{"n":2}\n'
    assert to.stat().st_mode & 0o777 == 0o600
    assert remote.received == to.read_bytes()  # what is verified is what lies here
    assert remote.lines == [
        "agent-app audit export --since 2026-11-01",
        "agent-app audit verify - --json",
    ]
    assert error_of(ops("audit", "export", "--to", str(to))).exit_code == 2


def test_an_export_that_failed_leaves_nothing(remote: RemoteApp, tmp_path: Path) -> None:
    remote.fails("agent-app: audit_secret is missing. Cure: provision")
    error_of(ops("audit", "export", "--to", str(tmp_path / "a.jsonl")))
    assert list(tmp_path.iterdir()) == []


def test_a_broken_chain_exits_1_with_the_first_break(remote: RemoteApp) -> None:
    broken = {"number": 7, "why": "the hash is another"}
    remote.says(verdict(ok=False, broken=broken), status=1)
    result = ops("audit", "verify", "--head", "2:ff")
    assert (result.exit_code, result.stdout) == (
        1, "the database: entry 7: the hash is another\n",
    )  # fmt: skip
    assert remote.lines == ["agent-app audit verify --head 2:ff --json"]


def test_the_head_is_printed_as_it_is_to_be_kept(remote: RemoteApp) -> None:
    remote.says({"number": 7, "hash": "ab", "public_key": "x"})
    assert ops("audit", "head").stdout == "7:ab\n"
