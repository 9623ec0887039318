"""The eight numbers that a report begins with, and the first row of the fleet's dashboard."""

from ops.dashboards.panel import Job, critical, stat, warning
from ops.dashboards.unit import CELSIUS, COUNT, SECONDS, SHARE

HOST = 'host=~"$host"'
ASKED = f'route!~"/health|/ready|/metrics|/app.css|/app.js|/page/.*|unmatched", {HOST}'
"""Requests of clients, without probes and the chat page's own files."""

HEADLINE = (
    stat(
        "Requests",
        "Requests of clients to the agent app in the period, without probes.",
        Job.APP,
        f"sum(increase(agent_app_requests_total{{{ASKED}}}[$__range]))",
        unit=COUNT,
        span=3,
    ),
    stat(
        "Failed share",
        "Share of them that ended in a 5xx other than 503, which says that all places are taken.",
        Job.APP,
        f'(sum(increase(agent_app_requests_total{{status=~"5..", status!="503", {ASKED}}}'
        "[$__range])) or vector(0))"
        f" / sum(increase(agent_app_requests_total{{{ASKED}}}[$__range]))",
        unit=SHARE,
        thresholds=(warning(0.01), critical(0.05)),
        optional="nobody asked in the period",
        span=3,
    ),
    stat(
        "First token, p95",
        "95 of 100 clients waited no longer for the first token of their answer.",
        Job.APP,
        "histogram_quantile(0.95, sum by (le) "
        f"(increase(agent_app_first_token_seconds_bucket{{{HOST}}}[$__range])))",
        unit=SECONDS,
        thresholds=(warning(2), critical(10)),
        optional="nobody asked in the period",
        span=3,
    ),
    stat(
        "Tokens",
        "Tokens of prompts and answers, by the engines' own count.",
        Job.APP,
        f"sum(increase(agent_app_tokens_total{{{HOST}}}[$__range]))",
        unit=COUNT,
        optional="nobody asked in the period",
        span=3,
    ),
    stat(
        "GPU use",
        "Share of the period in which a kernel ran, averaged over all GPUs.",
        Job.GPU,
        f"avg(avg_over_time(gpu_utilization_ratio{{{HOST}}}[$__range]))",
        unit=SHARE,
        span=3,
    ),
    stat(
        "Hottest GPU",
        "Highest temperature that any GPU had in the period.",
        Job.GPU,
        "topk(1, max by (host, gpu) "
        f'(max_over_time(gpu_temperature_celsius{{sensor="gpu", {HOST}}}[$__range])))',
        "{{host}} GPU {{gpu}}",
        unit=CELSIUS,
        thresholds=(warning(85), critical(95)),
        span=3,
    ),
    stat(
        "Alerts",
        "Different alerts that fired in the period, however often.",
        Job.PROMETHEUS,
        'count(max_over_time(ALERTS{alertstate="firing"}[$__range])) or vector(0)',
        thresholds=(warning(1),),
        span=3,
    ),
    stat(
        "Availability",
        "Share of the probes of /ready, through the edge and TLS, that were answered well.",
        Job.BLACKBOX,
        f'avg(avg_over_time(probe_success{{instance=~".*/ready", {HOST}}}[$__range]))',
        unit=SHARE,
        thresholds=(warning(0.999, below=True), critical(0.99, below=True)),
        span=3,
    ),
)
