"""Prometheus metrics, served on the private port only.

Labels are bounded: models, engines and tools come from the configuration, routes are templates,
and keys beyond a number share one label (`labels.py`).
"""

import platform

from prometheus_client import Counter, Gauge, Histogram, Info, disable_created_metrics

from agent_app import __version__
from agent_app.observability.pace import PaceHistogram

disable_created_metrics()  # type: ignore[no-untyped-call] # half of the page, and read by nobody

BUILD = Info("agent_app_build", "What is running.")
BUILD.info({"version": __version__, "python": platform.python_version()})

REQUESTS = Counter(
    "agent_app_requests", "HTTP requests by route template.", ["route", "method", "status"]
)
REQUEST_SECONDS = Histogram(
    "agent_app_request_seconds",
    "From a request's first byte to the last of its answer, streams included.",
    ["route", "method"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
FIRST_TOKEN = Histogram(
    "agent_app_first_token_seconds",
    "From the arrival of a request to its run's first token: what a client waits.",
    ["model"],
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120),
)
ENGINE_FIRST_TOKEN = Histogram(
    "agent_app_engine_first_token_seconds",
    "From sending a request to an engine to its first token.",
    ["model"],
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
TOKEN_GAP = PaceHistogram(
    "agent_app_token_gap_seconds",
    "Between two chunks of an engine's answer.",
    "model",
    (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
ENGINE_WAIT = Histogram(
    "agent_app_engine_wait_seconds",
    "What a step waited before the attempt that answered it: queue, pauses, failed attempts.",
    ["model"],
    buckets=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120),
)
STEP_SECONDS = Histogram(
    "agent_app_step_seconds",
    "One step of the graph: a whole answer of the model, or all tools it called.",
    ["model", "step"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300),
)
TOOL_SECONDS = Histogram(
    "agent_app_tool_seconds",
    "One call of a tool.",
    ["tool"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60),
)
TOKENS = Counter("agent_app_tokens", "Tokens by the engine's own count.", ["model", "kind"])
TOOL_CALLS = Counter("agent_app_tool_calls", "Tool calls.", ["tool", "outcome"])
KNOWLEDGE_SEARCHES = Counter(
    "agent_app_knowledge_searches", "Searches of the knowledge base, full_text or hybrid.", ["mode"]
)
MCP_SERVER_UP = Gauge("agent_app_mcp_server_up", "1 while an MCP server can be called.", ["server"])
ENGINE_FAILURES = Counter(
    "agent_app_engine_failures", "Attempts that an engine did not finish.", ["model", "reason"]
)
ANSWERS_CONTINUED = Counter(
    "agent_app_answers_continued",
    "Times another engine was asked to go on with an answer whose own had failed.",
    ["model"],
)
ENGINE_IN_FLIGHT = Gauge(
    "agent_app_engine_in_flight", "Requests an engine is working on.", ["model", "endpoint"]
)
QUEUE_LENGTH = Gauge(
    "agent_app_queue_length", "Steps of this process that wait for a place.", ["model"]
)
QUEUE_WAIT = Histogram(
    "agent_app_queue_wait_seconds",
    "How long steps waited that had to, until they had a place.",
    ["model"],
    buckets=(0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120),
)
QUEUE_POSITION = Histogram(
    "agent_app_queue_position",
    "Places in the queue as steps joined it.",
    ["model"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
QUEUE_REFUSED = Counter(
    "agent_app_queue_refused", "Steps the queue refused: full, timeout.", ["model", "reason"]
)
QUEUE_ALONE = Counter(
    "agent_app_queue_alone",
    "Steps let through by this process's own queue: Redis gave no answer.",
    ["model"],
)
RUNS = Counter("agent_app_runs", "Runs by how they ended.", ["model", "outcome"])
RUNS_IN_FLIGHT = Gauge("agent_app_runs_in_flight", "Runs under way in this process.")
RUNS_RESUMED = Counter("agent_app_runs_resumed", "Runs taken up again at their last checkpoint.")
ROUTES = Counter(
    "agent_app_routes",
    "Decisions to leave a model's own engines; barred_by says what forbade it.",
    ["model", "to", "why", "barred_by"],
)
CLOUD_COST = Counter(
    "agent_app_cloud_cost", "Price of clouds' answers, in the configuration's currency.", ["cloud"]
)
CACHE = Counter(
    "agent_app_cache", "Requests by what the cache of answers did.", ["kind", "outcome", "reason"]
)
STREAMS_REJOINED = Counter(
    "agent_app_streams_rejoined", "Clients that came back to a run that was still here."
)
LIMITED = Counter("agent_app_limited", "Runs refused by a limit of their key.", ["limit"])
LIMITS_OPEN = Counter(
    "agent_app_limits_open", "Runs let in without a check of limits: Redis gave no answer."
)
BUDGET_PASSED = Counter(
    "agent_app_budget_passed", "Runs that began or were refused beyond a budget.", ["key", "level"]
)
KEY_TOKENS = Counter("agent_app_key_tokens", "Tokens by key.", ["model", "key", "kind"])
KEY_ENGINE_SECONDS = Counter(
    "agent_app_key_engine_seconds", "Wall clock of engine streams by key.", ["model", "key"]
)
JOBS = Gauge("agent_app_jobs", "Jobs of all processes that are not over.", ["status"])
JOB_QUEUE_AGE = Gauge(
    "agent_app_job_queue_age_seconds", "How long the queued job that is due longest has waited."
)
JOBS_SUBMITTED = Counter("agent_app_jobs_submitted", "Jobs taken in.")
JOBS_ENDED = Counter("agent_app_jobs_ended", "Jobs by how they ended.", ["status"])
JOBS_PUT_OFF = Counter("agent_app_jobs_put_off", "Attempts at jobs that wait again.", ["reason"])
JOB_START = Histogram(
    "agent_app_job_start_seconds",
    "From the submission of a job to its first attempt.",
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200),
)
JOB_RUN = Histogram(
    "agent_app_job_run_seconds",
    "Wall clock of an attempt at a job.",
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900, 1800, 3600, 7200),
)
WEBHOOKS = Counter(
    "agent_app_webhooks", "Posts of webhooks by what came of it.", ["kind", "outcome"]
)
AUDIT_HEAD = Gauge("agent_app_audit_head", "Number of the newest entry of the audit's chain.")
AUDIT_FINGERPRINT = Gauge(
    "agent_app_audit_head_fingerprint", "First 48 bits of that entry's hash, to pin the chain."
)
AUDIT_BEHIND = Gauge(
    "agent_app_audit_behind_seconds", "Age of the oldest audit entry that is not sealed yet."
)
AUDIT_DROPPED = Counter(
    "agent_app_audit_dropped", "Audit entries dropped while the database was away too long."
)

LOOP_LAG = Histogram(
    "agent_app_event_loop_lag_seconds",
    "How late the event loop wakes a sleeper: what every stream of the process waits.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
TASKS = Gauge("agent_app_tasks", "Tasks of the event loop.")
DATABASE_CONNECTIONS = Gauge(
    "agent_app_database_connections", "Connections to PostgreSQL.", ["state"]
)
DATABASE_WAITING = Gauge("agent_app_database_waiting", "Who waits for one of them.")
LOG_LINES_DROPPED = Counter(
    "agent_app_log_lines_dropped", "Log lines that could not be written.", ["reason"]
)
SPANS_DROPPED = Counter(
    "agent_app_spans_dropped", "Spans that the collector did not get.", ["reason"]
)
