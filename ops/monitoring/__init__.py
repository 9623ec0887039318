"""Read what the fleet's own Prometheus and Alertmanager know."""

from ops.monitoring.http import Service, reached
from ops.monitoring.prometheus import Alert, Prometheus, Sample, Series, Target, prometheus

__all__ = [
    "Alert",
    "Prometheus",
    "Sample",
    "Series",
    "Service",
    "Target",
    "prometheus",
    "reached",
]
