"""nginx and its certificate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ops.doctor.finding import CRITICAL, WARNING, Case, Finding

DAY = 86400.0
WARNING_DAYS, CRITICAL_DAYS = 14.0, 3.0
"""certbot renews 30 days before the end: at 14 it has failed for two weeks."""
CONFIG = Case(
    "nginx-config-invalid",
    CRITICAL,
    "nginx refuses its configuration",
    "a file below /etc/nginx was changed: {why}",
    "ops provision --tags edge,engine --limit {host}   (a file of your own: mend that line)",
)
DOWN = Case(
    "nginx-down",
    CRITICAL,
    "nginx does not run: {state}",
    "{why}",
    "systemctl start nginx; it does not stay? journalctl -b -u nginx",
)
PORT = Case(
    "edge-port-taken",
    CRITICAL,
    "port {port} belongs to {owner}",
    "another web server listens where the edge should",
    "systemctl disable --now {unit}; systemctl restart nginx",
)
EXPIRES = Case(
    "certificate-expires",
    WARNING,
    "the certificate of {domain} ends in {days} days",
    "{why}",
    "{how}",
)
EXPIRED = Case(
    "certificate-expired",
    CRITICAL,
    "the certificate of {domain} ended {days} days ago",
    "{why}",
    "{how}",
)
RENEWAL = Case(
    "certificate-renewal-failed",
    WARNING,
    "the last renewal of the certificate failed",
    "{why}",
    "certbot renew --dry-run on {host}; mended: systemctl start certbot",
)
TIMER = Case(
    "certificate-renewal-off",
    WARNING,
    "nothing renews the certificate",
    "certbot.timer is {state}",
    "systemctl enable --now certbot.timer",
)
PLACEHOLDER = Case(
    "certificate-placeholder",
    CRITICAL,
    "the edge serves a placeholder: browsers and clients refuse it",
    "no certificate was issued yet, or its files are gone",
    "ops provision --tags edge --limit {host}   (port 80 and the name must lead here)",
)
STALE = Case(
    "certificate-not-taken-up",
    WARNING,
    "nginx serves another certificate than lies on the disk",
    "it was renewed and nginx was not reloaded",
    "systemctl reload nginx",
)
PROVIDED = "provided"
ISSUED = "/etc/letsencrypt/"
CASES = (CONFIG, DOWN, PORT, EXPIRES, EXPIRED, RENEWAL, TIMER, PLACEHOLDER, STALE)
CAUSES = (
    ("rateLimited", "the authority's limit of failures is reached: wait an hour"),
    ("Timeout during connect", "port 80 is not open from outside"),
    ("Connection refused", "port 80 is not open from outside, or the authority is down"),
    ("DNS problem", "the name does not lead here"),
    ("NXDOMAIN", "the name does not exist"),
    ("unauthorized", "the name leads to another host, or the challenge is not served"),
    ("urn:ietf:params:acme", "the authority refused"),
)


def judge(host: str, evidence: Mapping[str, Any]) -> Iterator[Finding]:
    """Find what ails nginx (edge and engine proxy) and the edge's certificate."""
    units = {unit["unit"]: unit for unit in evidence.get("units", [])}
    groups = evidence.get("groups", ())
    nginx, unit = evidence.get("nginx"), units.get("nginx.service")
    if nginx and ({"edge", "gpu"} & set(groups)):
        yield from _nginx(host, nginx, unit, evidence)
    certificate = evidence.get("certificate")
    if certificate and "edge" in groups:
        yield from _certificate(host, certificate, evidence, units, unit)


def _nginx(
    host: str,
    nginx: Mapping[str, Any],
    unit: Mapping[str, Any] | None,
    evidence: Mapping[str, Any],
) -> Iterator[Finding]:
    """Its configuration, its ports, and whether it runs."""
    running = (unit or {}).get("active") in ("active", "reloading")
    said = nginx["said"]
    taken = [line for line in (unit or {}).get("log", []) if "Address already in use" in line]
    others = {
        port: about
        for port, about in (evidence.get("ports") or {}).items()
        if port in ("80", "443") and about["pid"] and about["process"] != "nginx"
    }
    if nginx["status"] and not any("Address already in use" in line for line in said):
        why = said[0].partition("] ")[2] or said[0] if said else "it does not say why"
        yield CONFIG.found(host, "nginx.service", *said, why=why,
                           severity=WARNING if running else CRITICAL)  # fmt: skip
    elif others and not running:
        for port, about in others.items():
            owner = f"{about['process']} (pid {about['pid']}, {about['unit'] or 'no unit'})"
            yield PORT.found(host, "nginx.service", f"port {port}: {owner}", *taken[-2:],
                             port=port, owner=owner,
                             unit=about["unit"] or about["process"])  # fmt: skip
    elif not running:
        log = (unit or {}).get("log", [])
        state = f"{unit['active']} ({unit['result']})" if unit else "stopped"
        why = log[-1] if log else "somebody stopped it"
        line = f"nginx.service: {state}"
        yield DOWN.found(host, "nginx.service", line, *log[-4:], state=state, why=why)


def _certificate(
    host: str,
    certificate: Mapping[str, Any],
    evidence: Mapping[str, Any],
    units: Mapping[str, Mapping[str, Any]],
    nginx: Mapping[str, Any] | None,
) -> Iterator[Finding]:
    """How long it lasts, whether it is renewed, and whether it is the one that is served."""
    domain, subject = evidence.get("domain") or "the edge", "certificate"
    if certificate["kind"] == "placeholder":
        yield PLACEHOLDER.found(host, subject, certificate["where"], *certificate["log"][-2:])
        return
    days = (certificate["expires"] - evidence["machine"]["now"]) / DAY
    renewal = units.get("certbot.service", {})
    failed = renewal.get("result", "success") != "success" or renewal.get("active") == "failed"
    text = "\n".join([*certificate["log"], *renewal.get("log", [])])
    cause = next((cause for words, cause in CAUSES if words in text), "")
    why = f"renewal fails: {cause or 'its log says why'}" if failed else "nothing has renewed it"
    how = "systemctl start certbot; it fails? journalctl -u certbot, and ports and DNS of the name"
    if certificate["kind"] == PROVIDED:
        why = "it was handed over by variables, and nobody handed over its successor"
        how = (
            f"put the new one into nginx's variables, then ops provision --tags edge --limit {host}"
        )
    lines = [f"{certificate['where']}: {days:.1f} days left, {certificate['issuer']}",
             *certificate["log"][-3:]]  # fmt: skip
    if days < 0:
        yield EXPIRED.found(host, subject, *lines, domain=domain, days=f"{-days:.0f}", why=why,
                            how=how)  # fmt: skip
    elif days < WARNING_DAYS:
        severity = CRITICAL if days < CRITICAL_DAYS else WARNING
        yield EXPIRES.found(host, subject, *lines, domain=domain, days=f"{days:.0f}", why=why,
                            how=how, severity=severity)  # fmt: skip
    elif failed:
        yield RENEWAL.found(host, "certbot.service", *renewal.get("log", [])[-3:],
                            *certificate["log"][-2:], why=cause or "its log says why")  # fmt: skip
    state = units.get("certbot.timer", {}).get("active", "stopped")
    if certificate["where"].startswith(ISSUED) and state != "active":
        yield TIMER.found(host, "certbot.timer", f"certbot.timer: {state}", state=state)
    served = certificate["served"]
    running = (nginx or {}).get("active") == "active"
    if running and served and served["fingerprint"] != certificate["fingerprint"]:
        yield STALE.found(host, subject, f"served: {served['fingerprint'][:29]}…",
                          f"on disk: {certificate['fingerprint'][:29]}…")  # fmt: skip
