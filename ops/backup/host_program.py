"""Runs on the data host: looks at its cluster, restores it from the repository, puts it back.

`VERB VALUES`, the latter JSON; prints JSON. A restore runs as a transient unit, so that it goes on
when the line to the operator breaks; what it did stands in a file of its own beside the cluster's
backups. Standard library of the host's own Python.
"""

from __future__ import annotations

import base64
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIG = Path("/etc/rackhand/backup.json")
STREAM = Path("/etc/rackhand/wal_stream.json")
RECEIVED = Path("/var/lib/postgresql/received-wal")
"""WAL that another host received and the repository lacks; recovery looks here next."""
RECORDS = Path("/var/lib/rackhand-backup/restores")
PROGRAM_FOLDER = Path("/run/rackhand-restore")
IN_PLACE = "the restore was in place, the cluster of before is gone; "
WHOLE, HALF = "the restored one serves", "what is there is not whole: run ops restore again"
FLUSH_SECONDS = 90.0
POLL_SECONDS = 0.5
RESTARTS = 3
"""A recovery that ended so often ends the same way again."""
START_SECONDS = 20.0
"""A unit that was told to start is under way by then."""
TABLES = (
    "SELECT count(*) FROM pg_tables "
    "WHERE schemaname IN ('app', 'audit', 'analytics', 'checkpoints')"
)
POINT = (
    "SELECT coalesce(extract(epoch FROM pg_last_xact_replay_timestamp())::text, ''), "
    "(SELECT timeline_id FROM pg_control_checkpoint())"
)


class Problem(Exception):
    """What a restore came to grief over."""


def call(*words: str, user: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program, as another account where one is named.

    Raises:
        Problem: It failed; the message has its last words.
    """
    command = ["runuser", "-u", user, "--", *words] if user else list(words)
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd="/", stdin=subprocess.DEVNULL
    )
    if check and done.returncode:
        said = (done.stderr + done.stdout).strip()[-2000:]
        raise Problem(f"{' '.join(words[:3])} ended with status {done.returncode}: {said}")
    return done


class Cluster:
    """The host's one cluster."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.stanza = config["stanza"]
        about = config["postgres"]
        self.data = Path(about["data"])
        self.unit = f"postgresql@{about['version']}-main.service"
        self.port = str(about["port"])
        self.binaries = Path(f"/usr/lib/postgresql/{about['version']}/bin")

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Ask it as its superuser."""
        words = ("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-p", self.port, "-d", database)
        return call(*words, "-c", statement, user="postgres").stdout.strip()

    @property
    def running(self) -> bool:
        """Whether it answers."""
        ready = call("pg_isready", "-q", "-p", self.port, user="postgres", check=False)
        return ready.returncode == 0

    def promoted(self) -> bool:
        """Whether recovery has ended; one that dies while it is asked has not."""
        try:
            return self.running and self.sql("SELECT pg_is_in_recovery()") == "f"
        except Problem:
            return False

    @property
    def system(self) -> int:
        """Its system identifier; 0 where there is no cluster."""
        program = self.binaries / "pg_controldata"
        if not program.exists():
            return 0
        said = call(str(program), str(self.data), check=False).stdout
        found = re.search(r"system identifier:\s+(\d+)", said)
        return int(found[1]) if found else 0

    def pgbackrest(self, *words: str) -> str:
        """Run pgBackRest on the fleet's stanza."""
        return call("pgbackrest", f"--stanza={self.stanza}", *words, user="postgres").stdout


def load_config() -> dict[str, Any]:
    """How backups are set up here; empty where they are not."""
    if not CONFIG.exists():
        return {}
    return dict(json.loads(CONFIG.read_text(encoding="utf-8")))


def size(folder: Path) -> int:
    """Bytes that a folder takes; what goes away meanwhile does not count."""
    done = call("du", "-sb", str(folder), check=False).stdout.split()
    return int(done[0]) if done else 0


def survey() -> dict[str, Any]:
    """What is true here now."""
    config = load_config()
    found: dict[str, Any] = {
        "config": config, "problem": "", "info": [], "now": time.time(),
        "timeline": 1, "history": "",
    }  # fmt: skip
    if not config or not config["postgres"]:
        return {**found, "config": {}}
    cluster = Cluster(config)
    try:
        found["info"] = json.loads(cluster.pgbackrest("info", "--output=json"))
        code = found["info"][0]["status"]["code"] if found["info"] else 0
        if code not in (0, 1, 2, 3):  # well; no stanza, no backup, no data yet
            found["problem"] = found["info"][0]["status"]["message"]
        else:
            found["timeline"], found["history"] = newest_timeline(cluster, found["info"])
    except Problem as problem:
        found["problem"] = str(problem)
    found["running"] = cluster.running
    found["system"] = cluster.system
    found["cluster_bytes"] = size(cluster.data) if cluster.data.exists() else 0
    stream = json.loads(STREAM.read_text(encoding="utf-8")) if STREAM.exists() else {}
    found["wal_receiver"] = stream.get("receiver", "")
    found["free_bytes"] = shutil.disk_usage(cluster.data.parent).free
    return found


def newest_timeline(cluster: Cluster, info: list[dict[str, Any]]) -> tuple[int, str]:
    """The newest timeline of which the repository knows, and PostgreSQL's history file of it."""
    archives = [one["id"] for one in info[0]["archive"]] if info else []
    if not archives:
        return 1, ""
    folder = f"archive/{cluster.stanza}/{archives[-1]}"
    names = cluster.pgbackrest("repo-ls", folder, "--filter=^[0-9A-F]{8}\\.history$").split()
    if not names:
        return 1, ""
    return int(max(names)[:8], 16), cluster.pgbackrest("repo-get", f"{folder}/{max(names)}")


def flush() -> dict[str, Any]:
    """Have all that was committed archived, and a commit after it, which ends a recovery to now."""
    cluster = Cluster(load_config())
    if not cluster.running:
        return {"archived": False, "why": "PostgreSQL does not run"}
    cluster.sql("SELECT pg_current_xact_id()")
    segment = cluster.sql("SELECT pg_walfile_name(pg_switch_wal())")
    deadline = time.monotonic() + FLUSH_SECONDS
    while time.monotonic() < deadline:
        archived = cluster.sql("SELECT last_archived_wal FROM pg_stat_archiver")
        if archived[:24] >= segment:
            return {"archived": True, "why": ""}
        time.sleep(POLL_SECONDS)
    return {"archived": False, "why": f"{segment} was not archived in {FLUSH_SECONDS:.0f} s"}


# -- the restore --------------------------------------------------------------------------------


def record_path(operation: str) -> Path:
    """Where a restore writes down what it did."""
    return RECORDS / f"{operation}.json"


def read_record(operation: str) -> dict[str, Any]:
    """What a restore wrote down."""
    path = record_path(operation)
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def write_record(operation: str, **fields: Any) -> dict[str, Any]:
    """Add to it; on the disk when this returns."""
    RECORDS.mkdir(parents=True, exist_ok=True)
    record = read_record(operation) | fields
    candidate = RECORDS / f".{operation}.new"
    with candidate.open("w", encoding="utf-8") as stream:
        json.dump(record, stream)
        stream.flush()
        os.fsync(stream.fileno())
    candidate.rename(record_path(operation))
    return record


def unit_of(operation: str) -> str:
    """The transient unit of a restore."""
    return f"rackhand-restore-{operation}.service"


def begin(operation: str, **job: Any) -> dict[str, Any]:
    """Start a restore unless it runs or has ended well."""
    state = look(operation)
    if state["active"] or state["record"].get("ended"):
        return state
    PROGRAM_FOLDER.mkdir(mode=0o700, exist_ok=True)
    program = PROGRAM_FOLDER / f"{operation}.py"
    program.write_text(str(job.pop("program")), encoding="utf-8")
    write_record(operation, problem="")
    call("systemctl", "reset-failed", unit_of(operation), check=False)
    call(
        "systemd-run", "--quiet", f"--unit={unit_of(operation)}",
        f"--description=Restore of PostgreSQL ({operation})",
        "python3", str(program), "restore", json.dumps({"operation": operation, **job}),
    )  # fmt: skip
    return look(operation)


def look(operation: str) -> dict[str, Any]:
    """How far a restore is."""
    state = call("systemctl", "is-active", unit_of(operation), check=False).stdout.strip()
    cluster = Cluster(load_config())
    record = read_record(operation)
    counted = record.get("stage") == "files" and cluster.data.exists()
    return {
        "active": state in ("active", "activating", "deactivating"),
        "record": record,
        "bytes": size(cluster.data) if counted else 0,
    }


def restore(operation: str, **job: Any) -> dict[str, Any]:
    """Put the old cluster aside, restore, start, wait until recovery has ended, look at it."""
    cluster = Cluster(load_config())
    began = time.time()
    write_record(operation, began=read_record(operation).get("began", began), job=job)
    try:
        write_record(operation, stage="aside")
        put_aside(operation, cluster, in_place=bool(job["in_place"]))
        if not read_record(operation).get("restored"):
            write_record(operation, stage="files")
            # What is there, of a restore that died or of the old cluster, is not fetched again.
            delta = ["--delta"] if any(cluster.data.iterdir()) else []
            cluster.pgbackrest("restore", *delta, *job["arguments"], *from_received(cluster))
            write_record(operation, restored=True)
        write_record(operation, stage="recovery")
        recovered = recover(cluster)
        shutil.rmtree(RECEIVED, ignore_errors=True)
        return write_record(
            operation, stage="ended", ended=time.time(), seconds=time.time() - began, **recovered
        )
    except Problem as problem:
        return write_record(operation, problem=str(problem))


def take(name: str) -> dict[str, Any]:
    """Keep WAL that another host offers as our input; what was being written counts as well."""
    postgres = pwd.getpwnam("postgres")
    RECEIVED.mkdir(mode=0o700, exist_ok=True)
    os.chown(RECEIVED, postgres.pw_uid, postgres.pw_gid)
    path = RECEIVED / name.removesuffix(".partial")
    candidate = path.with_suffix(".new")
    candidate.write_bytes(zlib.decompress(base64.b64decode(sys.stdin.read())))
    os.chown(candidate, postgres.pw_uid, postgres.pw_gid)
    candidate.rename(path)
    return {"said": f"{path.name} is here"}


def from_received(cluster: Cluster) -> list[str]:
    """Have recovery look into the repository first, then at what another host received."""
    if not RECEIVED.exists():
        return []
    command = f'pgbackrest --stanza={cluster.stanza} archive-get %f "%p" || cp "{RECEIVED}/%f" "%p"'
    return [f"--recovery-option=restore_command={command}"]


def aside_of(cluster: Cluster, operation: str) -> Path:
    """Where a restore keeps the cluster of before."""
    return cluster.data.with_name(f"{cluster.data.name}.before-{operation}")


def put_aside(operation: str, cluster: Cluster, *, in_place: bool) -> None:
    """Stop the cluster and keep it under another name; repeated, it finds that done."""
    aside = aside_of(cluster, operation)
    record = read_record(operation)
    if record.get("restored") or record.get("aside"):
        call("systemctl", "stop", cluster.unit)
        return
    call("systemctl", "stop", cluster.unit)
    if in_place or not cluster.data.exists():
        write_record(operation, aside="in place" if in_place else "none")
    else:
        if not aside.exists():
            cluster.data.rename(aside)
        write_record(operation, aside=str(aside))
    postgres = pwd.getpwnam("postgres")
    if not cluster.data.exists():
        cluster.data.mkdir(mode=0o700)
        os.chown(cluster.data, postgres.pw_uid, postgres.pw_gid)


def recover(cluster: Cluster) -> dict[str, Any]:
    """Start the cluster, wait until it has taken up the WAL, and say how far it came.

    Raises:
        Problem: It stopped; the message has its last words.
    """
    since = time.time()
    call("systemctl", "reset-failed", cluster.unit, check=False)
    before = restarts(cluster)
    call("systemctl", "start", "--no-block", cluster.unit)
    while True:
        time.sleep(POLL_SECONDS)
        if cluster.promoted():
            break
        state = call("systemctl", "is-active", cluster.unit, check=False).stdout.strip()
        gone = state == "inactive" and time.time() - since > START_SECONDS
        if state == "failed" or gone or restarts(cluster) - before >= RESTARTS:
            raise Problem(f"PostgreSQL stopped in its recovery:\n{lines(cluster, since)}")
    told = cluster.sql(POINT).split("|")
    tables = int(cluster.sql(TABLES, database="rackhand"))
    if not tables:
        raise Problem("the restored database has no table of the app")
    last = float(told[0]) if told[0] else last_commit(cluster, since)
    return {"recovered_to": last, "timeline": int(told[1]), "tables": tables}


def restarts(cluster: Cluster) -> int:
    """How often systemd started it anew by itself since it was last told to forget."""
    said = call("systemctl", "show", "--value", "-p", "NRestarts", cluster.unit, check=False)
    return int(said.stdout.strip() or 0)


def last_commit(cluster: Cluster, since: float) -> float:
    """When the last transaction was, by the recovery's log; 0: none came after the backup."""
    found = re.findall(
        r"last completed transaction was at log time (\S+ \S+)", lines(cluster, since)
    )
    if not found:
        return 0.0
    return float(call("date", "-d", found[-1], "+%s.%N").stdout)


def lines(cluster: Cluster, since: float) -> str:
    """The cluster's log since a moment: its last words."""
    said = call(
        "journalctl", "-u", cluster.unit, "--no-pager", "-o", "cat", f"--since=@{since:.0f}",
        check=False,
    ).stdout.splitlines()  # fmt: skip
    told = [line for line in said if re.search(r"FATAL|PANIC|ERROR|LOG:|HINT", line)]
    return "\n".join(told[-12:])


def undo(operation: str) -> dict[str, Any]:
    """Bring the cluster back that was there before."""
    cluster = Cluster(load_config())
    call("systemctl", "stop", unit_of(operation), check=False)
    record = read_record(operation)
    if record.get("undone") or not record:
        return {"said": "nothing was changed"}
    if record.get("aside") == "in place":
        write_record(operation, undone=True)
        whole = bool(record.get("ended"))
        return {"said": "", "lasting": IN_PLACE + (WHOLE if whole else HALF)}
    call("systemctl", "stop", cluster.unit)
    aside = aside_of(cluster, operation)
    if aside.exists():
        if cluster.data.exists():
            shutil.rmtree(cluster.data)
        aside.rename(cluster.data)
    if record.get("restored"):
        leave_timeline(cluster)
    call("systemctl", "reset-failed", cluster.unit, check=False)
    call("systemctl", "start", cluster.unit)
    shutil.rmtree(RECEIVED, ignore_errors=True)
    write_record(operation, undone=True)
    return {"said": "the cluster of before serves again"}


def leave_timeline(cluster: Cluster) -> None:
    """Have the cluster of before begin a timeline of its own at its next start.

    The restored one has archived a newer timeline, which every later recovery would follow.
    """
    command = f'pgbackrest --stanza={cluster.stanza} archive-get %f "%p"'
    lines = (
        "\n# A restore was undone: a timeline newer than that one's.\n"
        f"restore_command = '{command}'\n"
        "recovery_target_timeline = 'current'\nrecovery_target_action = 'promote'\n"
        "recovery_target = ''\nrecovery_target_time = ''\n"
    )
    with (cluster.data / "postgresql.auto.conf").open("a", encoding="utf-8") as stream:
        stream.write(lines)
    (cluster.data / "recovery.signal").touch()
    postgres = pwd.getpwnam("postgres")
    os.chown(cluster.data / "recovery.signal", postgres.pw_uid, postgres.pw_gid)


def put_back_files(command: str) -> dict[str, Any]:
    """Put back files of the newest backup that this host lacks; what is there stays."""
    config = load_config()
    host = config["host"]
    listed = call(
        command, "restic", "--quiet", "snapshots", "--json", "--tag", "files", "--host", host
    )
    if not json.loads(listed.stdout or "[]"):
        return {"said": f"no backup of files of {host}", "count": 0}
    scratch = Path("/var/lib/rackhand-backup/files-back")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    try:
        call(command, "restic", "--quiet", "restore", "latest", "--tag", "files", "--host", host,
             "--target", str(scratch))  # fmt: skip
        count = 0
        for path in config["files"]["paths"]:
            count += copy_missing(scratch / path.lstrip("/"), Path(path))
        return {"said": f"{count} file(s) put back", "count": count}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def copy_missing(source: Path, target: Path) -> int:
    """Copy what a folder lacks, with owners and modes; return how many files."""
    if not source.is_dir():
        return 0
    lacking = [path for path in source.rglob("*") if path.is_file() or path.is_symlink()]
    lacking = [path for path in lacking if not os.path.lexists(target / path.relative_to(source))]
    target.mkdir(parents=True, exist_ok=True)
    call("cp", "-a", "--no-clobber", "-T", str(source), str(target))
    return len(lacking)


VERBS: dict[str, Callable[..., dict[str, Any]]] = {
    "survey": survey, "flush": flush, "begin": begin, "look": look, "restore": restore,
    "undo": undo, "put_back_files": put_back_files, "take": take,
}  # fmt: skip


def main(verb: str, values: str = "{}") -> int:
    """Run a verb and print what it returns."""
    try:
        print(json.dumps(VERBS[verb](**json.loads(values))))
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
