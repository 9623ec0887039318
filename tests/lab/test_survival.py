"""What the stack survives: killed processes, clients that leave, reboots, lapsing certificates."""

import re
import time

import pytest
from killing import MAIN_PIDS, QUESTION, ask_and_kill, effects_of, wait_until_engine_answers
from stack import Shell, Stack, final_of, shell, text_of

pytestmark = pytest.mark.lab

BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
APP = "agent_app@8200 agent_app@8201"
ENGINE = "engine@demo-blue"


@pytest.fixture(scope="module")
def stack(stacks) -> Stack:
    return stacks(1, "bookworm")


@pytest.fixture(autouse=True)
def ready(stack: Stack) -> None:
    wait_until_engine_answers(stack)


def test_a_killed_app_returns_and_its_thread_resumes_with_the_effect_once(stack: Stack) -> None:
    whole = final_of(stack.chat({"message": QUESTION}))
    thread, _ = ask_and_kill(stack, APP, lambda names: "done" not in names)
    resumed = stack.chat_when_back({"thread_id": thread, "resume": True}, seconds=90)
    assert final_of(resumed) == whole
    assert effects_of(stack, thread) == 1
    runs = stack.sql(f"SELECT status, attempt FROM app.runs WHERE thread_id = '{thread}'")
    assert runs == "done|2", "one run, taken up once"
    assert "failed" not in stack.lab.ssh("node1", "systemctl is-active 'agent_app@*'", check=False)


def test_a_killed_engine_returns_and_the_client_still_gets_the_whole_answer(stack: Stack) -> None:
    whole = final_of(stack.chat({"message": QUESTION}))
    before = stack.lab.ssh("node1", MAIN_PIDS.format(units=ENGINE))
    thread, heard = ask_and_kill(stack, ENGINE, lambda names: "retract" in names)
    assert final_of(heard) == whole == text_of(heard)
    assert effects_of(stack, thread) == 1
    assert stack.lab.ssh("node1", MAIN_PIDS.format(units=ENGINE)) != before


def engine_metric(opened: Shell, name: str) -> float:
    """A figure of vLLM's own metrics page."""
    page = opened.ask("curl -s http://127.0.0.1:8100/metrics")
    found = re.search(rf"^vllm:{name}\{{[^}}]*\}} ([\d.e+]+)", page, re.M)
    assert found, page[:2000]
    return float(found.group(1))


def test_a_client_that_leaves_stops_the_generation_within_two_seconds(stack: Stack) -> None:
    # A bonus for repetition keeps the tiny model going: heard to its end it makes 878 to 1024
    # tokens, in about a second. Fewer than 600 mean that it was stopped; where nobody stops it no
    # attempt makes so few. A busy API server may hear of the leaving too late: three attempts.
    body = {
        "messages": [{"role": "user", "content": "Tell me a story"}],
        "stream": True,
        "frequency_penalty": -2.0,
        "presence_penalty": -2.0,
        "max_tokens": 1024,
        "tools": [{"type": "function", "function": {"name": "none", "parameters": {}}}],
        "tool_choice": "none",
    }
    stack.chat({"message": QUESTION})
    made = []
    with shell(stack.lab, "node1") as opened:
        for _ in range(3):
            before = engine_metric(opened, "generation_tokens_total")
            with stack.stream("/v1/chat/completions", body) as response:
                assert response.status_code == 200, response.read()
                next(response.iter_lines())
            time.sleep(2)
            assert engine_metric(opened, "num_requests_running") == 0
            made.append(engine_metric(opened, "generation_tokens_total") - before)
    assert min(made) < 600, made


def test_a_reboot_brings_the_whole_stack_back_with_no_hand_on_it(stack: Stack) -> None:
    before = stack.lab.ssh("node1", BOOT_ID)
    stack.lab.ssh("node1", "systemctl reboot", check=False)
    end = time.monotonic() + 60
    while True:
        now = stack.lab.ssh("node1", BOOT_ID, check=False)
        if now not in ("", before):
            break
        assert time.monotonic() < end, "the host did not come back"
        time.sleep(1)
    stack.wait_until_ready()
    assert final_of(stack.chat({"message": QUESTION}))
    assert stack.lab.ssh("node1", "systemctl --failed --no-legend") == ""


def serial_on_the_wire(stack: Stack) -> str:
    command = (
        "openssl s_client -connect 127.0.0.1:443 -servername agent.rackhand.test </dev/null "
        "2>/dev/null | openssl x509 -noout -serial"
    )
    return stack.lab.ssh("node1", command)


def test_the_timers_service_renews_and_nginx_serves_the_new_certificate(stack: Stack) -> None:
    before = serial_on_the_wire(stack)
    assert "certbot.timer" in stack.lab.ssh("node1", "systemctl list-timers --no-legend")
    # A certificate that is due is what the timer's service waits for; ours is made due.
    due = (
        "sed -i 's/^#* *renew_before_expiry.*/renew_before_expiry = 10 years/' "
        "/etc/letsencrypt/renewal/agent.rackhand.test.conf; "
        "grep -q '^renew_before_expiry' /etc/letsencrypt/renewal/agent.rackhand.test.conf || "
        "sed -i '1i renew_before_expiry = 10 years' "
        "/etc/letsencrypt/renewal/agent.rackhand.test.conf; "
        # Pebble refuses one nonce in twenty, and now and then the retry too: systemd tries again.
        "systemctl start certbot.service || true"
    )
    stack.lab.ssh("node1", due)
    end = time.monotonic() + 90
    while serial_on_the_wire(stack) == before:
        assert time.monotonic() < end, stack.lab.ssh("node1", "journalctl -u certbot -n 30")
        time.sleep(1)
    stack.lab.ssh(
        "node1",
        "sed -i '/^renew_before_expiry/d' /etc/letsencrypt/renewal/agent.rackhand.test.conf",
    )
    stack.wait_until_ready()
