"""Run a suite: every case, so often, a few at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ops.evals.engine import Endpoint, Timed
from ops.evals.graders import grade
from ops.evals.report import CaseResult, Report, findings
from ops.evals.suite import Case, Judge, Suite

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Asked:
    """One repetition of one case."""

    case: Case
    timed: Timed
    why: tuple[str, ...]


def run_suite(
    suite: Suite,
    endpoint: Endpoint,
    *,
    revision: str,
    baseline: Report | None = None,
    say: Say = lambda _: None,
) -> Report:
    """Ask everything and judge it.

    Args:
        suite: What to ask.
        endpoint: Whom.
        revision: What serves there, for people.
        baseline: An earlier result to hold this one against.
        say: Told how far it is.

    Raises:
        OpsError: The endpoint failed to answer.
    """
    asked = [
        (case, suite.seed + number)
        for case in suite.cases
        for number in range(case.repetitions or suite.repetitions)
    ]
    began = time.monotonic()
    done: list[_Asked] = []
    with ThreadPoolExecutor(max_workers=suite.parallel) as pool:
        for answer in pool.map(lambda pair: _ask(suite, endpoint, *pair), asked):
            done.append(answer)
            say(f"{len(done)} of {len(asked)} answers")
    report = Report(
        suite=suite.name,
        model=endpoint.model,
        revision=revision,
        cases=tuple(
            _result(case, [d for d in done if d.case.id == case.id]) for case in suite.cases
        ),
        first_token=tuple(answer.timed.first_token for answer in done),
        whole=tuple(answer.timed.whole for answer in done),
        tokens=sum(answer.timed.tokens for answer in done),
        seconds=time.monotonic() - began,
        at=time.time(),
    )
    return replace(report, findings=findings(report, suite, baseline))


def _ask(suite: Suite, endpoint: Endpoint, case: Case, seed: int) -> _Asked:
    conversation = case.conversation(suite.system)
    timed = endpoint.ask(
        conversation,
        tools=case.tools,
        max_tokens=case.max_tokens,
        temperature=case.temperature,
        seed=seed,
    )

    def ask_judge(words: str) -> str:
        message = {"role": "user", "content": words}
        return endpoint.ask([message], max_tokens=5, model=suite.judge_model).reply.text

    question = str(conversation[-1].get("content", ""))
    why = [
        reason
        for grader in sorted(case.graders, key=lambda g: isinstance(g, Judge))  # the dear ones last
        if (reason := grade(grader, question, timed.reply, ask_judge))
    ]
    return _Asked(case, timed, tuple(why))


def _result(case: Case, asked: list[_Asked]) -> CaseResult:
    reasons = dict.fromkeys(reason for one in asked for reason in one.why)
    passed = sum(not one.why for one in asked)
    return CaseResult(case.id, case.weight, passed, len(asked), tuple(reasons))
