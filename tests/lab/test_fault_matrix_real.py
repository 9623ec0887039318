"""The real engine killed in mid-stream on one host: what its client sees, and when it serves again.

It writes docs/results/<date>-fault-real-engine.md. test_survival.py holds the same in every run,
without the figures.
"""

import pytest
from killing import (
    MAIN_PIDS,
    QUESTION,
    ask_and_kill,
    effects_of,
    openai_stream_and_kill,
    wait_until_engine_answers,
)
from results import write_result
from stack import Stack, final_of, text_of

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(1500)]

ENGINE = "engine@demo-blue"
BOUND_SECONDS = 150.0
"""vLLM's CPU build loads in 32 to 66 s alone on two cores, twice that on a machine that is busy."""
KILLS = 3


def test_a_client_of_a_killed_engine_hears_the_whole_answer(stacks) -> None:
    stack: Stack = stacks(1, "bookworm")
    wait_until_engine_answers(stack)
    whole = final_of(stack.chat({"message": QUESTION}))
    rows = []
    for _ in range(KILLS):
        before = stack.lab.ssh("node1", MAIN_PIDS.format(units=ENGINE))
        thread, heard = ask_and_kill(stack, ENGINE, lambda names: "retract" in names)
        now = float(stack.lab.ssh("node1", "date +%s"))
        names = [name for name, _ in heard]
        assert final_of(heard) == whole == text_of(heard)
        assert effects_of(stack, thread) == 1
        assert stack.lab.ssh("node1", MAIN_PIDS.format(units=ENGINE)) != before
        started = 'date -d "$(systemctl show -P ExecMainStartTimestamp {})" +%s'
        waited = now - float(stack.lab.ssh("node1", started.format(ENGINE)))
        assert waited < BOUND_SECONDS
        rows.append(
            (
                "engine, SIGKILL at the first token",
                str(names.count("retract")),
                names[-1],
                "yes",
                "1",
                f"{waited:.0f} s",
                f"{BOUND_SECONDS:.0f} s",
            )
        )
    for _ in range(KILLS):
        text, silence = openai_stream_and_kill(stack, ENGINE)
        assert text == whole
        assert silence < BOUND_SECONDS
        rows.append(
            (
                "engine, SIGKILL at the first text of a stream of /v1",
                "0",
                "done",
                "yes",
                "",
                f"{silence:.0f} s",
                f"{BOUND_SECONDS:.0f} s",
            )
        )
    write_result(
        "fault-real-engine",
        "vLLM killed in the middle of an answer, on the only host",
        ("killed", "retracted", "ended with", "answer whole", "effects", "after",
         "bound"),
        rows,
        "vLLM's CPU build with the demo model. The client keeps its connection: it is told to "
        "retract what it had, waits while systemd brings the engine back, and hears the whole "
        "answer. The tool had been called before, and is not called again. "
        "After: seconds from the engine's new start to the end of the answer. A stream of OpenAI's "
        "API is told nothing: it is silent meanwhile (the seconds that stand there), then goes on "
        "with the next word.",
    )  # fmt: skip
