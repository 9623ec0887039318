import pytest
from answers import HOSTS, answer, looked_twice, states

from ops.live.rates import History, percentile, rates
from ops.live.records import record
from ops.live.state import Counts, read_look


def test_a_slot_is_told_by_what_grew_between_two_looks() -> None:
    _, history = looked_twice()
    found = history.slot("gpu1", "assistant", "blue")
    assert found.seconds == 10
    assert found.requests_per_second == pytest.approx(9.0)
    assert found.tokens_per_second == pytest.approx(1890)
    assert found.error_share == pytest.approx(2 / 90)
    assert (found.running, found.waiting) == (4, 0)


def test_one_look_tells_what_is_and_no_rates() -> None:
    history = History()
    history.add(states(0.0))
    found = history.slot("gpu1", "assistant", "blue")
    assert (found.running, found.requests_per_second, found.error_share) == (4, None, None)


def test_a_counter_that_began_anew_with_its_process_counts_from_zero() -> None:
    found = rates(Counts(totals={"requests": 500.0}), Counts(totals={"requests": 20.0}), 10.0)
    assert found.requests_per_second == 2.0


def test_a_slot_that_has_just_come_to_answer_has_no_false_peak() -> None:
    history = History()
    history.add([read_look(HOSTS[1], answer("gpu1", 0.0, models=silent_green()))])
    history.add([read_look(HOSTS[1], answer("gpu1", 2.0))])
    assert history.slot("gpu1", "assistant", "green").tokens_per_second is None
    history.add([read_look(HOSTS[1], answer("gpu1", 4.0))])
    assert history.slot("gpu1", "assistant", "green").tokens_per_second == pytest.approx(210)


def silent_green() -> dict[str, object]:
    models = answer("gpu1")["models"]
    models["assistant"]["slots"]["green"] |= {"metrics": None, "log": {"requests": 0, "failed": 0}}
    return models


def test_rates_are_about_the_last_seconds_only() -> None:
    history = History(window_seconds=10)
    for later in range(0, 60, 2):
        history.add(states(float(later)))
    assert history.slot("gpu1", "assistant", "blue").seconds == 10


def test_a_host_that_booted_or_was_away_begins_anew() -> None:
    history = History()
    history.add(states(50.0))
    history.add(states(1.0))
    assert history.slot("gpu1", "assistant", "blue").requests_per_second is None
    history.add(states(2.0))
    assert history.slot("gpu1", "assistant", "blue").requests_per_second is not None
    history.add(states(3.0, gpu1="timed out"))
    assert history.slot("gpu1", "assistant", "blue").running is None


def test_the_percentile_is_that_of_prometheus() -> None:
    before = {"0.1": 10.0, "0.5": 10.0, "+Inf": 10.0}
    now = {"0.1": 10.0, "0.5": 110.0, "+Inf": 110.0}
    assert percentile(before, now) == pytest.approx(0.1 + 0.4 * 0.95)
    assert percentile({}, {"0.1": 50.0, "+Inf": 100.0}) == 0.1, "beyond the last bound"
    assert percentile(now, now) is None
    assert percentile({}, {}) is None
    restarted = {"0.1": 4.0, "0.5": 4.0, "+Inf": 4.0}
    assert percentile(now, restarted) == pytest.approx(0.095)


def test_refused_requests_of_a_drained_host_are_counted() -> None:
    history = History()
    history.add([read_look(HOSTS[1], answer("gpu1", 0.0, refused=5))])
    history.add([read_look(HOSTS[1], answer("gpu1", 10.0, refused=25))])
    assert history.refused_per_second("gpu1") == 2.0


def test_the_json_of_top_is_that_of_status_and_has_traffic_beside() -> None:
    look, history = looked_twice()
    plain, live = record(look), record(look, history)
    slot = live["hosts"][1]["models"]["assistant"]["slots"]["blue"]
    assert sorted(slot.pop("traffic")) == [
        "error_share", "first_token_p95_seconds", "kv_cache", "prompt_tokens_per_second",
        "requests_per_second", "running", "seconds", "tokens_per_second", "waiting",
    ]  # fmt: skip
    assert slot == plain["hosts"][1]["models"]["assistant"]["slots"]["blue"]
    assert live["hosts"][0]["app"]["8201"]["traffic"] == {
        "in_flight": 7.0, "queued": 2.0, "requests_per_second": 6.2, "error_share": 0.0,
        "seconds": 10.0,
    }  # fmt: skip
