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
