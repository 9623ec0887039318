"""The agent app: what clients meet, what its queue and tools do, and its own health."""

from ops.dashboards.headline import ASKED, HOST
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
from ops.dashboards.unit import COUNT, PER_SECOND, REQUESTS_PER_SECOND, SECONDS, SHARE

NOBODY = "nobody asked in the period"
WITHOUT_JOBS = "no job was submitted"


def per_second(metric: str, by: str) -> str:
    """Return the rate of a counter."""
    return f"sum by ({by}) (rate({metric}{{{HOST}}}[$__rate_interval]))"


def quantiles(
    title: str, description: str, metric: str, by: str, legend: str, *, optional: str = NOBODY
) -> Panel:
    """Return a panel of the median and the 95th percentile of a histogram."""
    labels = f"le, {by}" if by else "le"
    rate = f"sum by ({labels}) (rate({metric}_bucket{{{HOST}}}[$__rate_interval]))"
    return graph(
        title,
        description,
        Job.APP,
        (f"histogram_quantile(0.5, {rate})", f"{legend} p50".strip()),
        (f"histogram_quantile(0.95, {rate})", f"{legend} p95".strip()),
        unit=SECONDS,
        optional=optional,
    )


CLIENTS = Row(
    "What clients meet",
    (
        graph(
            "Requests",
            "Per second by route, without probes and the page's own files.",
            Job.APP,
            (
                f"sum by (route) (rate(agent_app_requests_total{{{ASKED}}}[$__rate_interval]))",
                "{{route}}",
            ),
            unit=REQUESTS_PER_SECOND,
        ),
        graph(
            "Answers that are no success",
            "Per second by status: 429 is a limit of a key, 503 a full queue, other 5xx a failure.",
            Job.APP,
            (
                f'sum by (status) (rate(agent_app_requests_total{{status=~"4..|5..", {ASKED}}}'
                "[$__rate_interval]))",
                "{{status}}",
            ),
            unit=REQUESTS_PER_SECOND,
            events=True,
        ),
        graph(
            "Failed share",
            "5xx other than 503, as operations and alerts count it.",
            Job.APP,
            (
                '(sum(rate(agent_app_requests_total{status=~"5..", status!="503", '
                f"{ASKED}}}[$__rate_interval])) or vector(0)) / "
                f"(sum(rate(agent_app_requests_total{{{ASKED}}}[$__rate_interval])) > 0)",
                "failed",
            ),
            unit=SHARE,
            thresholds=(warning(0.01), critical(0.05)),
            optional=NOBODY,
        ),
        quantiles(
            "First token",
            "From a request's arrival to the first token that its client gets.",
            "agent_app_first_token_seconds",
            "model",
            "{{model}}",
        ),
        quantiles(
            "Between tokens",
            "Between two chunks of an answer: what a reader sees.",
            "agent_app_token_gap_seconds",
            "model",
            "{{model}}",
        ),
        quantiles(
            "Whole request",
            "From a request's first byte to its answer's last, by route.",
            "agent_app_request_seconds",
            "route",
            "{{route}}",
        ),
    ),
)

RUNS = Row(
    "Runs and their queue",
    (
        graph(
            "Runs",
            "Ended per second, by how.",
            Job.APP,
            (per_second("agent_app_runs_total", "model, outcome"), "{{model}} {{outcome}}"),
            unit=PER_SECOND,
            kind=Kind.STACK,
            optional=NOBODY,
        ),
        graph(
            "Under way",
            "Runs in all processes, and requests at engines.",
            Job.APP,
            (f"sum(agent_app_runs_in_flight{{{HOST}}})", "runs"),
            (f"sum by (model) (agent_app_engine_in_flight{{{HOST}}})", "{{model}} at engines"),
        ),
        graph(
            "Queue",
            "Steps that wait for a place at an engine.",
            Job.APP,
            (f"sum by (model) (agent_app_queue_length{{{HOST}}})", "{{model}}"),
            thresholds=(warning(50),),
            optional="no step has had to wait yet",
        ),
        quantiles(
            "Wait for an engine",
            "What a step waited before the attempt that answered it.",
            "agent_app_engine_wait_seconds",
            "model",
            "{{model}}",
        ),
        graph(
            "Attempts that failed",
            "Per second: an engine did not finish them, and the app tried again; gone on: another "
            "finished a stream that had begun.",
            Job.APP,
            (
                per_second("agent_app_engine_failures_total", "model, reason"),
                "{{model}} {{reason}}",
            ),
            (per_second("agent_app_answers_continued_total", "model"), "{{model}} gone on"),
            unit=PER_SECOND,
            events=True,
        ),
        graph(
            "Refused",
            "Per second: by the queue, and by limits of keys.",
            Job.APP,
            (per_second("agent_app_queue_refused_total", "model, reason"), "queue {{reason}}"),
            (per_second("agent_app_limited_total", "limit"), "limit {{limit}}"),
            unit=PER_SECOND,
            events=True,
        ),
    ),
)

TOOLS = Row(
    "Tools, cache, jobs",
    (
        graph(
            "Tool calls",
            "Per second by tool and outcome.",
            Job.APP,
            (per_second("agent_app_tool_calls_total", "tool, outcome"), "{{tool}} {{outcome}}"),
            unit=PER_SECOND,
            events=True,
        ),
        quantiles(
            "Time of a tool",
            "Of one call.",
            "agent_app_tool_seconds",
            "tool",
            "{{tool}}",
            optional="no tool was called",
        ),
        graph(
            "Cache of answers",
            "Requests per second by what it did.",
            Job.APP,
            (per_second("agent_app_cache_total", "kind, outcome"), "{{kind}} {{outcome}}"),
            unit=PER_SECOND,
            events=True,
        ),
        graph(
            "Left for a cloud",
            "Decisions per second to leave a model's own engines, and why.",
            Job.APP,
            (
                per_second("agent_app_routes_total", "model, to, why"),
                "{{model}} to {{to}}: {{why}}",
            ),
            unit=PER_SECOND,
            events=True,
        ),
        graph(
            "Jobs",
            "That are not over, by status.",
            Job.APP,
            (f"max by (status) (agent_app_jobs{{{HOST}}})", "{{status}}"),
            optional=WITHOUT_JOBS,
        ),
        graph(
            "Oldest job",
            "How long the queued job that is due longest has waited.",
            Job.APP,
            (f"max(agent_app_job_queue_age_seconds{{{HOST}}})", "oldest"),
            unit=SECONDS,
            thresholds=(warning(300),),
        ),
        graph(
            "Webhooks",
            "Posts per second by what came of them.",
            Job.APP,
            (per_second("agent_app_webhooks_total", "kind, outcome"), "{{kind}} {{outcome}}"),
            unit=PER_SECOND,
            events=True,
        ),
        state(
            "MCP servers",
            "Whether each one of the configuration can be called, from every process.",
            Job.APP,
            f"min by (server) (agent_app_mcp_server_up{{{HOST}}})",
            "{{server}}",
            optional="none is configured",
            span=8,
        ),
    ),
)

SELF = Row(
    "The app itself",
    (
        state(
            "Processes",
            "Whether each process of the app answers.",
            Job.APP,
            f'max by (host, instance) (up{{job="agent_app", {HOST}}})',
            "{{host}} {{instance}}",
        ),
        graph(
            "Lag of the event loop",
            "95th percentile of how late it wakes: every stream of that process waits as long.",
            Job.APP,
            (
                "histogram_quantile(0.95, sum by (le, instance) "
                f"(rate(agent_app_event_loop_lag_seconds_bucket{{{HOST}}}[$__rate_interval])))",
                "{{instance}}",
            ),
            unit=SECONDS,
            thresholds=(warning(0.1),),
            span=12,
        ),
        graph(
            "Connections to PostgreSQL",
            "By state, and who waits for one.",
            Job.APP,
            (f"sum by (state) (agent_app_database_connections{{{HOST}}})", "{{state}}"),
            (f"sum(agent_app_database_waiting{{{HOST}}})", "waiting"),
        ),
        graph(
            "Audit behind",
            "Age of the oldest entry that is not sealed yet.",
            Job.APP,
            (f"max(agent_app_audit_behind_seconds{{{HOST}}})", "behind"),
            unit=SECONDS,
            thresholds=(warning(60),),
        ),
        stat(
            "Lost log lines, spans, audit entries",
            "Dropped in the period because nobody took them.",
            Job.APP,
            f"(sum(increase(agent_app_log_lines_dropped_total{{{HOST}}}[$__range])) or vector(0))"
            f" + (sum(increase(agent_app_spans_dropped_total{{{HOST}}}[$__range])) or vector(0))"
            f" + (sum(increase(agent_app_audit_dropped_total{{{HOST}}}[$__range])) or vector(0))",
            unit=COUNT,
            thresholds=(warning(1),),
            span=8,
        ),
    ),
)

AGENT_APP = Dashboard(
    "agent-app",
    "Agent app",
    "Do clients get answers, how soon, and where do requests wait or fail?",
    (CLIENTS, RUNS, TOOLS, SELF),
)
