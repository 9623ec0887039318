from typing import Any

from ops.playbook import Progress
from ops.playbook.progress import explain


def told(*events: tuple[str, dict[str, Any], float]) -> Progress:
    progress = Progress()
    for name, data, now in events:
        progress.observe(name, data, now)
    return progress


def task(role: str, name: str, at: float) -> tuple[str, dict[str, Any], float]:
    return "playbook_on_task_start", {"role": role, "task": name}, at


def outcome(kind: str, host: str, at: float, **result: Any) -> tuple[str, dict[str, Any], float]:
    return f"runner_on_{kind}", {"host": host, "role": "nginx", "task": "t", "res": result}, at


def test_the_time_of_a_role_is_the_sum_of_its_tasks() -> None:
    progress = told(
        task("nginx", "a", 1.0),
        task("nginx", "b", 2.0),
        task("certbot", "c", 5.0),
        ("playbook_on_stats", {}, 5.5),
    )
    assert progress.role_seconds == {"nginx": 4.0, "certbot": 0.5}
    assert progress.tasks == 3


def test_changes_and_failures_are_counted_per_host() -> None:
    progress = told(
        task("nginx", "t", 1.0),
        outcome("ok", "one", 1.1, changed=True),
        outcome("ok", "two", 1.2),
        outcome("failed", "two", 1.3, msg="no space left"),
        outcome("unreachable", "three", 1.4, msg="timed out"),
    )
    assert progress.changed == 1
    assert progress.changes == [("one", "nginx", "t")]
    assert [(f.host, f.message, f.unreachable) for f in progress.failures] == [
        ("two", "no space left", False),
        ("three", "timed out", True),
    ]


def test_a_host_is_busy_from_its_start_to_its_result() -> None:
    progress = told(
        task("nginx", "t", 1.0),
        ("runner_on_start", {"host": "one"}, 1.0),
        ("runner_on_start", {"host": "two"}, 1.0),
        outcome("ok", "one", 1.5),
    )
    assert list(progress.busy) == ["two"]


def test_a_failure_is_explained_by_its_message_and_the_end_of_its_error_stream() -> None:
    noise = "\n".join(f"line {number}" for number in range(30))
    text = explain({"msg": "non-zero return code", "stderr": noise})
    assert text.startswith("non-zero return code\nline 20")
    assert text.endswith("line 29")
