"""The secrets that Rackhand makes: what each opens, who has it, and how it is replaced. Data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ops.errors import InputError
from ops.secrets.fleet_ca import CA_CERTIFICATE, CA_KEY

CERTIFICATES, DATA, APP, WATCH, REMEDIATOR = "tls", "data", "app", "watch", "remediator"
"""Tags of playbooks/secrets.yml."""


@dataclass(frozen=True)
class Secret:
    """One of them.

    Attributes:
        name: In the store.
        where: What it opens, and which hosts have it.
        how: How it is replaced, or why it is not.
        rotates: Whether `ops secrets rotate` replaces it.
        checked: Layers that check it; they take both values meanwhile. None: it has one at a time.
        shown: Layers that show it.
        app: Whether the app's instances have it, who read it when they start.
        told_first: Whether the app has to know the next one before anybody uses it.
        told_last: Whether the app knows the old one until it restarts once more.
        by_name: Whether it is rotated only when it is named: somebody outside has to be told.
        caution: What to know before, where it is rotated.
        parts: Its names in the store, where these are others than its own.
    """

    name: str
    where: str
    how: str
    rotates: bool = True
    checked: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    app: bool = False
    told_first: bool = False
    told_last: bool = False
    by_name: bool = False
    caution: str = ""
    parts: tuple[str, ...] = ()

    @property
    def stored(self) -> tuple[str, ...]:
        """Its names in the store."""
        return self.parts or (self.name,)


SECRETS = (
    Secret(
        "database_agent_app", "PostgreSQL, the app's login: data, agent",
        "the app moves to its other login, instance by instance; then the old one is closed",
        checked=(DATA,), shown=(APP,), app=True,
    ),
    Secret(
        "database_owner", "PostgreSQL, rackhand_owner, for migrations: data, agent",
        "replaced at once: only a migration that starts shows it, and it tries again",
        shown=(DATA, APP),
    ),
    Secret(
        "redis_agent_app", "Redis, user agent_app: data, agent",
        "Redis takes both while the app restarts, instance by instance",
        checked=(DATA,), shown=(APP,), app=True,
    ),
    Secret(
        "redis_monitor", "Redis, user monitor: data",
        "Redis takes both while its exporter restarts", checked=(DATA,), shown=(WATCH,),
    ),
    Secret(
        "redis_reloader", "Redis, user reloader, which reads users anew: data",
        "Redis takes both meanwhile", checked=(DATA,), shown=(DATA,),
    ),
    Secret(
        "api_key_secret", "hashes of the API keys: agent",
        "the app knows both; a key is hashed anew when it is used (ops keys rotate replaces a key)",
        checked=(APP,), shown=(APP,), app=True, told_first=True,
        caution="API keys that nobody used since the last rotation of api_key_secret end with this "
        "one (ops keys list shows the last use)",
    ),
    Secret(
        "webhook_secret", "signatures of webhooks of jobs, a key of it for each API key: agent",
        "the app signs with the next one from its restart on; only when it is named",
        shown=(APP,), app=True, by_name=True,
        caution="receivers of webhooks need their new secrets at the same time: on an agent host, "
        "agent-app webhooks secret NAME",
    ),
    Secret(
        "remediator_token", "Alertmanager's way to the remediator: monitoring",
        "both restart; an alert meanwhile is told again", shown=(REMEDIATOR,),
    ),
    Secret(
        "remediator_ssh_key", "the remediator's key: monitoring; all hosts have its public half",
        "replaced at once; the remediator cannot act for the seconds between", shown=(REMEDIATOR,),
    ),
    Secret(
        "tls", "TLS between hosts, the fleet's own CA: all",
        "a second CA is trusted beside the old one, all hosts get certificates of it, then the old "
        "one is trusted no more; only when it is named",
        checked=(CERTIFICATES,), shown=(CERTIFICATES,), told_first=True, told_last=True,
        by_name=True, parts=(CA_CERTIFICATE, CA_KEY),
        caution="both Redis restart once, for a second: limits are open and the cache is cold",
    ),
    Secret(
        "audit_secret", "data keys and signatures of the audit: agent",
        "never: what was sealed with it opens with nothing else, and seals must stay provable",
        rotates=False,
    ),
    Secret(
        "grafana_admin", "Grafana's user admin: monitoring",
        "in Grafana, which keeps its own copy from its first start on", rotates=False,
    ),
    Secret(
        "backup_ssh_key", "restic's way to the repository's host: hosts of backups",
        "never here: ops provision makes a new one where it is gone", rotates=False,
    ),
    Secret(
        "backup_passphrase", "backups: data",
        "never here: backups that were made with it open with nothing else", rotates=False,
    ),
)  # fmt: skip
BY_NAME: Mapping[str, Secret] = {secret.name: secret for secret in SECRETS}
TLS = "tls/"
TLS_WHERE = "TLS between hosts"
TLS_HOW = "by site.yml, 30 days before it lapses; ops secrets rotate tls, with the CA"


def chosen(words: list[str], there: Mapping[str, object]) -> list[Secret]:
    """Return the secrets that a person names; no name and `all` mean all that rotate by themselves.

    Raises:
        InputError: One is unknown, is not there, or is not rotated.
    """
    if not words or words == ["all"]:
        return [s for s in SECRETS if s.rotates and not s.by_name and s.stored[0] in there]
    for word in words:
        secret = BY_NAME.get(word)
        if secret is None or secret.stored[0] not in there:
            raise InputError(
                f"there is no secret {word}", place=word, cure="ops secrets list tells them"
            )
        if not secret.rotates:
            raise InputError(f"{word} is not rotated", place=word, cure=secret.how)
    return [secret for secret in SECRETS if secret.name in words]
