"""What the database promises."""

from __future__ import annotations

import pytest
from testinfra.host import Host as Connection

from ops.fleet import Fleet
from ops.verify.probes import ask, assert_listens_only_at, assert_unit_runs

GROUPS = ("data",)
LOGINS = {"rackhand_owner", "agent_app", "agent_app_b"}
LOOPBACK = ("127.0.0.1", "::1")
SCHEMAS = ("app", "audit", "analytics", "checkpoints")


def sql(host: Connection, statement: str, database: str = "rackhand") -> list[str]:
    """Run a query as PostgreSQL's own superuser and return its rows."""
    result = host.run("runuser -u postgres -- psql -XtA -d %s -c %s", database, statement)
    assert result.rc == 0, f"psql: {result.stderr.strip()}"
    return [row for row in str(result.stdout).splitlines() if row]


@pytest.fixture(scope="module")
def cluster(host: Connection) -> str:
    """The unit of the server, such as postgresql@15-main.service."""
    rows = ask(host, "pg_lsclusters --no-header").splitlines()
    assert len(rows) == 1, f"one cluster was expected, there are {len(rows)}"
    version, name = rows[0].split()[:2]
    return f"postgresql@{version}-{name}.service"


def test_the_server_runs_and_comes_back_after_a_reboot(host: Connection, cluster: str) -> None:
    assert_unit_runs(host, cluster, enabled=False)
    assert_unit_runs(host, "postgresql.service")


def test_it_comes_back_when_it_is_killed(host: Connection, cluster: str) -> None:
    found = ask(host, f"systemctl show -P Restart {cluster}").strip()
    assert found == "on-failure", f"{cluster} has Restart={found}: nobody starts it again"


def test_it_listens_on_the_private_address_only(
    host: Connection, address: str, fleet: Fleet
) -> None:
    found = {"127.0.0.1"} if fleet.single else {"127.0.0.1", address}
    open_at = {a for a in ("127.0.0.1", address) if host.socket(f"tcp://{a}:5432").is_listening}
    assert_listens_only_at(host, 5432, open_at & found or {address})
    assert address in open_at, f"port 5432 is not open at {address}"


def test_passwords_are_kept_as_scram(host: Connection) -> None:
    assert sql(host, "SHOW password_encryption") == ["scram-sha-256"]
    weak = sql(
        host,
        "SELECT rolname FROM pg_authid WHERE rolcanlogin AND rolpassword IS NOT NULL "
        "AND rolpassword NOT LIKE 'SCRAM-SHA-256$%'",
    )
    assert not weak, f"other than SCRAM: {', '.join(weak)}"


def test_no_one_enters_without_scram_or_being_the_local_superuser(
    host: Connection, fleet: Fleet
) -> None:
    rules = sql(host, "SELECT type, auth_method, line_number FROM pg_hba_file_rules")
    loose = [rule for rule in rules if rule.split("|")[1] not in ("scram-sha-256", "peer")]
    assert not loose, f"pg_hba.conf lets in by other means: {loose}"
    if not fleet.single:
        assert any(rule.startswith("hostssl|") for rule in rules), "no rule asks for TLS"


def test_the_schemas_belong_to_the_owner_of_migrations(host: Connection) -> None:
    rows = sql(
        host,
        "SELECT nspname FROM pg_namespace WHERE nspowner = 'rackhand_owner'::regrole",
    )
    assert set(SCHEMAS) <= set(rows), f"found only {rows}"


def test_the_app_has_no_right_beyond_its_rows(host: Connection) -> None:
    rights = sql(
        host,
        "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls "
        "FROM pg_roles WHERE rolname = 'agent_app'",
    )
    assert rights == ["f|f|f|f|f"]
    creates = sql(
        host,
        "SELECT nspname FROM pg_namespace WHERE has_schema_privilege('agent_app', oid, 'CREATE')",
    )
    assert not [name for name in creates if not name.startswith("pg_temp")], creates


def test_only_our_roles_enter_over_the_network_and_no_superuser_does(
    host: Connection, fleet: Fleet
) -> None:
    rules = sql(
        host,
        "SELECT type, unnest(user_name), array_to_string(database, ','), address "
        "FROM pg_hba_file_rules WHERE type <> 'local'",
    )
    found = [rule.split("|") for rule in rules]
    strangers = {user for _, user, _, _ in found} - LOGINS
    assert not strangers, f"pg_hba.conf lets in over the network: {', '.join(sorted(strangers))}"
    assert {database for _, _, database, _ in found} == {"rackhand"}
    clear = [rule for rule in found if rule[0] != "hostssl" and rule[3] not in LOOPBACK]
    assert not clear, f"without TLS: {clear}"
    rows = sql(host, "SELECT rolname FROM pg_roles WHERE rolsuper AND rolcanlogin")
    assert rows == ["postgres"], f"superusers: {', '.join(rows)}"


def test_the_apps_logins_are_one_role_and_leave_connections_to_others(host: Connection) -> None:
    rows = sql(
        host,
        "SELECT rolname, rolpassword IS NOT NULL, "
        "rolconnlimit BETWEEN 1 AND current_setting('max_connections')::int - 1, "
        "pg_has_role(rolname, 'agent_app', 'MEMBER') "
        "FROM pg_authid WHERE rolname IN ('agent_app', 'agent_app_b')",
    )
    found = {row.split("|")[0]: row.split("|")[1:] for row in rows}
    assert {name: rest[1:] for name, rest in found.items()} == {
        "agent_app": ["t", "t"],
        "agent_app_b": ["t", "t"],
    }
    open_ones = [name for name, rest in found.items() if rest[0] == "t"]
    assert len(open_ones) == 1, f"logins with a password: {open_ones}\ncure: ops history"


def test_the_app_cannot_change_the_audit(host: Connection) -> None:
    rows = sql(
        host,
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'audit' AND c.relkind IN ('r', 'p') AND "
        "has_table_privilege('agent_app', c.oid, 'UPDATE, DELETE, TRUNCATE')",
    )
    assert not rows, f"agent_app may change {', '.join(rows)}"


def test_the_public_has_no_way_in(host: Connection) -> None:
    rows = sql(
        host,
        "SELECT privilege_type FROM pg_database, aclexplode(datacl) "
        "WHERE datname = 'rackhand' AND grantee = 0",
    )
    assert not rows, f"PUBLIC has {', '.join(rows)} on the database rackhand"
