import pytest

from agent_app.agent.near_duplicates import tell_apart

SAME = [
    ("How do I enable the audit log?", "How can I enable the audit log, please?"),
    ("What is Rackhand?", "Tell me what Rackhand is."),
    ("Which port does the proxy use?", "The proxy listens on which port?"),
    ("How many slots does a model have?", "What number of slots has each model?"),
    ("I'm locked out of Grafana, what now?", "What can I do when Grafana locks me out?"),
    ("Why is the GPU of host-3 slow?", "What makes host-3's GPU slow?"),
]
DIFFERENT = [
    ("enable 2FA", "disable 2FA", "opposite"),
    ("Is the door open?", "Is the door closed?", "opposite"),
    ("mounting the volume", "unmounting the volume", "opposite"),
    ("Which drivers are signed?", "Which drivers are unsigned?", "opposite"),
    ("Do I need a proxy?", "Don't I need a proxy?", "negation"),
    ("Brauche ich einen Proxy?", "Brauche ich keinen Proxy?", "negation"),
    ("the last 7 days", "the last 30 days", "number"),
    ("the first error", "the second error", "number"),
    ("from Berlin to Rome", "from Rome to Oslo", "name"),
    ("restart vllm@blue", "restart vllm@green", "name"),
    ("Berlin's weather", "Paris's weather", "name"),
]


@pytest.mark.parametrize(("one", "other", "by"), DIFFERENT)
def test_what_differs_in_one_word_that_counts_is_told_apart(one: str, other: str, by: str) -> None:
    assert tell_apart(one, other) == by
    assert tell_apart(other, one) == by


@pytest.mark.parametrize(("one", "other"), SAME)
def test_a_paraphrase_passes_on_to_the_model(one: str, other: str) -> None:
    assert tell_apart(one, other) == ""
