"""Engines: how many requests they hold, how quick they answer, and how full their cache is."""

from ops.dashboards.panel import (
    Dashboard,
    Job,
    Kind,
    Panel,
    Row,
    critical,
    graph,
    stat,
    state,
    warning,
)
from ops.dashboards.unit import (
    ANSWERS,
    COUNT,
    PER_SECOND,
    REQUESTS_PER_SECOND,
    SECONDS,
    SHARE,
    Unit,
)

HOST = 'host=~"$host"'
SLOT = "{{model}} {{slot}} on {{host}}"
BY_SLOT = "host, model, slot"
NOBODY = "nobody asked an engine in the period"


def quantiles(title: str, description: str, metric: str, *, unit: Unit = SECONDS) -> Panel:
    """Return a panel of the median and the 95th percentile of a histogram, by slot."""
    rate = f"sum by (le, {BY_SLOT}) (rate({metric}_bucket{{{HOST}}}[$__rate_interval]))"
    return graph(
        title,
        description,
        Job.ENGINE,
        (f"histogram_quantile(0.5, {rate})", SLOT + " p50"),
        (f"histogram_quantile(0.95, {rate})", SLOT + " p95"),
        unit=unit,
        optional=NOBODY,
    )


STATE = Row(
    "What serves",
    (
        stat(
            "Models without an engine",
            "Models of a host of which neither slot answers.",
            Job.ENGINE,
            f'sum(1 - max by (host, model) (up{{job="engine", {HOST}}}))',
            thresholds=(critical(1),),
        ),
        stat(
            "Requests under way",
            "In execution on all engines.",
            Job.ENGINE,
            f"sum(vllm:num_requests_running{{{HOST}}})",
        ),
        stat(
            "Requests waiting",
            "In the engines' own queues: they have no room for them.",
            Job.ENGINE,
            f"sum(vllm:num_requests_waiting{{{HOST}}})",
            thresholds=(warning(10),),
        ),
        state(
            "Slots",
            "Which slot of each model answers. One of the two is down by design, but during an "
            "upgrade and while an old one is kept warm.",
            Job.ENGINE,
            f'max by ({BY_SLOT}) (up{{job="engine", {HOST}}})',
            SLOT,
            unit=ANSWERS,
            calm=True,
        ),
        graph(
            "Share of new requests",
            "That each slot gets: an upgrade moves it in steps, a rollback back at once.",
            Job.NODE,
            (f"max by ({BY_SLOT}) (rackhand_slot_traffic_ratio{{{HOST}}})", SLOT),
            unit=SHARE,
            largest=1,
            span=12,
        ),
    ),
)

LOAD = Row(
    "Load",
    (
        graph(
            "Requests",
            "Finished per second.",
            Job.ENGINE,
            (
                f"sum by ({BY_SLOT}) "
                f"(rate(vllm:request_success_total{{{HOST}}}[$__rate_interval]))",
                SLOT,
            ),
            unit=REQUESTS_PER_SECOND,
        ),
        graph(
            "Under way and waiting",
            "Requests in execution, and those that the engine has no room for yet.",
            Job.ENGINE,
            (f"sum by ({BY_SLOT}) (vllm:num_requests_running{{{HOST}}})", SLOT + " running"),
            (f"sum by ({BY_SLOT}) (vllm:num_requests_waiting{{{HOST}}})", SLOT + " waiting"),
        ),
        graph(
            "Tokens",
            "Per second: read from prompts, and written.",
            Job.ENGINE,
            (
                f"sum by ({BY_SLOT}) (rate(vllm:prompt_tokens_total{{{HOST}}}[$__rate_interval]))",
                SLOT + " read",
            ),
            (
                f"sum by ({BY_SLOT}) "
                f"(rate(vllm:generation_tokens_total{{{HOST}}}[$__rate_interval]))",
                SLOT + " written",
            ),
            unit=PER_SECOND,
        ),
        graph(
            "How requests ended",
            "Per second, by finish reason. Many that end in length have too small a max_tokens; "
            "abort is a client that left, or a draining engine.",
            Job.ENGINE,
            (
                "sum by (model, finished_reason) "
                f"(rate(vllm:request_success_total{{{HOST}}}[$__rate_interval]))",
                "{{model}} {{finished_reason}}",
            ),
            unit=REQUESTS_PER_SECOND,
            kind=Kind.STACK,
        ),
        graph(
            "KV cache",
            "Share in use. Above 95 % with preemptions rising, requests push each other out.",
            Job.ENGINE,
            (f"max by ({BY_SLOT}) (vllm:kv_cache_usage_perc{{{HOST}}})", SLOT),
            unit=SHARE,
            largest=1,
            thresholds=(warning(0.95),),
        ),
        graph(
            "Preemptions",
            "In each interval: requests that lost their place in the cache and begin again.",
            Job.ENGINE,
            (
                f"sum by ({BY_SLOT}) (increase(vllm:num_preemptions_total{{{HOST}}}"
                "[$__rate_interval]))",
                SLOT,
            ),
            unit=COUNT,
        ),
    ),
)

SPEED = Row(
    "Speed",
    (
        quantiles(
            "First token",
            "From a request's arrival at the engine to its first token.",
            "vllm:time_to_first_token_seconds",
        ),
        quantiles(
            "Between tokens",
            "What a reader sees as the speed of writing.",
            "vllm:inter_token_latency_seconds",
        ),
        quantiles(
            "Whole request",
            "From arrival to the last token.",
            "vllm:e2e_request_latency_seconds",
        ),
        quantiles(
            "In the engine's queue",
            "Before the first work on a request; it grows first when there are too few engines.",
            "vllm:request_queue_time_seconds",
        ),
        graph(
            "Prefix cache",
            "Share of the prompts' tokens that were found there and need not be read again.",
            Job.ENGINE,
            (
                f"sum by ({BY_SLOT}) "
                f"(rate(vllm:prefix_cache_hits_total{{{HOST}}}[$__rate_interval])) / sum by "
                f"({BY_SLOT}) (rate(vllm:prefix_cache_queries_total{{{HOST}}}[$__rate_interval]))",
                SLOT,
            ),
            unit=SHARE,
            largest=1,
            optional="no prompt was looked up there",
        ),
    ),
)

ENGINE = Dashboard(
    "engine",
    "Engines",
    "Do the models answer, how quickly, and is there room for more?",
    (STATE, LOAD, SPEED),
)
