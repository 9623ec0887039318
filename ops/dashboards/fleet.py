"""The fleet: is it well, and how full are its hosts and its data stores."""

from ops.dashboards.headline import HEADLINE
from ops.dashboards.panel import (
    Dashboard,
    Job,
    Kind,
    Row,
    critical,
    graph,
    stat,
    state,
    table,
    warning,
)
from ops.dashboards.unit import BYTES, BYTES_PER_SECOND, PER_SECOND, SECONDS, SERVES, SHARE

HOST = 'host=~"$host"'
DISKS = f'{HOST}, mountpoint!~"/(boot|run|snap).*"'
LINKS = f'{HOST}, device!~"lo|veth.*|docker.*|podman.*|virbr.*"'

STATE_ROW = Row(
    "What answers",
    (
        state(
            "Hosts and services",
            "Whether Prometheus reaches each target. An engine's idle slot is down on purpose and "
            "is left out: it is on the dashboard of engines.",
            Job.PROMETHEUS,
            f'min by (job, host) (up{{job!="engine", {HOST}}})',
            "{{job}} on {{host}}",
        ),
        table(
            "Alerts that fire now",
            "What Prometheus finds wrong at this moment; each has a runbook page. How many series "
            "of an alert fire is its value.",
            Job.PROMETHEUS,
            'count by (alertname, severity, host) (ALERTS{alertstate="firing"})',
            "{{alertname}} ({{severity}}) {{host}}",
            events=True,
        ),
        table(
            "Alerts of the period",
            "How long each fired, to the minute.",
            Job.PROMETHEUS,
            "sum by (alertname, severity, host) "
            '(sum_over_time(ALERTS{alertstate="firing"}[$__range:1m])) * 60',
            "{{alertname}} ({{severity}}) {{host}}",
            unit=SECONDS,
            events=True,
        ),
        graph(
            "Firing alerts",
            "How many fired over time, by severity.",
            Job.PROMETHEUS,
            ('count by (severity) (ALERTS{alertstate="firing"})', "{{severity}}"),
            events=True,
            kind=Kind.STACK,
            span=12,
        ),
        graph(
            "Time of a scrape",
            "The slowest target of each job. A GPU exporter that slows down is often a driver "
            "about to hang.",
            Job.PROMETHEUS,
            (f"max by (job) (scrape_duration_seconds{{{HOST}}})", "{{job}}"),
            unit=SECONDS,
            thresholds=(warning(5),),
            span=12,
        ),
        state(
            "In service",
            "Whether a host takes new requests. One that is drained for longer than its work takes "
            "was forgotten.",
            Job.NODE,
            f"1 - max by (host) (rackhand_host_drained{{{HOST}}})",
            "{{host}}",
            unit=SERVES,
        ),
        table(
            "Failed units",
            "That systemd lists as failed now; ops status has their last lines.",
            Job.NODE,
            f"max by (host, unit) (rackhand_unit_failed{{{HOST}}}) == 1",
            "{{unit}} on {{host}}",
            events=True,
        ),
        table(
            "Operations",
            "Of ops, that run or were left unfinished: ops resume or ops abort ends one.",
            Job.NODE,
            f"max by (verb, subject, status) (rackhand_operation_open{{{HOST}}})",
            "{{verb}} {{subject}}: {{status}}",
            events=True,
            span=8,
        ),
        stat(
            "Messages not sent",
            "Notifications that Alertmanager could not deliver in the period: whoever should have "
            "been woken was not.",
            Job.ALERTMANAGER,
            "sum(increase(alertmanager_notifications_failed_total[$__range]))",
            thresholds=(critical(1),),
            span=8,
        ),
    ),
)

HOST_ROW = Row(
    "Hosts",
    (
        graph(
            "Processor",
            "Share of all cores that works.",
            Job.NODE,
            (
                "1 - avg by (host) "
                f'(rate(node_cpu_seconds_total{{mode="idle", {HOST}}}[$__rate_interval]))',
                "{{host}}",
            ),
            unit=SHARE,
            largest=1,
            thresholds=(warning(0.9),),
        ),
        graph(
            "Memory",
            "Share that is not available to a new process; page cache counts as available.",
            Job.NODE,
            (
                f"1 - node_memory_MemAvailable_bytes{{{HOST}}} "
                f"/ node_memory_MemTotal_bytes{{{HOST}}}",
                "{{host}}",
            ),
            unit=SHARE,
            largest=1,
            thresholds=(warning(0.9), critical(0.97)),
        ),
        graph(
            "Disks",
            "Share of each file system that is full; past 85 % an alert fires.",
            Job.NODE,
            (
                f"1 - max by (host, mountpoint) (node_filesystem_avail_bytes{{{DISKS}}} "
                f"/ node_filesystem_size_bytes{{{DISKS}}})",
                "{{host}} {{mountpoint}}",
            ),
            unit=SHARE,
            largest=1,
            thresholds=(warning(0.85), critical(0.95)),
        ),
        graph(
            "Load per core",
            "Processes that run or wait, averaged over 5 minutes, by the number of cores.",
            Job.NODE,
            (
                f"node_load5{{{HOST}}} / on (host) "
                f'count by (host) (node_cpu_seconds_total{{mode="idle", {HOST}}})',
                "{{host}}",
            ),
            thresholds=(warning(2),),
        ),
        graph(
            "Network",
            "Bytes per second through each host's links; loopback and virtual ones are left out.",
            Job.NODE,
            (
                "sum by (host) "
                f"(rate(node_network_receive_bytes_total{{{LINKS}}}[$__rate_interval]))",
                "{{host}} in",
            ),
            (
                "sum by (host) "
                f"(rate(node_network_transmit_bytes_total{{{LINKS}}}[$__rate_interval]))",
                "{{host}} out",
            ),
            unit=BYTES_PER_SECOND,
        ),
        graph(
            "Disks at work",
            "Share of the time in which a disk had something to do; near 100 % everything waits.",
            Job.NODE,
            (
                "max by (host) "
                f"(rate(node_disk_io_time_seconds_total{{{HOST}}}[$__rate_interval]))",
                "{{host}}",
            ),
            unit=SHARE,
            optional="a container sees no disk of its own",
        ),
        graph(
            "Clock",
            "How far each host's clock is from that of the one that watches; a scrape's own time "
            "is in it.",
            Job.NODE,
            (
                f"abs(node_time_seconds{{{HOST}}} - timestamp(node_time_seconds{{{HOST}}}))",
                "{{host}}",
            ),
            unit=SECONDS,
            thresholds=(warning(5),),
        ),
        table(
            "Up since",
            "Time since each host booted.",
            Job.NODE,
            f"node_time_seconds{{{HOST}}} - node_boot_time_seconds{{{HOST}}}",
            "{{host}}",
            unit=SECONDS,
            span=8,
        ),
    ),
)

DATA_ROW = Row(
    "PostgreSQL and Redis",
    (
        state(
            "PostgreSQL",
            "Whether it can be asked, as its exporter finds it.",
            Job.POSTGRES,
            f"min by (host) (pg_up{{{HOST}}})",
            "{{host}}",
        ),
        state(
            "Redis",
            "The same of its two instances.",
            Job.REDIS,
            f"min by (host, instance) (redis_up{{{HOST}}})",
            "{{instance}} on {{host}}",
        ),
        graph(
            "PostgreSQL: connections",
            "Share of max_connections in use; at 100 % the app gets no new one.",
            Job.POSTGRES,
            (
                f"sum by (host) (pg_stat_activity_count{{{HOST}}}) "
                f"/ on (host) max by (host) (pg_settings_max_connections{{{HOST}}})",
                "{{host}}",
            ),
            unit=SHARE,
            largest=1,
            thresholds=(warning(0.8), critical(0.95)),
        ),
        graph(
            "PostgreSQL: transactions",
            "Per second, and those that were rolled back.",
            Job.POSTGRES,
            (
                f"sum by (host) (rate(pg_stat_database_xact_commit{{{HOST}}}[$__rate_interval]))",
                "{{host}} committed",
            ),
            (
                f"sum by (host) (rate(pg_stat_database_xact_rollback{{{HOST}}}[$__rate_interval]))",
                "{{host}} rolled back",
            ),
            unit=PER_SECOND,
        ),
        graph(
            "PostgreSQL: size",
            "Of each database; checkpoints and the audit make it grow.",
            Job.POSTGRES,
            (
                f'max by (host, datname) (pg_database_size_bytes{{datname!~"template.*", {HOST}}})',
                "{{host}} {{datname}}",
            ),
            unit=BYTES,
        ),
        graph(
            "Redis: memory",
            "Share of maxmemory. The cache may be full, it evicts; the state store refuses writes.",
            Job.REDIS,
            (
                f"redis_memory_used_bytes{{{HOST}}} / redis_memory_max_bytes{{{HOST}}}",
                "{{host}} {{instance}}",
            ),
            unit=SHARE,
            largest=1,
            thresholds=(warning(0.9),),
        ),
        graph(
            "Redis: commands",
            "Per second and instance.",
            Job.REDIS,
            (
                f"rate(redis_commands_processed_total{{{HOST}}}[$__rate_interval])",
                "{{host}} {{instance}}",
            ),
            unit=PER_SECOND,
        ),
        graph(
            "Redis: keys evicted",
            "Per second. The cache's are normal; the state store never evicts.",
            Job.REDIS,
            (
                f"rate(redis_evicted_keys_total{{{HOST}}}[$__rate_interval])",
                "{{host}} {{instance}}",
            ),
            unit=PER_SECOND,
        ),
    ),
)

FLEET = Dashboard(
    "fleet",
    "Fleet",
    "Is everything well, what fires, and how full are hosts and data stores?",
    (Row("At a glance", HEADLINE), STATE_ROW, HOST_ROW, DATA_ROW),
)
