"""`make fidelity`: a server's own regression scripts through kpbackup and through its dump program, the judge's findings kept.

    python -m tests.fidelity.report [--of mysql] [--suites main,suite/json/t] [--parts FOLDER [--only-parts]] [--keep]

Each script of the corpus fills a database of its own; batches of scripts go from a fresh server into an empty one, once by
kpbackup (full backup, restore) and once by `mariadb-dump | mariadb` or `mysqldump | mysql`, both told to bring everything. An
object is wrong when any fact about it differs or it is missing; where kpbackup stops with an error, all of the batch is missing.
`--parts` keeps what each batch gave, so that a run that was stopped goes on. `--keep` writes docs/evidence/fidelity.json or
fidelity-mysql.json, and docs/fidelity.md, which say which suites were taken. Tables that the source itself cannot open (a MERGE
over tables that are gone) are dropped first.

Limits: what a script needs of options it does not get, so a part of its statements fails, on the source alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pymysql

from bench import machine
from tests.fidelity import corpus, judge, page, pairs
from tests.fidelity.corpus import Corpus
from tests.integration.scenario import Scene
from tests.servers import mariadb, mysql97
from tests.servers.database import Server

BATCH = 60  # scripts
STATEMENT_S = 5
DYING_S = 60  # how long a server may take to end that cannot go on
MOST_LEFT_OUT = 30  # objects of one batch
SHOWN = 3  # differences of one object that are kept
_DUMP = (
    "--force", "--routines", "--events", "--triggers", "--hex-blob", "--single-transaction", "--skip-lock-tables",
    "--max-allowed-packet=1G", "--default-character-set=utf8mb4", "--databases",
)

_EXCLUDE = re.compile(r"hint: .*--exclude ('(?:[^']|'\"'\"')*'|\S+)")

_NOT_MADE = re.compile(r"^warning: cannot create ((?:view|trigger) .*?): ", re.MULTILINE)
_NAMED = re.compile(r"(table .*?): (?:its history counts|all its columns are generated|the columns .* come back)", re.DOTALL)


def play(server: Server, database: str, statements: Sequence[str]) -> None:
    """The statements in a session of their own; what a server does not take is passed over."""
    connection = _session(server, database)
    for statement in statements:
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement.encode("latin1"))
                while cursor.nextset():
                    pass
        except (pymysql.MySQLError, ValueError, IndexError) as exc:
            if not connection.open or isinstance(exc, pymysql.OperationalError) and exc.args[0] in (2006, 2013):
                connection = _session_again(server, database, left=connection.thread_id())
    with contextlib.suppress(pymysql.MySQLError):
        connection.close()


def _session_again(server: Server, database: str, *, left: int) -> Any:
    """A new session, and the end of what the one that was left still does; a script may end its server, then what it made until
    then counts."""
    deadline = time.monotonic() + DYING_S
    while True:
        if not server.is_running:
            server.restart()
        try:
            connection = _session(server, database)
            with contextlib.suppress(pymysql.MySQLError), connection.cursor() as cursor:
                cursor.execute(f"KILL {left}")
            return connection
        except pymysql.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)  # it is about to end, and still counts as running


def _session(server: Server, database: str) -> Any:
    connection = pymysql.connect(
        host=server.host, port=server.port, user="root", database=database, autocommit=True, charset="latin1",
        use_unicode=False, read_timeout=(4 if server.product == "MariaDB" else 1) * STATEMENT_S, conv={},
    )
    with connection.cursor() as cursor:
        cursor.execute("SET lock_wait_timeout = 2, innodb_lock_wait_timeout = 2")
        if server.product == "MariaDB":
            cursor.execute(f"SET max_statement_time = {STATEMENT_S}")
        cursor.execute("SET sql_mode = 'NO_ENGINE_SUBSTITUTION'")
    return connection


def quiet(server: Server) -> int:
    """No session but ours, and no table that this server itself cannot open or read any more: how many of these it took away."""
    dropped = 0
    with judge.connect(server.port) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND user = 'root'")
        for (number,) in cursor.fetchall():
            with contextlib.suppress(pymysql.MySQLError):
                cursor.execute(f"KILL {number}")
        cursor.execute("SET foreign_key_checks = 0")
        cursor.execute("SELECT table_schema, table_name FROM information_schema.tables WHERE table_type <> 'VIEW'")
        for schema, table in cursor.fetchall():
            place = f"{judge.quoted(schema)}.{judge.quoted(table)}"
            try:
                cursor.execute(f"SHOW CREATE TABLE {place}")
                cursor.execute(f"SELECT COUNT(*) FROM {place}")
            except pymysql.MySQLError:
                if schema not in judge.SYSTEM:
                    dropped += 1
                    with contextlib.suppress(pymysql.MySQLError):
                        cursor.execute(f"DROP TABLE {place}")
    return dropped


@dataclass(frozen=True)
class Said:
    """What kpbackup said: why it stopped and what its hint says to leave out, both "" when all went well; what the restore's
    warnings say no server can make, and what those of the backup say does not come back as it is."""

    stopped: str = ""
    way_out: str = ""
    broken: tuple[str, ...] = ()
    named: tuple[str, ...] = ()


def steady(port: int) -> judge.Truth:
    """What is there, but for what this server itself says otherwise the next time it opens its tables: a value of RAND(), or of
    an expression that was prepared under the settings of whoever came first."""
    readings = []
    for _ in range(2):
        with judge.connect(port) as connection, connection.cursor() as cursor:
            cursor.execute("FLUSH TABLES")
        readings.append(judge.read(port, accounts=False))
    first, second = readings
    assert first.keys() == second.keys()
    return {key: {name: text for name, text in first[key].items() if second[key].get(name) == text} for key in first}


def by_kpbackup(
    source: Server, target: Server, databases: Sequence[str], directory: Path, *, exclude: Sequence[str] = ()
) -> Said:
    """Backup and restore of the databases."""
    scene = Scene(directory, source=source, target=target)
    scene.settings["source"] |= {"databases": list(databases), "exclude": list(exclude)}
    scene.ok("init", "--keys", str(scene.keys))
    for words in (("backup", "full"), ("restore", "database", "--to", "latest", "--yes")):
        ended = scene.run(*words)
        if ended.code:
            said = [line for line in ended.err.splitlines() if line.startswith("kpbackup: ") and "--resume" not in line]
            way_out = _EXCLUDE.search(ended.err)
            return Said(" ".join(said) or "?", shlex.split(way_out[1])[0] if way_out else "")
    warned = scene.ok("list", "--warnings", "0001-1")["warnings"]
    return Said(broken=tuple(_NOT_MADE.findall(ended.err)), named=tuple(m[1] for m in map(_NAMED.match, warned) if m))


def with_kpbackup(of: Corpus, source: Server, databases: Sequence[str], top: Path) -> tuple[judge.Truth, dict[str, str], Said]:
    """(what is on the target, what had to be left out -> why, what was said in the end): as a user who follows the hints."""
    left_out: dict[str, str] = {}
    while True:
        nth = len(left_out)
        with pairs.server(of.kind, top / f"target-{nth}", server_id=82) as target:
            said = by_kpbackup(source, target, databases, top / f"scene-{nth}", exclude=tuple(left_out))
            if not said.stopped or not said.way_out or said.way_out in left_out or nth >= MOST_LEFT_OUT:
                return steady(target.port), left_out, said
            left_out[said.way_out] = said.stopped


def by_dump(source: Server, target: Server, databases: Sequence[str]) -> None:
    login = ["--no-defaults", "-uroot", "-h127.0.0.1"]
    find, programs, more = (mariadb.find, ("mariadb-dump", "mariadb"), []) if source.product == "MariaDB" else (
        mysql97.program, ("mysqldump", "mysql"), ["--set-gtid-purged=OFF", "--column-statistics=0"]
    )
    dump = [find(programs[0]), *login, f"-P{source.port}", *more, *_DUMP, *databases]
    load = [find(programs[1]), *login, f"-P{target.port}", "--force", "--binary-mode", "--max-allowed-packet=1G"]
    reading = subprocess.Popen(dump, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    subprocess.run(load, stdin=reading.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    reading.wait()


def batches(home: Path, suites: Sequence[str]) -> Iterator[tuple[str, list[Path]]]:
    for suite in suites:
        found = sorted((home / suite).glob("*.test"))
        for begin in range(0, len(found), BATCH):
            yield suite, found[begin : begin + BATCH]


def judged(of: Corpus, suite: str, scripts: Sequence[Path], home: Path) -> dict[str, Any]:
    """One batch: the counts, and each wrong object with what is wrong."""
    with pairs.memory() as top, pairs.server(of.kind, top / "source", server_id=81) as source:
        for nth, script in enumerate(scripts):
            database = f"c{nth:03d}"
            with judge.connect(source.port) as connection, connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {database}")
            play(source, database, corpus.statements(script, home))
        unreadable = quiet(source)
        with judge.connect(source.port) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT schema_name FROM information_schema.schemata")
            databases = [str(row[0]) for row in cursor.fetchall() if row[0] not in judge.SYSTEM]
        expected = steady(source.port)
        counts = Counter("table" if kind in ("table", "sequence") else "other" for kind, _, _ in expected)
        found: dict[str, Any] = {
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"), **machine.commit(), "suite": suite,
            "scripts": len(scripts), "unreadable": unreadable, "tables": counts["table"], "others": counts["other"],
        }
        truth, left_out, said = with_kpbackup(of, source, databases, top)
        found["kpbackup"] = {
            "stopped": said.stopped, "left_out": [f"{_place(key, scripts)}: {why}" for key, why in left_out.items()],
            "wrong": _wrong(expected, truth, scripts), "broken": [_broken(one, scripts) for one in said.broken],
            "named": [_broken(one, scripts) for one in said.named],
        }
        with pairs.server(of.kind, top / "target-dump", server_id=82) as target:
            by_dump(source, target, databases)
            found[of.dump] = {"wrong": _wrong(expected, steady(target.port), scripts)}
        return found


def _place(pattern: str, scripts: Sequence[Path]) -> str:
    """What was left out, named by the script it comes from."""
    schema, _, name = pattern.partition(".")
    return f"{_script(schema, scripts)}: {name or 'the whole database'}"


def _broken(what: str, scripts: Sequence[Path]) -> str:
    """`view c012.v` as `_wrong` names it."""
    kind, _, place = what.partition(" ")
    schema, _, name = place.partition(".")
    return f"{kind} {_script(schema, scripts)}: {name}"


def _script(schema: str, scripts: Sequence[Path]) -> str:
    return scripts[int(schema[1:])].stem if schema[:1] == "c" and schema[1:].isdigit() else schema


def _wrong(expected: judge.Truth, truth: judge.Truth, scripts: Sequence[Path]) -> dict[str, list[str]]:
    """Object -> what is wrong with it, named by the script it comes from."""
    wrong: dict[str, list[str]] = {}
    for one in judge.differences(expected, truth):
        if one.expected is None and one.key in expected and one.key in truth:
            continue  # not steady on the source
        kind, schema, name = one.key
        listed = wrong.setdefault(f"{kind} {_script(schema, scripts)}: {name}", [])
        if len(listed) < SHOWN:
            listed.append(str(one).partition(" ")[2].partition(" ")[2][:400])
    return wrong


def summed(of: Corpus, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The evidence: totals, rows by suite, and every wrong object."""
    suites: dict[str, Counter[str]] = {}
    wrong: dict[str, dict[str, list[str]]] = {"kpbackup": {}, of.dump: {}}
    stopped: list[str] = []
    left_out: list[str] = []
    explained: dict[str, set[str]] = {"broken": set(), "named": set()}
    for number, one in enumerate(found, start=1):
        row = suites.setdefault(one["suite"], Counter())
        row.update({name: one[name] for name in ("scripts", "unreadable", "tables", "others")})
        for name, listed in wrong.items():
            listed |= {f"{key} ({one['suite']}, batch {number})": what for key, what in one[name]["wrong"].items()}
            row[f"{name} tables"] += page.tables(one[name]["wrong"])
            row[f"{name} others"] += len(one[name]["wrong"]) - page.tables(one[name]["wrong"])
        stopped += [f"{one['suite']}, batch {number}: {one['kpbackup']['stopped']}"] if one["kpbackup"]["stopped"] else []
        for why, names in explained.items():
            listed = set(one["kpbackup"].get(why, ())) & one["kpbackup"]["wrong"].keys()
            row[why] += len(listed)
            names |= {f"{what} ({one['suite']}, batch {number})" for what in listed}
        left_out += [f"{one['suite']}, {what}" for what in one["kpbackup"]["left_out"]]
    total = sum(suites.values(), Counter())
    return {
        "suites": suites, "total": total, "wrong": wrong, "stopped": stopped, "left_out": left_out,
        **{why: sorted(names) for why, names in explained.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fidelity.report")
    parser.add_argument("--of", choices=corpus.CORPORA, default="mariadb", help="whose scripts, on its server (default: mariadb)")
    parser.add_argument("--suites", default="", help="only these, separated by commas")
    parser.add_argument("--parts", default="", help="a folder for what each batch gave")
    parser.add_argument("--keep", action="store_true", help="write docs/evidence/fidelity.json and docs/fidelity.md")
    parser.add_argument("--only-parts", action="store_true", help="run nothing: report what --parts holds")
    options = parser.parse_args()
    of = corpus.CORPORA[options.of]
    home, suites = of.home(), options.suites.split(",") if options.suites else of.suites
    found, unjudged = [], []
    for suite, scripts in batches(home, suites):
        part = Path(options.parts or "") / f"{suite.replace('/', '-')}-{scripts[0].stem}.json"
        if options.parts and part.exists():
            found.append(json.loads(part.read_text(encoding="utf-8")))
            continue
        failed = part.with_suffix(".unjudged")
        if options.only_parts:
            unjudged += [failed.read_text(encoding="utf-8")] if failed.exists() else []
            continue
        began = time.monotonic()
        try:
            found.append(judged(of, suite, scripts, home))
        except (pymysql.MySQLError, AssertionError, TypeError, OSError, subprocess.SubprocessError) as exc:
            unjudged.append(f"{suite}, from {scripts[0].stem} on: {type(exc).__name__}: {exc}"[:400])
            print(f"not judged: {unjudged[-1]}", flush=True)
            if options.parts:
                failed.write_text(unjudged[-1], encoding="utf-8")
            continue
        _tell(of, found[-1], time.monotonic() - began)
        if options.parts:
            part.write_text(json.dumps(found[-1]), encoding="utf-8")
    evidence = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"), "server": of.version(), "dump": of.dump,
        "python": platform.python_version(),
        "scripts_left": len(list(corpus.scripts(of, home))) - sum(one["scripts"] for one in found), **summed(of, found),
        "unjudged": unjudged, "batches": [
            f"{one['made_at']} {one.get('commit', '')[:12]} {one['suite']}: {one['scripts']} scripts" for one in found
        ],
    }
    if options.keep:
        page.evidence(of.name).write_text(json.dumps(evidence, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        page.write(of.name)
    print(json.dumps(evidence["total"], indent=1))
    return 1 if evidence["wrong"]["kpbackup"] else 0


def _tell(of: Corpus, one: dict[str, Any], seconds: float) -> None:
    ours, theirs = one["kpbackup"], one[of.dump]
    print(
        f"{one['suite']}: {one['scripts']} scripts, {one['tables']} tables, {one['others']} other objects; wrong: kpbackup"
        f" {len(ours['wrong'])}, {of.dump} {len(theirs['wrong'])}; {seconds:.0f} s {ours['stopped']}", flush=True,
    )
    for name, listed in ours["wrong"].items() if not ours["stopped"] else ():
        print(f"  {name}: {' '.join(listed[:1])[:300]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
