from app_process import ROOT, AppProcess
from data_servers import Postgres

VERSIONS = ROOT / "agent_app" / "state" / "migrations" / "versions"


def test_four_migrations_at_once_all_succeed(
    prepared: AppProcess, postgres: Postgres, configuration
) -> None:
    newest = max(path.name[1:5] for path in VERSIONS.glob("v*.py"))
    postgres.make_database("rackhand_four")
    try:
        configuration["database"]["name"] = "rackhand_four"
        app = AppProcess(prepared.folder, configuration)
        processes = [app.command("migrate") for _ in range(4)]
        for process in processes:
            out, err = process.communicate(timeout=90)
            assert process.returncode == 0, err
            assert f"revision {newest}" in out
    finally:
        postgres.drop_database("rackhand_four")


def test_a_database_that_a_later_release_moved_on_is_left_as_it_is(
    prepared: AppProcess, postgres: Postgres, configuration
) -> None:
    postgres.make_database("rackhand_ahead")
    try:
        configuration["database"]["name"] = "rackhand_ahead"
        app = AppProcess(prepared.folder, configuration)
        app.run("migrate")
        with postgres.admin("rackhand_ahead") as connection:
            connection.execute("UPDATE app.alembic_version SET version_num = '9999'")
        assert "revision 9999" in app.run("migrate")
    finally:
        postgres.drop_database("rackhand_ahead")


def test_a_database_without_schemas_is_told_from_a_broken_one(
    prepared: AppProcess, postgres: Postgres, configuration
) -> None:
    configuration["database"]["name"] = "postgres"
    done = AppProcess(prepared.folder, configuration).complete("migrate")
    assert done.returncode == 2
    assert "run the postgres role" in done.stderr
    assert "Traceback" not in done.stderr


def test_ingest_again_changes_nothing(prepared: AppProcess, tmp_path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "a.md").write_text("# A\n\nAlpha.\n")
    assert prepared.run("knowledge", "ingest", str(documents)).startswith("1 new")
    assert prepared.run("knowledge", "ingest", str(documents)) == "0 new or changed, 1 unchanged"


def test_serving_without_the_key_secret_is_refused(prepared: AppProcess) -> None:
    (prepared.folder / "credentials" / "key_secret").write_text("")
    done = prepared.complete("serve", "--port", str(prepared.port))
    assert done.returncode == 2
    assert "key_secret" in done.stderr
    assert "Cure" in done.stderr
