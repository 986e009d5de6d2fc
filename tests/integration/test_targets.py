"""Where to stop and what to leave out: the plan tells what lies around the cut, a skipped transaction is an empty one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pymysql
import pytest

from kpbackup import config
from kpbackup.model import gtid as gtids
from kpbackup.recovery import find, search
from kpbackup.recovery.binlog import SegmentReader
from kpbackup.repository import catalog as catalogs
from kpbackup.service import opening
from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mysql97 import mysql97_server

SHOP = (
    "CREATE DATABASE shop", "USE shop", "CREATE TABLE a (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(40))",
    "CREATE TABLE b (id INT PRIMARY KEY, v VARCHAR(40))", "INSERT INTO a (v) VALUES ('one'), ('two'), ('three')",
    "CREATE USER app@'%' IDENTIFIED BY 'app'", "CREATE USER kept@'%' IDENTIFIED BY 'source'",
)


@dataclass
class Shop:
    """A source and what happened to it after the set; `marks` are GTIDs by name, `truths` what it held after them."""

    flavour: str
    scene: Scene
    source: Server
    target: Server
    marks: dict[str, str]
    truths: dict[str, dict[str, tuple[int, int]]]

    def happen(self, name: str, *statements: str) -> None:
        with self.source.connect(database="shop") as connection:
            for statement in statements:
                connection.execute(statement)
        self.marks[name], self.truths[name] = newest_gtid(self.source), scenario.truth(self.source)


def newest_gtid(of: Server) -> str:
    if of.product == "MariaDB":
        return scenario.gtid(of)
    executed = gtids.MysqlGtidSet.parse(str(scenario.rows(of, "SELECT @@GLOBAL.gtid_executed")[0][0]))
    (((uuid, _), intervals),) = executed.sources
    return f"{uuid}:{intervals[-1][1]}"


def state(of: Server) -> str:
    variable = "gtid_slave_pos" if of.product == "MariaDB" else "gtid_executed"
    return "".join(str(scenario.rows(of, f"SELECT @@GLOBAL.{variable}")[0][0]).split())


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("targets")
    if request.param == "mysql":
        request.getfixturevalue("mysql97_programs")
    make = mariadb_server if request.param == "mariadb" else mysql97_server
    with make(directory / "source", server_id=61) as source, make(directory / "target", server_id=62) as target:
        scene = Scene(directory / "scene", source=source, target=target)
        source.execute(*SHOP)
        target.execute("SET GLOBAL event_scheduler = OFF")
        scene.ok("init", "--keys", str(scene.keys))
        scene.ok("backup", "full")
        yield _tell(Shop(request.param, scene, source, target, {}, {}))


def _tell(made: Shop) -> Shop:
    made.happen("insert", "INSERT INTO a (v) VALUES ('four'), ('five')")
    made.happen("update", "BEGIN", "UPDATE a SET v = CONCAT(v, '!') WHERE id <= 2", "INSERT INTO b VALUES (1, 'b')", "COMMIT")
    made.happen("account", "ALTER USER kept@'%' IDENTIFIED BY 'source again'")
    scenario.next_second(made.source)
    made.happen("create", "CREATE USER late@'%' IDENTIFIED BY 'late'")
    made.happen("grant", "GRANT SELECT ON shop.* TO late@'%'")
    made.happen("delete", "DELETE FROM a WHERE id IN (1, 2, 3)")
    made.source.execute("FLUSH BINARY LOGS")
    made.happen("insert again", "INSERT INTO b VALUES (2, 'b')")
    made.happen("xa", "XA START 'x'", "INSERT INTO b VALUES (7, 'xa')", "XA END 'x'", "XA PREPARE 'x'")
    made.happen("xa end", "XA COMMIT 'x'")
    made.happen("drop", "DROP TABLE b")
    made.happen("last", "INSERT INTO a (v) VALUES ('last')")
    made.scene.ok("backup", "incremental")
    return made


@pytest.fixture
def target(shop: Shop) -> Server:
    scenario.wipe(shop.target, users=("app@'%'", "late@'%'", "kept@'%'"))
    return shop.target


def plan(shop: Shop, *words: str) -> Any:
    return shop.scene.ok("restore", "database", "--dry-run", *words)


def test_the_plan_tells_what_the_transactions_beside_the_cut_did(shop: Shop, target: Server) -> None:
    found = plan(shop, "--before-gtid", shop.marks["delete"])
    assert found["first_excluded_details"]["gtid"] == shop.marks["delete"]
    assert found["first_excluded_details"]["tables"] == [{"table": "shop.a", "inserted": 0, "updated": 0, "deleted": 3}]
    assert found["last_included_details"]["gtid"] == shop.marks["grant"]
    assert found["last_included_details"]["statements"] == ["GRANT ..."]
    assert (found["skipped"], found["earlier_stamped"], found["xa_left_prepared"]) == ([], [], [])
    found = plan(shop, "--to-gtid", shop.marks["update"])
    assert [(t["table"], t["inserted"], t["updated"]) for t in found["last_included_details"]["tables"]] == [
        ("shop.a", 0, 2), ("shop.b", 1, 0),
    ]
    said = shop.scene.run("restore", "database", "--dry-run", "--before-gtid", shop.marks["drop"]).out
    assert "DROP TABLE `b`" in said
    assert scenario.databases(target) == []


def test_an_xa_transaction_that_stays_prepared_is_told(shop: Shop, target: Server) -> None:
    found = plan(shop, "--to-gtid", shop.marks["xa"])
    assert [one["gtid"] for one in found["xa_left_prepared"]] == [shop.marks["xa"]]
    assert plan(shop, "--to-gtid", shop.marks["xa end"])["xa_left_prepared"] == []


def test_a_skipped_transaction_is_an_empty_one(shop: Shop, target: Server) -> None:
    """Rows come back that it deleted; everything after it is there; the GTID state is the source's."""
    found = plan(shop, "--to", "latest", "--skip-gtid", shop.marks["delete"])
    assert [one["tables"][0]["deleted"] for one in found["skipped"]] == [3]
    done = shop.scene.restore("--to", "latest", "--skip-gtid", shop.marks["delete"], "--skip-gtid", shop.marks["drop"])
    assert done["details"]["skipped"] == ",".join(sorted((shop.marks["delete"], shop.marks["drop"])))
    assert [row[0] for row in scenario.rows(target, "SELECT v FROM shop.a ORDER BY id")] == [
        "one!", "two!", "three", "four", "five", "last",
    ]
    assert [row[0] for row in scenario.rows(target, "SELECT id FROM shop.b ORDER BY id")] == [1, 2, 7]
    if shop.flavour == "mariadb":
        assert state(target) == scenario.gtid(shop.source)
    else:
        assert gtids.contains("mysql", state(target), state(shop.source))
        assert gtids.contains("mysql", state(shop.source), state(target))


def test_what_cannot_be_skipped_is_refused(shop: Shop, target: Server) -> None:
    latest = ("restore", "database", "--yes", "--to", "latest")
    unseen = shop.marks["last"][: -len(shop.marks["last"].rpartition("-" if shop.flavour == "mariadb" else ":")[2])] + "999999"
    assert "cannot leave out" in shop.scene.refused(22, *latest, "--skip-gtid", unseen)
    behind = ("restore", "database", "--yes", "--before-gtid", shop.marks["delete"])
    assert "cannot leave out" in shop.scene.refused(22, *behind, "--skip-gtid", shop.marks["last"])
    assert "not the GTID of one transaction" in shop.scene.refused(10, *latest, "--skip-gtid", "nonsense")
    said = shop.scene.refused(22, *latest, "--skip-gtid", shop.marks["xa"])
    assert shop.marks["xa end"] in said
    both = ("--skip-gtid", shop.marks["xa"], "--skip-gtid", shop.marks["xa end"])
    assert [len(one["tables"]) for one in plan(shop, "--to", "latest", *both)["skipped"]] == [1, 0]
    assert scenario.databases(target) == []


def _can_log_in(server: Server, user: str, password: str) -> bool:
    try:
        pymysql.connect(host=server.host, port=server.port, user=user, password=password).close()
    except pymysql.MySQLError:
        return False
    return True


def test_accounts_of_the_target_are_left_as_they_are(shop: Shop, target: Server) -> None:
    target.execute("CREATE USER late@'%' IDENTIFIED BY 'own'", "CREATE USER kept@'%' IDENTIFIED BY 'own'")
    done = shop.scene.restore("--to-gtid", shop.marks["delete"])
    assert done["details"]["account_statements_left_out"] == "3"
    assert scenario.truth(target) == shop.truths["delete"]
    assert [_can_log_in(target, user, "own") for user in ("late", "kept")] == [True, True]
    assert not any("shop" in str(row[0]) for row in scenario.rows(target, "SHOW GRANTS FOR late@'%'"))
    assert gtids.contains(shop.flavour, state(target), shop.marks["grant"])


def test_accounts_of_the_target_are_replaced_when_asked(shop: Shop, target: Server) -> None:
    target.execute("CREATE USER late@'%' IDENTIFIED BY 'own'", "CREATE USER kept@'%' IDENTIFIED BY 'own'")
    done = shop.scene.restore("--to-gtid", shop.marks["delete"], "--replace-users")
    assert done["details"]["account_statements_left_out"] == "0"
    assert _can_log_in(target, "late", "late") and _can_log_in(target, "kept", "source again")
    shown = "SHOW GRANTS FOR late@'%'"
    assert scenario.rows(target, shown) == scenario.rows(shop.source, shown)


def test_a_statement_about_kept_and_other_accounts_is_refused_by_its_gtid(
    shop: Shop, target: Server, tmp_path: Path
) -> None:
    with (mariadb_server if shop.flavour == "mariadb" else mysql97_server)(tmp_path / "mixed", server_id=63) as source:
        scene = Scene(tmp_path / "scene", source=source, target=shop.target)
        source.execute("CREATE DATABASE shop", "CREATE TABLE shop.a (id INT PRIMARY KEY)")
        scene.ok("init", "--keys", str(scene.keys))
        scene.ok("backup", "full")
        source.execute("CREATE USER one@'%', kept@'%'")
        mixed = newest_gtid(source)
        source.execute("INSERT INTO shop.a VALUES (1)")
        scene.ok("backup", "incremental")
        target.execute("CREATE USER kept@'%' IDENTIFIED BY 'own'")
        said = scene.refused(26, "restore", "database", "--yes", "--to", "latest")
        assert f"--skip-gtid {mixed}" in said
        assert "`kept`@`%`" in said
        scene.restore("--to", "latest", "--overwrite", "shop", "--skip-gtid", mixed)
        assert scenario.rows(target, "SELECT COUNT(*) FROM shop.a") == [(1,)]


def hits(shop: Shop, *words: str) -> list[str]:
    """Names of the marks that a search finds."""
    names = {gtid: name for name, gtid in shop.marks.items()}
    return [names[hit["gtid"]] for hit in shop.scene.ok("find", *words)["hits"]]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--kind", "drop"), ["drop"]), (("--kind", "ddl"), ["drop"]), (("--kind", "delete"), ["delete"]),
        (("--kind", "account"), ["account", "create", "grant"]), (("--kind", "delete", "--rows", "3"), ["delete"]),
        (("--rows", "2"), ["insert", "update", "delete"]), (("--rows", "3"), ["update", "delete"]),
        (("--kind", "update", "--rows", "2"), ["update"]),
        (("--table", "shop.b"), ["update", "insert again", "xa", "drop"]), (("--table", "SHOP.B", "--kind", "drop"), ["drop"]),
        (("--table", "sh?p.b", "--kind", "insert"), ["update", "insert again", "xa"]),
        (("--table", "shop", "--kind", "delete", "--kind", "drop"), ["delete", "drop"]),
        (("--table", "shop.b", "--rows", "2"), []), (("--kind", "truncate"), []), (("--kind", "delete", "--rows", "4"), []),
    ],
    ids=" ".join,
)  # fmt: skip
def test_find(shop: Shop, words: tuple[str, ...], found: list[str]) -> None:
    if found:
        assert hits(shop, *words) == found
    else:
        assert "no archived transaction is like that" in shop.scene.refused(31, "find", *words)


def test_find_tells_what_to_do_with_a_hit(shop: Shop, target: Server) -> None:
    found = shop.scene.ok("find", "--gtid", shop.marks["delete"])
    (hit,) = found["hits"]
    assert (hit["timeline"], found["more"], found["segments_opened"]) == ("0001", False, 1)
    assert hit["tables"] == [{"table": "shop.a", "inserted": 0, "updated": 0, "deleted": 3}]
    assert hit["stop_before"] == f"--before-gtid {shop.marks['delete']}"
    planned = shop.scene.ok("restore", "database", "--dry-run", *hit["stop_before"].split())
    assert planned["first_excluded_details"]["gtid"] == shop.marks["delete"]
    assert hit["stop_before"] in shop.scene.run("find", "--gtid", shop.marks["delete"]).out
    limited = shop.scene.ok("find", "--limit", "2")
    assert ([one["gtid"] for one in limited["hits"]], limited["more"]) == (
        [shop.marks["insert"], shop.marks["update"]], True,
    )


def test_find_by_time_opens_what_may_hold_it(shop: Shop) -> None:
    every = shop.scene.ok("find", "--limit", "999")["hits"]
    moment = next(hit["committed_at"] for hit in every if hit["gtid"] == shop.marks["create"])
    before = [hit["gtid"] for hit in shop.scene.ok("find", "--until", moment)["hits"]]
    after = [hit["gtid"] for hit in shop.scene.ok("find", "--from", moment)["hits"]]
    assert before + after == [hit["gtid"] for hit in every]
    assert before == [hit["gtid"] for hit in every if hit["committed_at"] < moment]
    said = shop.scene.refused(31, "find", "--from", "2001-01-01T00:00", "--until", "2001-01-02T00:00")
    assert "(0 of " in said


def test_bad_searches_are_refused(shop: Shop) -> None:
    assert "kinds are ddl" in shop.scene.refused(10, "find", "--kind", "nonsense")
    assert "--limit takes" in shop.scene.refused(10, "find", "--limit", "0")
    assert "not the GTID" in shop.scene.refused(10, "find", "--gtid", "nonsense")


def test_workers_find_the_same(shop: Shop) -> None:
    settings = config.load(Path(shop.scene.argv()[4]), {})
    repository = opening.reading_repository(settings)
    reader, catalog = SegmentReader(repository, opening.identities(settings)), catalogs.read_catalog(repository)
    for criteria in (search.Criteria(rows=1), search.Criteria(kinds=(search.Sought.DDL,)), search.Criteria(rows=999)):
        here, there = (
            find.find(reader, catalog, criteria, limit=5, workers=2, worth_workers_bytes=worth) for worth in (1 << 40, 0)
        )
        assert here == there
        assert here.opened > 1


def test_times_that_sessions_set(shop: Shop, target: Server, tmp_path: Path) -> None:
    """A day ahead, back a little, ahead again and home: the cut is a prefix by the rule, the rest is told, and no recovery
    point comes out of the future. MySQL's stamps are the moments of the commits, whatever a session says. (The last test: what
    it writes is not in the archive of the others.)"""
    scene = Scene(tmp_path / "scene", source=shop.source, target=target)
    shop.source.execute("CREATE DATABASE clocks", "CREATE TABLE clocks.a (id INT PRIMARY KEY)")
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok("backup", "full")
    ahead = scenario.next_second(shop.source) + timedelta(days=1)
    times = ("DEFAULT", *(int(ahead.timestamp()) + seconds for seconds in (0, -5, 1)), "DEFAULT")
    shop.source.execute(*(
        word for row, time in enumerate(times, 1) for word in (f"SET timestamp = {time}", f"INSERT INTO clocks.a VALUES ({row})")
    ))  # fmt: skip
    scene.ok("backup", "incremental")
    told = scene.run("--json", "status").document
    assert datetime.fromisoformat(told["recovery_point"]) < ahead - timedelta(hours=23)
    assert 0 <= told["achieved_rpo_seconds"] < 3600
    hits = scene.ok("find", "--table", "clocks.a", "--kind", "insert")["hits"]
    gtids_of = [hit["gtid"] for hit in hits]
    if shop.flavour == "mysql":
        assert all(datetime.fromisoformat(hit["committed_at"]) < ahead - timedelta(hours=23) for hit in hits)
        said = scene.refused(22, "restore", "database", "--yes", "--to", scenario.text(ahead))
        assert "after the last recoverable point" in said
        return
    for seconds, excluded, earlier in ((0, 2, [3, 5]), (1, 4, [5])):
        found = scene.ok("restore", "database", "--dry-run", "--to", scenario.text(ahead + timedelta(seconds=seconds)))
        assert found["first_excluded_details"]["gtid"] == gtids_of[excluded - 1]
        assert [one["gtid"] for one in found["earlier_stamped"]] == [gtids_of[row - 1] for row in earlier]
    scene.restore("--to", scenario.text(ahead + timedelta(seconds=1)))
    assert scenario.rows(target, "SELECT id FROM clocks.a ORDER BY id") == [(1,), (2,), (3,)]
