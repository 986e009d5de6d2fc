"""A scene for the main job: settings, keys and a repository around real servers, and kpbackup run as its users run it.

`truth` and `definitions` ask the servers by SQL of their own, so that kpbackup's idea of equality is not what is tested.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from kpbackup.mysql import server as mysql
from tests import forked
from tests.integration import beginning
from tests.servers.database import Server

COMMAND_TIMEOUT_S = 480
SYSTEM = "('mysql', 'sys', 'information_schema', 'performance_schema')"


PATIENCE_S = 180.0  # of a machine ten times slower than usual


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


class Scene:
    """One repository and the settings to work with it, in `directory`. `settings` may be changed at any time."""

    def __init__(
        self, directory: Path, *, url: str = "", source: Server | None = None, target: Server | None = None,
        endpoint_url: str | None = None, environ: Mapping[str, str] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.repository = directory / "repository"  # of a file:// scene
        self.keys = directory / "keys"
        self.environ = dict(environ or {})
        self.settings: dict[str, Any] = {
            "repository": {"url": url or f"file://{self.repository}", "endpoint_url": endpoint_url},
            "encryption": {
                "recipients_file": str(self.keys / "recipients.txt"), "identity_file": str(self.keys / "identity.txt"),
            },
            "signing": {"key_file": str(self.keys / "signing.key"), "public_keys_file": str(self.keys / "signing.pub")},
            "recovery": {"deploy": {"driver": "none"}, "switch": {"driver": "none"}},
        }
        if source is not None:
            self.settings["source"] = {"max_connections": 4, **login(source)}
        if target is not None:
            self.settings["recovery"]["target"] = target_login(target)

    def loading_as_users_do(self) -> Scene:
        """Itself, with the default's number of programs that load."""
        del self.settings["recovery"]["target"]["max_connections"]
        return self

    def for_restore(self) -> Scene:
        """The same repository as seen from a machine that only restores: no source, no signing key."""
        scene = Scene(self.directory, environ=self.environ)
        scene.settings = {key: copy.deepcopy(value) for key, value in self.settings.items() if key != "source"}
        scene.settings["signing"] = {"public_keys_file": str(self.keys / "signing.pub")}
        return scene

    def argv(self, *words: str) -> list[str]:
        """The command line, with the settings as they are now in a file of their own."""
        path = self.directory / f"settings-{time.monotonic_ns()}.yaml"
        path.write_text(yaml.safe_dump(self.settings))
        return [sys.executable, "-m", "kpbackup", "--config", str(path), *words]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Starts kpbackup without a terminal, in a session of its own."""
        return subprocess.Popen(
            self.argv(*words), env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )

    def run(self, *words: str) -> Ended:
        """Runs kpbackup without a terminal to its end."""
        return Ended(*forked.run(self.argv(*words)[3:], self.environment(), timeout_s=COMMAND_TIMEOUT_S))

    def ok(self, *words: str) -> Any:
        """Runs kpbackup, which must succeed; its answer as a JSON document. `init` is carried out here where it can be."""
        is_plain = words == ("init", "--keys", str(self.keys)) and not self.environ
        if is_plain and (begun := beginning.begin(Path(self.argv()[4]), self.keys)):
            return begun
        ended = self.run("--json", *words)
        assert ended.code == 0, f"{words} ended with {ended.code}:\n{ended.err}\n{ended.out}"
        return ended.document

    def refused(self, code: int, *words: str) -> str:
        """Runs kpbackup, which must end with `code`, one clear message and a hint; what it said."""
        ended = self.run(*words)
        assert ended.code == code, f"{words} ended with {ended.code}, not {code}:\n{ended.err}\n{ended.out}"
        assert_clear(ended.err)
        return ended.err

    def restore(self, *words: str) -> Any:
        return self.ok("restore", "database", "--yes", *words)

    def restore_from(self, name: str, *words: str) -> Any:
        return self.ok("--copy", name, "restore", "database", "--yes", *words)

    def manifests(self) -> list[str]:
        """Keys of all manifests of a file:// repository's timelines."""
        root = self.repository / "timelines"
        return sorted(str(path.relative_to(self.repository)) for path in root.rglob("*") if path.is_file())

    def release_leases(self) -> None:
        """Takes the leases of killed processes away, so that the next run need not wait them out."""
        for path in (self.repository / "leases").glob("*"):
            path.unlink()

    def environment(self) -> dict[str, str]:
        """The environment that kpbackup is run in."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KPBACKUP_", "AWS_"))}
        return {**kept, "AWS_EC2_METADATA_DISABLED": "true", **self.environ}


def login(server: Server, *, user: str = "root") -> dict[str, Any]:
    return {"host": server.host, "port": server.port, "user": user}


def target_login(server: Server, *, user: str = "root") -> dict[str, Any]:
    """Loaded by two at once: each of the default's four is a program whose start costs more than these small sets. The main
    jobs and the kills in a load take the default."""
    return {**login(server, user=user), "max_connections": 2}


def assert_clear(err: str) -> None:
    """One message of ours, a hint, and nothing of Python's."""
    messages = [line for line in err.splitlines() if line.startswith("kpbackup: ") and "continue it with" not in line]
    assert len(messages) == 1, err
    assert "\nhint: " in f"\n{err}", err
    assert "Traceback" not in err, err
    assert "internal error" not in err, err


def rows(server: Server, sql: str) -> list[tuple[Any, ...]]:
    with server.connect() as connection:
        return connection.rows(sql)


def databases(server: Server) -> list[str]:
    return [str(row[0]) for row in rows(server, f"SELECT schema_name FROM information_schema.schemata"
                                                f" WHERE schema_name NOT IN {SYSTEM} ORDER BY 1")]


def truth(server: Server) -> dict[str, tuple[int, int]]:
    """Every user table: (checksum, number of rows)."""
    with server.connect() as connection:
        names = connection.rows(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'"
            f" AND table_schema NOT IN {SYSTEM}"
        )
        found = {}
        for schema, name in names:
            table = ".".join("`" + str(part).replace("`", "``") + "`" for part in (schema, name))
            checksum = connection.rows(f"CHECKSUM TABLE {table}")[0][1]
            found[f"{schema}.{name}"] = (int(checksum), int(connection.value(f"SELECT COUNT(*) FROM {table}") or 0))
        return found


def definitions(server: Server) -> list[tuple[Any, ...]]:
    """Views, routines, triggers and events with their texts."""
    return rows(server, f"""
        SELECT 'view', table_schema, table_name, view_definition FROM information_schema.views
          WHERE table_schema NOT IN {SYSTEM}
        UNION ALL SELECT routine_type, routine_schema, routine_name, routine_definition FROM information_schema.routines
          WHERE routine_schema NOT IN {SYSTEM}
        UNION ALL SELECT 'trigger', trigger_schema, trigger_name, action_statement FROM information_schema.triggers
          WHERE trigger_schema NOT IN {SYSTEM}
        UNION ALL SELECT 'event', event_schema, event_name, event_definition FROM information_schema.events
        ORDER BY 1, 2, 3""")


def is_there(server: Server, schema: str, table: str) -> bool:
    """Whether a table exists."""
    named = f"table_schema = '{schema}' AND table_name = '{table}'"
    return bool(rows(server, f"SELECT 1 FROM information_schema.tables WHERE {named}"))


def wipe(server: Server, *, users: Sequence[str] = ()) -> None:
    """An empty target again."""
    with server.connect() as connection:
        connection.execute("SET foreign_key_checks = 0")
        for name in databases(server):
            connection.execute(f"DROP DATABASE `{name}`")
        for user in users:
            connection.execute(f"DROP USER IF EXISTS {user}")


def clock(connection: mysql.Connection) -> datetime:
    found = connection.value("SELECT UTC_TIMESTAMP(6)")
    assert isinstance(found, datetime)
    return found.replace(tzinfo=UTC)


def next_second(server: Server) -> datetime:
    """Waits until the source's clock shows another second; that second. What was committed before has an earlier stamp."""
    with server.connect() as connection:
        before = clock(connection)
        while (now := clock(connection)).replace(microsecond=0) == before.replace(microsecond=0):
            time.sleep(0.02)
        return now.replace(microsecond=0)


def text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def position(server: Server) -> str:
    """The end of the server's binlog, FILE:POSITION."""
    statement = "SHOW MASTER STATUS" if server.product == "MariaDB" else "SHOW BINARY LOG STATUS"
    found = rows(server, statement)[0]
    return f"{found[0]}:{found[1]}"


def gtid(server: Server) -> str:
    """The newest transaction of a MariaDB server."""
    return str(rows(server, "SELECT @@gtid_binlog_pos")[0][0])


def until(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    """Polls for the condition while the process is at work."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
