"""Prometheus metrics, served on the private port only."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "agent_app_requests", "HTTP requests by route template.", ["route", "method", "status"]
)
FIRST_TOKEN = Histogram(
    "agent_app_first_token_seconds",
    "From the start of a run to its first token.",
    ["model"],
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120),
)
TOKENS = Counter("agent_app_tokens", "Tokens by the engine's own count.", ["model", "kind"])
TOOL_CALLS = Counter("agent_app_tool_calls", "Tool calls.", ["tool", "outcome"])
ENGINE_FAILURES = Counter(
    "agent_app_engine_failures", "Attempts that an engine did not finish.", ["model", "reason"]
)
ENGINE_IN_FLIGHT = Gauge(
    "agent_app_engine_in_flight", "Requests an engine is working on.", ["model", "endpoint"]
)
RUNS = Counter("agent_app_runs", "Runs by how they ended.", ["model", "outcome"])
RUNS_IN_FLIGHT = Gauge("agent_app_runs_in_flight", "Runs under way in this process.")
RUNS_RESUMED = Counter("agent_app_runs_resumed", "Runs taken up again at their last checkpoint.")
