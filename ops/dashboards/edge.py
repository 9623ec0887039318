"""The edge: can the world reach the service, and what comes through nginx."""

from ops.dashboards.headline import ASKED, HOST
from ops.dashboards.panel import Dashboard, Job, Kind, Row, critical, graph, stat, state, warning
from ops.dashboards.unit import (
    BYTES_PER_SECOND,
    COUNT,
    DAYS,
    PER_SECOND,
    REQUESTS_PER_SECOND,
    SECONDS,
    SHARE,
)

LINKS = f'{HOST}, device!~"lo|veth.*|docker.*|podman.*|virbr.*"'

REACHED = Row(
    "From outside",
    (
        stat(
            "Availability",
            "Share of the period's probes of /ready that were answered well.",
            Job.BLACKBOX,
            f'avg(avg_over_time(probe_success{{instance=~".*/ready", {HOST}}}[$__range]))',
            unit=SHARE,
            thresholds=(warning(0.999, below=True), critical(0.99, below=True)),
        ),
        stat(
            "Certificate",
            "Days until the first certificate that nginx serves lapses. certbot renews 30 days "
            "ahead.",
            Job.NODE,
            f"(min(rackhand_certificate_expiry_timestamp_seconds{{{HOST}}}) - time()) / 86400",
            unit=DAYS,
            thresholds=(warning(14, below=True), critical(3, below=True)),
        ),
        stat(
            "Requests of the period",
            "Through nginx in the period, everything included.",
            Job.NGINX,
            f"sum(increase(nginx_http_requests_total{{{HOST}}}[$__range]))",
            unit=COUNT,
        ),
        state(
            "Probes",
            "Whether each address answered as it should.",
            Job.BLACKBOX,
            f"min by (host, instance) (probe_success{{{HOST}}})",
            "{{instance}}",
        ),
        graph(
            "Time of a probe",
            "From looking up the name to the last byte.",
            Job.BLACKBOX,
            (f"max by (instance) (probe_duration_seconds{{{HOST}}})", "{{instance}}"),
            unit=SECONDS,
            thresholds=(warning(2),),
        ),
        graph(
            "Phases of a probe",
            "Where the time goes: resolve, connect, tls, processing, transfer.",
            Job.BLACKBOX,
            (f"max by (phase) (probe_http_duration_seconds{{{HOST}}})", "{{phase}}"),
            unit=SECONDS,
            kind=Kind.STACK,
        ),
        graph(
            "Days left",
            "Of each certificate that nginx serves.",
            Job.NODE,
            (
                "(min by (name, host) "
                f"(rackhand_certificate_expiry_timestamp_seconds{{{HOST}}}) - time()) / 86400",
                "{{name}} on {{host}}",
            ),
            unit=DAYS,
            thresholds=(warning(14, below=True),),
        ),
    ),
)

NGINX = Row(
    "nginx",
    (
        graph(
            "Requests",
            "Per second and host, everything included: probes, refused ones, the page's files.",
            Job.NGINX,
            (
                f"sum by (host) (rate(nginx_http_requests_total{{{HOST}}}[$__rate_interval]))",
                "{{host}}",
            ),
            unit=REQUESTS_PER_SECOND,
        ),
        graph(
            "Connections",
            "Open ones, by what they do. Streams of answers are writing.",
            Job.NGINX,
            (f"sum by (host) (nginx_connections_writing{{{HOST}}})", "{{host}} writing"),
            (f"sum by (host) (nginx_connections_reading{{{HOST}}})", "{{host}} reading"),
            (f"sum by (host) (nginx_connections_waiting{{{HOST}}})", "{{host}} idle"),
        ),
        graph(
            "Connections dropped",
            "Per second: nginx accepted them and had no room.",
            Job.NGINX,
            (
                f"sum by (host) (rate(nginx_connections_accepted{{{HOST}}}[$__rate_interval])) - "
                f"sum by (host) (rate(nginx_connections_handled{{{HOST}}}[$__rate_interval]))",
                "{{host}}",
            ),
            unit=PER_SECOND,
            thresholds=(warning(0.1),),
        ),
        graph(
            "Answers of the app",
            "Per second, by class of status, of what the edge let through.",
            Job.APP,
            (
                "sum by (class) (label_replace(rate(agent_app_requests_total{"
                f'{ASKED}}}[$__rate_interval]), "class", "${{1}}xx", "status", "(.).."))',
                "{{class}}",
            ),
            unit=REQUESTS_PER_SECOND,
            kind=Kind.STACK,
        ),
        graph(
            "Network",
            "Bytes per second through the links of the hosts that run nginx.",
            Job.NODE,
            (
                f"sum by (host) (rate(node_network_transmit_bytes_total{{{LINKS}}}"
                "[$__rate_interval])) and on (host) nginx_up",
                "{{host}} out",
            ),
            (
                f"sum by (host) (rate(node_network_receive_bytes_total{{{LINKS}}}"
                "[$__rate_interval])) and on (host) nginx_up",
                "{{host}} in",
            ),
            unit=BYTES_PER_SECOND,
        ),
    ),
)

EDGE = Dashboard(
    "edge",
    "Edge",
    "Can the world reach the service, and what comes in?",
    (REACHED, NGINX),
)
