import json
import logging
import os
import threading
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from agent_app.observability import labels, metrics
from agent_app.observability.log_writer import LogWriter
from agent_app.observability.pace import PaceHistogram
from agent_app.observability.secrets import hide, without_secrets

BOUNDS = (0.01, 0.1, 1)


def lost(reason: str) -> float:
    return metrics.LOG_LINES_DROPPED.labels(reason)._value.get()


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("test", logging.INFO, "", 0, text, None, None)


def test_a_pace_histogram_reads_as_prometheus_own_does() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    pace = PaceHistogram("gap_seconds", "Gaps.", "model", BOUNDS, ours).labels("m")
    peer = Histogram("gap_seconds", "Gaps.", ["model"], buckets=BOUNDS, registry=theirs)
    for seconds in (0.001, 0.01, 0.05, 0.1, 0.5, 2, 3):
        pace.observe(seconds)
        peer.labels("m").observe(seconds)
    assert generate_latest(ours) == generate_latest(theirs)


def test_an_observation_of_a_gap_costs_well_below_a_few_microseconds() -> None:
    pace = PaceHistogram("gap_seconds", "Gaps.", "model", BOUNDS, CollectorRegistry()).labels("m")
    spent = []
    for _ in range(5):
        began = time.thread_time()
        for _ in range(20_000):
            pace.observe(0.02)
        spent.append((time.thread_time() - began) / 20_000)
    assert min(spent) < 3e-6


def test_keys_beyond_a_number_share_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "_keys", set())
    named = [labels.key_label(f"key-{number}") for number in range(labels.MOST_KEYS + 50)]
    assert len(set(named)) == labels.MOST_KEYS + 1
    assert named[-1] == "other"
    assert labels.key_label("key-0") == "key-0"


def test_credentials_and_keys_are_blotted_out_of_any_line() -> None:
    hide("a-credential-of-ours")
    text = without_secrets("with a-credential-of-ours and rh_abcdefgh-0123456789_ABCDEF")
    assert text == "with [hidden] and rh_abcdefgh…"


def test_lines_are_written_whole_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    writer = LogWriter(descriptor)
    for number in range(1000):
        writer.emit(record(f"line {number}"))
    writer.close()
    os.close(descriptor)
    assert path.read_text().splitlines() == [f"line {number}" for number in range(1000)]


def test_a_reader_that_is_stuck_costs_lines_and_never_waits() -> None:
    reading, writing = os.pipe()
    before, writer = lost("queue_full"), LogWriter(writing)
    began = time.monotonic()
    for _ in range(12_000):
        writer.emit(record("x" * 100))
    assert time.monotonic() - began < 5
    assert lost("queue_full") > before
    drain = threading.Thread(target=lambda: [*iter(lambda: os.read(reading, 65536), b"")])
    drain.start()
    writer.close()
    os.close(writing)
    drain.join(10)
    os.close(reading)


def test_a_full_disk_costs_lines_which_are_counted() -> None:
    before, descriptor = lost("disk_full"), os.open("/dev/full", os.O_WRONLY)
    writer = LogWriter(descriptor)
    for number in range(10):
        writer.emit(record(json.dumps({"line": number})))
    writer.close()
    os.close(descriptor)
    assert lost("disk_full") == before + 10


def test_an_invented_method_shares_a_label() -> None:
    assert labels.method_label({"method": "BREW"}) == "other"
    assert labels.method_label({"method": "POST"}) == "POST"
