"""Secrets are planted and then looked for wherever a day's work may have left them."""

import base64
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from leaks import CLEAR, PLANT, PLANTED, Hunt, Watcher, tree
from operators import ops
from stack import Lab, Stack, run_site
from stand_in_stack import stand_in_stack
from traffic import traffic

from ops.places import ROOT
from ops.secrets.vault import open_vault, read_secrets

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(1800)]

RESULTS = ROOT / "docs" / "results"
CANARY = "canary+Leak/0123456789abcdef=="
#: What a person would put into a vaulted file, by host group.
WRITTEN = {
    "monitoring": {
        "alertmanager_slack_url": "https://hooks.slack.invalid/services/T0LEAK/B0LEAK/slackLeak99",
        "alertmanager_pagerduty_routing_key": "pagerdutyLeak0123456789abcdef012",
        "alertmanager_email_to": ["person@rackhand.test"],
        "alertmanager_email_from": "watch@rackhand.test",
        "alertmanager_email_smarthost": "127.0.0.1:2525",
        "alertmanager_email_username": "watch",
        "alertmanager_email_password": "mail&Leak pass/word=77",
        "alertmanager_webhook_url": "http://127.0.0.1:2580/",
        "alertmanager_webhook_token": "webhookTokenLeak-0123456789",
    },
    "agent": {
        "agent_app_tools_ticket_webhook_secret": "ticketWebhookLeak-0123456789",
        "agent_app_credentials": {
            "hub_token": "hf_LeakLeakLeak0123456789abcdefABCD",
            "embeddings_key": "embeddingsLeak-0123456789",
        },
    },
}
NO_SECRETS = {
    "alertmanager_email_to", "alertmanager_email_from", "alertmanager_email_smarthost",
    "alertmanager_email_username", "alertmanager_webhook_url",
}  # fmt: skip
LAID_DOWN = "/etc/rackhand/credentials /etc/redis/cache.acl /etc/redis/state.acl"


def written() -> dict[str, str]:
    """The secrets among what a person writes, by name."""
    found: dict[str, str] = {}
    for variables in WRITTEN.values():
        for name, value in variables.items():
            if isinstance(value, dict):
                found |= value
            elif name not in NO_SECRETS:
                found[name] = str(value)
    return found


def generated(stack: Stack) -> dict[str, str]:
    """What the fleet made for itself: all values that are, were or will be good."""
    found = {}
    for name, entry in read_secrets(stack.lab.inventory).items():
        if not name.endswith(".crt"):
            for kind in ("value", "next", "retired"):
                if entry.get(kind):
                    found[f"{name} ({kind})"] = str(entry[kind])
    return found


def vault_files(inventory: Path) -> list[Path]:
    """Write them as `ansible-vault encrypt` would."""
    from ansible.parsing.vault import VaultLib

    vault = VaultLib(open_vault()._vault.secrets)
    made = []
    for group, variables in WRITTEN.items():
        path = inventory / "group_vars" / group / "vault.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(vault.encrypt(yaml.safe_dump(variables)))
        made.append(path)
    return made


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Iterator[Stack]:
    with stand_in_stack(labs) as made:
        files = vault_files(made.lab.inventory)
        try:
            yield made
        finally:
            for path in files:
                path.unlink()
                path.parent.rmdir()


@dataclass
class Day:
    """What a day's commands said, and how long each took."""

    said: list[bytes] = field(default_factory=list)
    took: dict[str, float] = field(default_factory=dict)

    def run(self, what: str, work: Callable[[], str]) -> None:
        began = time.monotonic()
        self.said.append(work().encode())
        self.took[what] = time.monotonic() - began


def spend(stack: Stack, day: Day) -> None:
    """A day's work: everything laid down anew in full view, operations, questions, looks."""
    stack.lab.ssh("node1", f"rm -rf {LAID_DOWN}")
    accept = ("-e", "engine_accept_restart=true", "-e", "agent_app_accept_restart=true")

    def site(*arguments: str) -> str:
        done = run_site(stack.lab, *arguments)
        assert done.status == 0, done.output[-5000:]
        return done.output

    day.run("site.yml -vvv --diff", lambda: site("-vvv", "--diff", *accept))
    stack.wait_until_ready()
    with traffic(stack, clients=3) as running:
        day.run("ops secrets rotate", lambda: ops(stack, "secrets", "rotate", "--yes").output)
        day.run("ops restart app", lambda: ops(stack, "restart", "app", "--yes").output)
        refused = "rh_leakLeakLeak0123456789abcdefghijk"
        body = {"messages": [{"role": "user", "content": "Hello!"}]}
        with stack.client() as client:
            sni = {"sni_hostname": stack.fleet.domain}
            headers = {"Authorization": f"Bearer {refused}"}
            answer = client.post("/chat", json=body, headers=headers, extensions=sni)
            assert answer.status_code == 401
        day.run("chat", lambda: str(stack.chat({"message": "Hello!"})))
    assert running.failures == [], running.told()
    for words in (
        ("secrets", "list"), ("keys", "list"), ("doctor",), ("status", "--json"), ("history",),
        ("report", "--since", "30m", "--json"), ("alerts", "list", "--json"),
        ("audit", "verify"),
    ):  # fmt: skip
        day.run(f"ops {' '.join(words)}", lambda w=words: ops(stack, *w, status=None).output)
    day.run("second site.yml", lambda: site("--diff"))


def plant(hunt: Hunt) -> None:
    """Put a secret where none may be, so that a search that finds nothing is known to search."""
    encoded = base64.b64encode(b"x" + CANARY.encode()).decode()
    quoted = urllib.parse.quote(CANARY, safe="")
    hunt.on_host(f"C='{CANARY}' C64='{encoded}' CURL='{quoted}'; export C C64 CURL; {PLANT}")


def test_no_secret_is_left_anywhere_after_a_days_work(stack: Stack, tmp_path: Path) -> None:
    hunt, day, lab = Hunt(stack.lab, "node1"), Day(), stack.lab
    hunt.add(written())
    hunt.add(generated(stack))
    hunt.add({"an API key": stack.key, "a refused API key": "rh_leakLeakLeak0123456789abcdefghijk"})
    with Watcher() as here, hunt.sampling():
        spend(stack, day)
        hunt.add({"the canary": CANARY})
        plant(hunt)
    try:
        hunt.add(generated(stack))
        hunt.search_host()
    finally:
        hunt.on_host(CLEAR)
    inventory = tree(lab.inventory, frozenset({"fleet.vault"}))
    texts = {
        "output of the runs": [*day.said, CANARY.encode()],
        "processes of this machine": list(here.commands),
        "artifacts of ansible-runner": list(here.artifacts.values()),
        "facts as Ansible gathers them": [facts(stack)],
        "the inventory's folder": inventory,
        "the repository": repository(),
    }
    for place, content in texts.items():
        hunt.search_texts(place, content, tmp_path)
    write_result(hunt, day)
    assert here.artifacts, "no artifact of ansible-runner was seen"
    unseen = [p for p in (*PLANTED, "output of the runs") if "the canary" not in hunt.found.of(p)]
    assert not unseen, f"the search is blind in {unseen}"
    leaks = {
        place: names
        for place, found in hunt.found.secrets.items()
        if (names := {n: count for n, count in found.items() if n != "the canary"})
    }
    assert not leaks, leaks
    assert all(hunt.found.bytes.values()), hunt.found.bytes


def facts(stack: Stack) -> bytes:
    words = ["ansible", "-i", str(stack.lab.inventory), "all", "-m", "ansible.builtin.setup"]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, timeout=120, env=stack.lab.environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def repository() -> list[bytes]:
    """Tracked files and those that are not ignored, but this test, which has what it plants."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    mine = Path(__file__).resolve()
    return [path.read_bytes() for path in paths if path.is_file() and path.resolve() != mine]


def write_result(hunt: Hunt, day: Day) -> None:
    """Write docs/results/<date>-leak-hunt.md."""
    lines = [
        "# Leak hunt",
        "",
        f"{time.strftime('%Y-%m-%d')}: one lab host (Debian 12) with all groups, stand-in engine.",
        f"{len(hunt.values)} secrets in {len(hunt.patterns())} forms (as written, base64 at three "
        "offsets, in URLs), searched by GNU grep as fixed strings.",
        "The canary is a secret that the test puts into a place to prove that the search sees it.",
        "",
        "| Place | Bytes | Secrets found | Canary |",
        "|---|---:|---:|---|",
    ]
    for place, size in hunt.found.bytes.items():
        found: dict[str, Any] = hunt.found.of(place)
        others = {name: count for name, count in found.items() if name != "the canary"}
        seen = "seen" if "the canary" in found else "not planted"
        lines.append(f"| {place} | {size:,} | {len(others)} | {seen} |")
    lines += ["", "What was run meanwhile, under load where requests were:", ""]
    lines += [f"- `{what}`: {seconds:.0f} s" for what, seconds in day.took.items()]
    lines += ["", "Secrets searched for: " + ", ".join(sorted(hunt.values)) + "."]
    (RESULTS / f"{time.strftime('%Y-%m-%d')}-leak-hunt.md").write_text("\n".join(lines) + "\n")
