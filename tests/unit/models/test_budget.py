import pytest

from ops.models.budget import Budget, FirstTokens, Sample, judge, judge_first_tokens

BUDGET = Budget(max_error_share=0.01, max_slowdown=3.0)


def sample(requests: int, seconds: float, failed: int = 0) -> Sample:
    return Sample(requests, failed, (seconds,) * requests)


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (sample(100, 0.1), sample(100, 0.1)),
        (sample(1000, 0.1, failed=10), sample(100, 0.1)),
        (sample(2, 0.1, failed=2), sample(100, 0.1)),
        (sample(100, 0.3), sample(100, 0.1)),
        (sample(100, 0.2), sample(100, 0.01)),
        (sample(3, 90.0), sample(100, 0.1)),
        (Sample(), Sample()),
    ],
    ids=["alike", "few errors", "too few to tell", "within", "quick anyway", "few", "nobody"],
)
def test_a_slot_within_its_budget_goes_on(new: Sample, old: Sample) -> None:
    assert judge(new, old, BUDGET) == ""


def test_a_slot_that_fails_too_often_is_over_its_budget() -> None:
    assert judge(sample(100, 0.1, failed=4), sample(100, 0.1), BUDGET) == "4 of 100 requests failed"


def test_a_slot_that_is_slow_is_over_its_budget_and_both_figures_are_told() -> None:
    why = judge(sample(100, 2.0), sample(100, 0.5), BUDGET)
    assert "2.00 s" in why
    assert "0.50 s" in why


def test_samples_add_up() -> None:
    found = Sample().plus({"requests": 2, "failed": 1, "first_byte": [0.1, 0.3]})
    found = found.plus({"requests": 1, "failed": 0, "first_byte": [0.2]})
    assert (found.requests, found.failed, found.percentile()) == (3, 1, 0.3)


def test_an_engine_whose_first_token_is_late_is_over_its_budget_with_few_requests() -> None:
    before = FirstTokens(1.0, 10)
    new = FirstTokens(6.0, 15).since(before)
    assert "1.00 s on average" in judge_first_tokens(new, FirstTokens(2.0, 100), BUDGET)
    assert judge_first_tokens(FirstTokens(0.1, 5), FirstTokens(2.0, 100), BUDGET) == ""
    assert judge_first_tokens(FirstTokens(9.0, 4), FirstTokens(2.0, 100), BUDGET) == ""
