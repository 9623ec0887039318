#!/usr/bin/python3
# Laid down by Rackhand; changes here are overwritten.
"""Back up this host's part of the fleet, and prove backups by restoring them.

`backup VERB [WORDS]`: prepare, run auto|full|diff|incr, verify, files, restic WORDS…  What the host
is for stands in /etc/rackhand/backup.json. PostgreSQL is pgBackRest's, files are restic's; this
program calls them and tells Prometheus what came of it. Standard library of the host's own Python.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

CONFIG = Path("/etc/rackhand/backup.json")
CREDENTIALS = Path("/etc/rackhand/credentials/backup")
FOREIGN = 28
"""pgBackRest's exit status where the repository holds another cluster's backups."""
THERE = (0, 2)
"""Codes of `pgbackrest info` where the stanza is there: well, or without a valid backup yet."""
BUSY, BUSY_SECONDS = 50, 20
"""Its exit status where another of its processes works on the stanza; how long to wait for it."""
START_SECONDS = 3600
COMING = ("starting up", "not accepting connections", "not yet accepting connections")
"""What PostgreSQL says while it recovers."""
LOCKED_SECONDS, LOCK_POLL_SECONDS = 3600, 20
BEGUN_SECONDS = 300  # in which the host of the database has made the repository of files
SPARE = 1.2
"""Room that a restore into the scratch folder must find: the cluster's size by this."""
TABLES = (
    "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
    "WHERE schemaname IN ('app', 'audit', 'analytics', 'checkpoints')"
)
LAST = "rackhand_backup_last_success_timestamp_seconds"
HELP = {
    "rackhand_backup_last_success_timestamp_seconds": "When the newest good backup ended.",
    "rackhand_backup_last_run_success": "1 where the last backup succeeded.",
    "rackhand_backup_database_size_bytes": "The cluster, as the newest backup has it.",
    "rackhand_backup_repository_size_bytes": "What the newest backup takes in the repository.",
    "rackhand_backup_count": "Backups of the cluster in the repository.",
    "rackhand_backup_files_last_success_timestamp_seconds": "When files were last backed up.",
    "rackhand_backup_verify_success": "1 where the newest backup could be restored and read.",
    "rackhand_backup_verify_timestamp_seconds": "When that was last tried.",
    "rackhand_backup_verify_last_success_timestamp_seconds": "When it last succeeded.",
    "rackhand_backup_verify_duration_seconds": "How long it took.",
}
Config = Mapping[str, Any]


class Problem(Exception):
    """What went wrong, for the journal and for a person."""


def call(*words: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a program and return what it printed.

    Raises:
        Problem: It failed; the message has its last words.
    """
    done = subprocess.run(
        words, capture_output=True, text=True, errors="replace", check=False, cwd="/",
        stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})},
    )  # fmt: skip
    if done.returncode:
        said = (done.stderr + done.stdout).strip()[-2000:]
        raise Problem(f"{' '.join(words[:4])} ended with status {done.returncode}: {said}")
    return done.stdout


def pgbackrest(config: Config, *words: str) -> str:
    """Run pgBackRest on the fleet's stanza."""
    return call("pgbackrest", f"--stanza={config['stanza']}", *words)


# -- Prometheus ---------------------------------------------------------------------------------


def tell(config: Config, page: str, samples: Mapping[str, float]) -> None:
    """Add samples to a page of metrics; what it said of others stays. Whole or not at all."""
    target = Path(config["state"]) / f"{page}.prom"
    known = read_page(target) | dict(samples)
    lines = []
    for name, value in sorted(known.items()):
        lines += [f"# HELP {name} {HELP.get(name, name)}", f"# TYPE {name} gauge"]
        lines.append(f"{name} {value!r}")
    candidate = target.with_name(f".{target.name}.new")
    candidate.write_text("\n".join(lines) + "\n", encoding="utf-8")
    candidate.chmod(0o644)
    candidate.replace(target)


def read_page(path: Path) -> dict[str, float]:
    """Return the samples of a page, none where there is no page yet."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


# -- the cluster --------------------------------------------------------------------------------


def info(config: Config) -> dict[str, Any]:
    """What the repository has of the stanza."""
    found = json.loads(pgbackrest(config, "info", "--output=json"))
    return dict(found[0]) if found else {"backup": [], "status": {"code": 1}}


def prepare(config: Config) -> int:
    """Make the stanza if there is none; say what changed, and what keeps it from being used."""
    words = ["pgbackrest", f"--stanza={config['stanza']}", "--log-level-console=info"]
    if os.geteuid() == 0:
        words = ["runuser", "-u", "postgres", "--", *words]
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        # With another passphrase than the repository's it quotes what it could not decrypt.
        done = subprocess.run(
            [*words, "stanza-create"], capture_output=True, text=True, errors="replace",
            check=False, cwd="/",
        )  # fmt: skip
        if done.returncode != BUSY or time.monotonic() > deadline:
            break
        time.sleep(1)
    said = done.stdout + done.stderr
    if done.returncode == BUSY:
        (found,) = json.loads(call(*words[:-1], "info", "--output=json"))
        if found["status"]["code"] in THERE:
            return 0  # a backup is being made, for hours maybe: there is nothing to prepare
    if done.returncode == FOREIGN:
        print("foreign: the repository holds backups of another cluster")
        return 0
    if done.returncode:
        print(said.strip()[-2000:], file=sys.stderr)
        return done.returncode
    if "already exists" not in said:
        print("changed: stanza")
    listed = call(*words[:-1], "info", "--output=json")
    if not json.loads(listed)[0]["backup"]:
        print("empty: no backup yet")
    return 0


def run(config: Config, kind: str) -> int:
    """Make a backup; `auto` is full when the last full one is old enough, else differential."""
    try:
        before = info(config)
        if before["status"]["code"] not in THERE:
            pgbackrest(config, "stanza-create")
        if kind == "auto":
            full = [b["timestamp"]["stop"] for b in before["backup"] if b["type"] == "full"]
            old = not full or time.time() - max(full) > (config["full_days"] - 0.5) * 86400
            kind = "full" if old else "diff"
        pgbackrest(config, "backup", f"--type={kind}")
    except Problem:
        # No backup at all is one of 1970, so that it alarms.
        known = {LAST: 0.0} | read_page(Path(config["state"]) / "backup.prom")
        tell(config, "backup", {**known, "rackhand_backup_last_run_success": 0.0})
        raise
    tell(config, "backup", {**figures(info(config)), "rackhand_backup_last_run_success": 1.0})
    return 0


def figures(found: Mapping[str, Any]) -> dict[str, float]:
    """What Prometheus is told of a stanza."""
    good = [backup for backup in found["backup"] if not backup.get("error")]
    last = good[-1]
    return {
        LAST: float(last["timestamp"]["stop"]),
        "rackhand_backup_count": float(len(good)),
        "rackhand_backup_database_size_bytes": float(last["info"]["size"]),
        "rackhand_backup_repository_size_bytes": float(last["info"]["repository"]["delta"]),
    }


# -- proof --------------------------------------------------------------------------------------


def verify(config: Config) -> int:
    """Judge the repository's checksums, restore the newest backup, read every row of it."""
    began, failed = time.time(), ""
    try:
        if config["repository_here"]:
            check_repository(config)
        if config["postgres"]:
            print(restore_and_read(config))
    except (Problem, OSError) as error:
        failed = str(error)
    prefix = "rackhand_backup_verify"
    samples = {
        f"{prefix}_success": float(not failed),
        f"{prefix}_timestamp_seconds": time.time(),
        f"{prefix}_duration_seconds": time.time() - began,
    }
    if not failed:
        samples[f"{prefix}_last_success_timestamp_seconds"] = time.time()
    tell(config, "backup_verify", samples)
    if failed:
        raise Problem(failed)
    return 0


def check_repository(config: Config) -> None:
    """Have pgBackRest read every file of the repository and compare its checksum.

    Raises:
        Problem: One is damaged or missing.
    """
    # It says nothing where all is well; before 2.54 it also ends with status 0 where not.
    told = ["--output=text"] if "--output" in call("pgbackrest", "help", "verify") else []
    said = pgbackrest(config, "verify", *told)
    if "status: error" in said or "status: invalid" in said:
        raise Problem(f"the repository is damaged: {said.strip()[-1500:]}")


def restore_and_read(config: Config) -> str:
    """Restore the newest backup beside the cluster, start it, read it, take it away.

    Raises:
        Problem: One of that cannot be.
    """
    backups = [b for b in info(config)["backup"] if not b.get("error")]
    if not backups:
        raise Problem("there is no backup to restore")
    scratch = Path(config["scratch"])
    shutil.rmtree(scratch, ignore_errors=True)
    need = int(backups[-1]["info"]["size"] * SPARE)
    free = shutil.disk_usage(scratch.parent).free
    if free < need:
        raise Problem(
            f"{scratch} has {free >> 20} MiB free and a restore needs {need >> 20} MiB; "
            "set backup_scratch_path to where there is room"
        )
    data = scratch / "data"
    data.mkdir(mode=0o700, parents=True)
    try:
        pgbackrest(
            config, "restore", f"--pg1-path={data}", "--type=immediate", "--target-action=promote",
            "--recovery-option=recovery_target_timeline=current", "--archive-mode=off",
            f"--set={backups[-1]['label']}",
        )  # fmt: skip
        return f"{backups[-1]['label']}: {read_cluster(config, data)}"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_cluster(config: Config, data: Path) -> str:
    """Start a restored cluster on a socket of its own, read every row, stop it."""
    binaries = Path(f"/usr/lib/postgresql/{config['postgres']['version']}/bin")
    settings = {
        "listen_addresses": "", "unix_socket_directories": str(data.parent), "port": "5432",
        "hba_file": str(data.parent / "hba.conf"), "ident_file": str(data.parent / "ident.conf"),
        "hot_standby": "off", "archive_mode": "off", "fsync": "off", "jit": "off",
        "shared_buffers": "64MB", "max_connections": "10", "ssl": "off",
        "dynamic_shared_memory_type": "mmap", "logging_collector": "off",
        "data_directory": str(data),
    }  # fmt: skip
    conf = data.parent / "postgresql.conf"
    conf.write_text("".join(f"{name} = '{value}'\n" for name, value in settings.items()))
    (data.parent / "hba.conf").write_text("local all postgres peer\n")
    (data.parent / "ident.conf").write_text("")
    # The file that ALTER SYSTEM writes is the restored one; recovery's settings stand there.
    pg_ctl = (str(binaries / "pg_ctl"), "-D", str(data), "-s")
    log = data.parent / "log"
    start = (*pg_ctl, "start", "-w", "-t", str(START_SECONDS), "-l", str(log))
    try:
        call(*start, "-o", f"-c config_file={conf}")
    except Problem as problem:
        tail = log.read_text(errors="replace")[-1500:] if log.exists() else ""
        raise Problem(f"the restored cluster does not start: {problem}\n{tail}") from problem
    try:
        wait_until_promoted(data.parent)
        return read_rows(data.parent)
    finally:
        call(*pg_ctl, "stop", "-m", "immediate")


def sql(socket: Path, statement: str) -> str:
    """Ask the scratch cluster."""
    words = ("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", str(socket), "-d", "rackhand")
    return call(*words, "-c", statement).strip()


def wait_until_promoted(socket: Path) -> None:
    """Wait until recovery has ended: until then nobody is let in."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if sql(socket, "SELECT pg_is_in_recovery()") == "f":
                return
        except Problem as problem:
            if not any(words in str(problem) for words in COMING):
                raise
        if time.monotonic() > deadline:
            raise Problem(f"recovery did not end in {START_SECONDS} s")
        time.sleep(0.5)


def read_rows(socket: Path) -> str:
    """Read every row of every table of ours; a damaged page fails here."""
    listed = sql(socket, TABLES).splitlines()
    if not listed:
        raise Problem("the restored database has no table of the app")
    rows = 0
    for table in listed:
        # The whole row as text, so that what lies out of line is read as well.
        # Names come quoted from the server itself.
        query = f"SELECT count(*) FROM (SELECT md5(t::text) FROM {table} t) x"  # noqa: S608
        rows += int(sql(socket, query))
    return f"{len(listed)} tables, {rows} rows read"


# -- files --------------------------------------------------------------------------------------


def restic_environment(config: Config) -> dict[str, str]:
    """What restic is told: the repository, and files with what is secret."""
    folder = Path(os.environ.get("CREDENTIALS_DIRECTORY", str(CREDENTIALS)))
    found = {
        "RESTIC_REPOSITORY": config["files"]["repository"],
        "RESTIC_PASSWORD_FILE": str(folder / "passphrase"),
        "RESTIC_CACHE_DIR": config["files"]["cache"],
    }
    secret = folder / "s3.json"
    if secret.exists():
        found |= json.loads(secret.read_text(encoding="utf-8"))
    return found


def files(config: Config) -> int:
    """Back up what no database has: certificates, journals of operations, evals."""
    ensure_files_repository(config)
    paths = [path for path in config["files"]["paths"] if Path(path).exists()]
    if paths:
        excluded = [f"--exclude={name}" for name in config["files"]["exclude"]]
        about = ("--tag", "files", "--host", config["host"])
        call_restic(config, "backup", *about, *excluded, *paths)
    if config["repository_keeper"]:
        keep = config["files"]["keep"]
        call_restic(
            config, "forget", "--group-by", "host,tags", "--prune",
            "--keep-daily", str(keep["daily"]), "--keep-weekly", str(keep["weekly"]),
        )  # fmt: skip
    tell(config, "backup_files",
         {"rackhand_backup_files_last_success_timestamp_seconds": time.time()})  # fmt: skip
    print(f"{len(paths)} path(s) backed up")
    return 0


def call_restic(config: Config, *words: str) -> None:
    """Run restic; while another host prunes or is at work, wait for it.

    Raises:
        Problem: It failed, or the repository stayed locked.
    """
    environment, command = restic_environment(config), ["restic", *config["files"]["options"]]
    deadline = time.monotonic() + LOCKED_SECONDS
    while True:
        try:
            call(*command, *words, environment=environment)
            return
        except Problem as problem:
            if "already locked" not in str(problem) or time.monotonic() > deadline:
                raise
        time.sleep(LOCK_POLL_SECONDS)
        call(*command, "unlock", environment=environment)  # only locks whose owner is gone


def ensure_files_repository(config: Config) -> str:
    """Make restic's repository where there is none: one host does, the others wait for it.

    Two that begin one at the same time leave a configuration that neither's key opens.

    Raises:
        Problem: There is none, and none came.
    """
    environment, words = restic_environment(config), ["restic", *config["files"]["options"]]
    deadline = time.monotonic() + BEGUN_SECONDS
    while True:
        try:
            return call(*words, "cat", "config", environment=environment)
        except Problem as missing:
            if "wrong password" in str(missing):
                raise
            if config["repository_keeper"]:
                return call(*words, "init", environment=environment)
            if time.monotonic() > deadline:
                raise
        time.sleep(LOCK_POLL_SECONDS / 4)


def restic(config: Config, *words: str) -> int:
    """Become restic with the fleet's repository; for people, and for `ops`."""
    if words[:1] == ("backup",):
        ensure_files_repository(config)
    os.environ |= restic_environment(config)
    command = ["restic", *config["files"]["options"], *words]
    os.execvp(command[0], command)  # noqa: S606 - becomes it, so that streams are its own


VERBS: dict[str, Callable[..., int]] = {
    "prepare": prepare, "run": run, "verify": verify, "files": files, "restic": restic,
}  # fmt: skip


def main(words: Sequence[str]) -> int:
    """Run a verb."""
    if not words or words[0] not in VERBS:
        print(f"backup {'|'.join(VERBS)}", file=sys.stderr)
        return 2
    config = json.loads(CONFIG.read_text(encoding="utf-8"))
    try:
        return VERBS[words[0]](config, *words[1:])
    except Problem as problem:
        print(f"<3>{problem}" if "INVOCATION_ID" in os.environ else problem, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
