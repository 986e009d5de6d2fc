"""A direct replay that ended between a statement which commits by itself and the note that it was executed goes on.

What `test_kill_in_ddl` does by kill -9 for two statements is judged here for each kind: the target is put into the state in
which a killed run leaves it (the intent written down; the statement executed, in part, or not), and the replay must come to
what the source is. What cannot be decided is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates
from kpbackup.mysql import direct, direct_intent, direct_marks, follow, query_event
from kpbackup.mysql import events as binlog_events
from kpbackup.mysql import facts as server_facts
from kpbackup.mysql.events import StreamEvent
from tests.integration import scenario
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mysql97 import mysql97_server

NUMBERS = "PARTITION BY RANGE (id) (PARTITION low VALUES LESS THAN (10), PARTITION high VALUES LESS THAN MAXVALUE)"
TABLES = (
    "CREATE DATABASE shop", f"CREATE TABLE shop.parts (id INT PRIMARY KEY) {NUMBERS}", "CREATE TABLE shop.a (id INT PRIMARY KEY)",
    "CREATE TABLE shop.b (id INT PRIMARY KEY)", "INSERT INTO shop.parts VALUES (1), (20)", "INSERT INTO shop.a VALUES (2)",
    "INSERT INTO shop.b VALUES (3), (4)", "CREATE VIEW shop.v AS SELECT 1 AS one", "CREATE VIEW shop.w AS SELECT 2 AS two",
)  # fmt: skip
GONE = (*(f"DROP USER IF EXISTS {name}@'%'" for name in ("u", "x", "y")), "DROP ROLE IF EXISTS r")
ACCOUNTS = ("CREATE USER u@'%' IDENTIFIED BY 'one'", "GRANT SELECT, INSERT ON shop.* TO u@'%'", "CREATE USER y@'%'")
NOTHING: tuple[str, ...] = ()
MADE_EMPTY = ("CREATE TABLE shop.c (id INT NOT NULL)",)


@dataclass(frozen=True)
class Case:
    """A statement; `partly`: what a killed run may have left of it. `before` comes first, on both servers."""

    text: str
    before: tuple[str, ...] = ()
    partly: tuple[str, ...] | None = None
    flavours: str = "mariadb mysql"


CASES = (
    Case("ALTER TABLE shop.parts EXCHANGE PARTITION low WITH TABLE shop.a"),
    Case("RENAME TABLE shop.a TO shop.tmp, shop.b TO shop.a, shop.tmp TO shop.b"),
    Case("DROP TABLE shop.a, shop.b", partly=("DROP TABLE shop.b",), flavours="mariadb"),
    Case("DROP VIEW shop.v, shop.w", partly=("DROP VIEW shop.v",), flavours="mariadb"),
    Case("DROP TABLE shop.a, shop.b", flavours="mysql"),
    Case("CREATE TABLE shop.c (id INT NOT NULL) SELECT id FROM shop.b", partly=MADE_EMPTY, flavours="mariadb"),
    Case("CREATE TABLE shop.c (id INT NOT NULL) SELECT id FROM shop.b", flavours="mysql"),
    Case("CREATE TABLE shop.c (id INT NOT NULL) SELECT id FROM shop.b WHERE id = 0"),
    Case("CREATE USER x@'%' IDENTIFIED BY 'two'"),
    Case("CREATE USER x@'%', u2@'%'", before=("DROP USER IF EXISTS u2@'%'",)),
    Case("CREATE ROLE r"),
    Case("ALTER USER u@'%' IDENTIFIED BY 'three'"),
    Case("SET PASSWORD FOR u@'%' = PASSWORD('four')", flavours="mariadb"),
    Case("SET PASSWORD FOR u@'%' = 'four'", flavours="mysql"),
    Case("REVOKE INSERT ON shop.* FROM u@'%'"),
    Case("REVOKE ALL PRIVILEGES, GRANT OPTION FROM u@'%', y@'%'"),
    Case("RENAME USER u@'%' TO x@'%', y@'%' TO u@'%'"),
    Case("DROP USER u@'%', y@'%'"),
)


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Server, Server]]:
    directory = tmp_path_factory.mktemp("interrupted")
    if request.param == "mysql":
        request.getfixturevalue("mysql97_programs")
    make = mariadb_server if request.param == "mariadb" else mysql97_server
    with make(directory / "source", server_id=75) as source, make(directory / "target", server_id=76) as target:
        yield request.param, source, target


def reset(server: Server, case: Case) -> None:
    is_of_tables = "shop." in case.text and "REVOKE" not in case.text
    made = ("DROP DATABASE IF EXISTS shop", *TABLES) if is_of_tables else (*GONE, *ACCOUNTS)
    server.execute(*made, *case.before)


def coordinates(server: Server) -> Coordinates:
    file, _, position = scenario.position(server).rpartition(":")
    return Coordinates(file, int(position))


def new_file(server: Server) -> Coordinates:
    """The start of a new binlog file: a replay needs its description."""
    server.execute("FLUSH BINARY LOGS")
    return Coordinates(coordinates(server).file, 4)


def history(flavour: str, source: Server, start: Coordinates, end: Coordinates) -> list[StreamEvent]:
    stream = follow.follow(source.endpoint, flavour=flavour, start=start, until=end)
    return [event for event in stream if isinstance(event, StreamEvent)]


def statement(events: list[StreamEvent]) -> query_event.QueryEvent:
    """As the source's binlog has it."""
    found = (query_event.parse(event.data) for event in events if event.type == binlog_events.QUERY)
    return next(query for query in found if query.text not in (b"BEGIN", b"COMMIT"))


@contextmanager
def interrupted(
    flavour: str, target: Server, case: Case, start: Coordinates, events: list[StreamEvent]
) -> Iterator[direct.Applier]:
    """A replay that begins; then what is done to the target in the block; the intent was written down before it."""
    query = statement(events)
    has_rows = "SELECT id" in case.text
    target.execute("DROP DATABASE IF EXISTS kpbackup_restore", "CREATE DATABASE kpbackup_restore")
    with target.connect() as looking:
        facts = server_facts.read_facts(looking)
        intent, names = direct_intent.read(query, place="x:4", has_rows=has_rows, mariadb=flavour == "mariadb")
        intent = replace(intent, before=direct_marks.marks(looking, intent, names), at=direct_marks.moment(looking) + 1)
        with direct.opened(target.endpoint, facts, direct.Manner(keeps_gtids=False)) as applier:
            applier.begin(start)
            looking.execute(f"UPDATE {direct.PROGRESS_TABLE} SET intent = %s", (intent.encode(),))
            yield applier


def everything(server: Server) -> list[object]:
    shown: list[object] = [scenario.truth(server), scenario.definitions(server)]
    with server.connect() as connection:
        named = "SELECT user, host FROM mysql.user WHERE user IN ('u', 'u2', 'x', 'y', 'r') ORDER BY 1"
        for user, host in connection.rows(named):
            who = f"{user}@'{host}'" if host else str(user)
            shown.append((user, connection.rows(f"SHOW GRANTS FOR {who}")))
            if host and server.product == "MariaDB":  # MySQL salts a password that it is given
                shown.append(connection.rows(f"SHOW CREATE USER {who}"))
    return [one if not isinstance(one, dict) else {k: v for k, v in one.items() if "kpbackup" not in k} for one in shown]


def test_goes_on_whether_it_was_executed_or_not(pair: tuple[str, Server, Server]) -> None:
    flavour, source, target = pair
    for case in (one for one in CASES if flavour in one.flavours):
        reset(source, case)
        start = new_file(source)
        source.execute(case.text)
        events = history(flavour, source, start, coordinates(source))
        for done in (NOTHING, (case.text,), *((case.partly,) if case.partly else ())):
            reset(target, case)
            with interrupted(flavour, target, case, start, events) as applier:
                target.execute(*done)
                assert applier.reached() == start, (case, done)
                applier.run(events)
            assert everything(target) == everything(source), (case, done)


PAIR = ("ALTER TABLE shop.a ADD v INT, ADD w INT",)
UNDECIDED = (
    (Case("ALTER TABLE shop.a DROP COLUMN v, CHANGE w v INT, ADD COLUMN w INT", PAIR), NOTHING),
    (Case("CREATE USER x@'%', u2@'%'", ("DROP USER IF EXISTS u2@'%'",)), ("CREATE USER x@'%'",)),
    (Case("CREATE TABLE shop.c (id INT NOT NULL) ENGINE = MyISAM SELECT id FROM shop.b", flavours="mariadb"), None),
)


def test_what_cannot_be_known_is_refused(pair: tuple[str, Server, Server]) -> None:
    flavour, source, target = pair
    for case, done in UNDECIDED:
        if flavour not in case.flavours:
            continue
        reset(source, case)
        start = new_file(source)
        source.execute(case.text)
        events = history(flavour, source, start, coordinates(source))
        reset(target, case)
        with interrupted(flavour, target, case, start, events) as applier:
            target.execute(*((case.text,) if done is None else done))
            with pytest.raises(errors.StepFailed, match="whether it was executed cannot be known"):
                applier.reached()


@pytest.mark.parametrize("pair", ["mariadb"], indirect=True)
def test_a_restart_of_the_server_leaves_accounts_open(pair: tuple[str, Server, Server]) -> None:
    """MariaDB's account tables are changed one by one: a crash may have come between two of them."""
    flavour, source, target = pair
    case = Case("DROP USER u@'%', y@'%'")
    reset(source, case)
    start = new_file(source)
    source.execute(case.text)
    events = history(flavour, source, start, coordinates(source))
    reset(target, case)
    with interrupted(flavour, target, case, start, events):
        target.execute(case.text)
    target.restart()
    with target.connect() as looking:
        facts = server_facts.read_facts(looking)
    with (
        direct.opened(target.endpoint, facts, direct.Manner(keeps_gtids=False)) as applier,
        pytest.raises(errors.StepFailed, match="whether it was executed cannot be known"),
    ):
        applier.reached()
