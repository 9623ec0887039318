"""A suite against the stand-in engine, a real HTTP server of this machine."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from ops.errors import OpsError
from ops.evals.engine import Endpoint
from ops.evals.report import Report, page
from ops.evals.run import run_suite
from ops.evals.suite import Suite
from ops.places import ROOT

SUITE = Suite.model_validate(
    {
        "name": "echo",
        "repetitions": 2,
        "cases": [
            {
                "id": "says",
                "prompt": "say apple",
                "graders": [{"contains": ["apple"]}],
                "weight": 3,
            },
            {"id": "lacks", "prompt": "say pear", "graders": [{"contains": ["plum"]}]},
        ],
        "pass_share": 0.7,
        "tolerance": 0.1,
    }
)


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults") / "faults"


@pytest.fixture(scope="module")
def endpoint(faults: Path) -> Iterator[Endpoint]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "stand_in_engine", "serve", str(ROOT), "--port", str(port),
               "--served-model-name", "demo", "--first-token-ms", "1", "--tokens-per-second",
               "5000", "--faults-file", str(faults)]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 20
        while True:
            try:
                httpx2.get(f"{url}/health", trust_env=False)
                break
            except httpx2.HTTPError:
                assert time.monotonic() < deadline, process.communicate()[1]
                time.sleep(0.05)
        yield Endpoint(url, "demo")
        process.kill()


def test_a_suite_is_asked_timed_and_weighed(endpoint: Endpoint) -> None:
    report = run_suite(SUITE, endpoint, revision="r1")
    assert [(case.passed, case.asked) for case in report.cases] == [(2, 2), (0, 2)]
    assert report.share == 0.75
    assert report.findings == ()
    assert len(report.first_token) == 4
    assert 0 < report.first_token[0] <= report.whole[0]
    assert report.tokens > 0


def test_a_result_below_its_baseline_names_the_cases_that_got_worse(
    endpoint: Endpoint, faults: Path
) -> None:
    before = run_suite(SUITE, endpoint, revision="r1")
    faults.write_text("garbage")
    try:
        after = run_suite(SUITE, endpoint, revision="r2", baseline=before)
    finally:
        faults.unlink()
    assert after.findings[0] == "0.0% of the suite pass, 70.0% are wanted"
    assert after.findings[1] == "0.0% pass, 75.0% did with r1: says"


def test_a_budget_of_time_or_throughput_is_held(endpoint: Endpoint) -> None:
    budget = {"answer_p95_seconds": 0.0001, "tokens_per_second": 1e9}
    strict = Suite.model_validate({**SUITE.model_dump(mode="json"), "budget": budget})
    findings = " ".join(run_suite(strict, endpoint, revision="r1").findings)
    assert "an answer takes" in findings
    assert "tokens/s" in findings


def test_an_engine_that_does_not_answer_is_no_wrong_answer(
    endpoint: Endpoint, faults: Path
) -> None:
    faults.write_text("error_rate:1")
    try:
        with pytest.raises(OpsError, match="demo gave no answer: 500"):
            run_suite(SUITE, endpoint, revision="r1")
    finally:
        faults.unlink()


def test_a_stored_baseline_is_read_back_with_its_times(endpoint: Endpoint) -> None:
    report = run_suite(SUITE, endpoint, revision="r1")
    again = Report.from_record(json.loads(json.dumps(report.as_baseline())))
    assert again.share == report.share
    assert again.as_record()["answer_p95_seconds"] == report.as_record()["answer_p95_seconds"]


def test_the_page_shows_every_case_and_escapes_what_the_model_said(endpoint: Endpoint) -> None:
    report = run_suite(SUITE, endpoint, revision="r1")
    evil = replace(report.cases[1], why=("<script>alert(1)</script>",))
    shown = page(replace(report, cases=(report.cases[0], evil)), report)
    assert "says" in shown
    assert "<script>" not in shown
    assert "2 of 2" in shown
