"""Definitions of every kind go from one real server to another; the servers' own dump programs judge."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.model import codec
from kpbackup.model.inventory import Definition, Inventory
from kpbackup.mysql import accounts, definitions, load, schema, scripts, server, table_text, tablespaces
from kpbackup.mysql.facts import read_facts
from tests.integration import object_zoo
from tests.servers.database import Server

Judge = Callable[[Server], str]
Client = Callable[[Server, str], None]
OBJECTS = [
    "--no-data",
    "--skip-lock-tables",
    "--routines",
    "--events",
    "--triggers",
    "--skip-comments",
    "--add-drop-table=FALSE",
    "--databases",
]


@pytest.fixture
def mariadb_zoo(mariadb_pair: tuple[Server, Server]) -> tuple[Server, Server]:
    source, target = mariadb_pair
    for one in mariadb_pair:  # mariadb-dump cannot show the installer's root@<host name> without name resolution
        one.execute(
            "DELETE FROM mysql.global_priv WHERE user = 'root' AND host NOT IN ('localhost', '127.0.0.1')", "FLUSH PRIVILEGES"
        )
    source.execute(*object_zoo.COMMON, *object_zoo.ACCOUNTS, *object_zoo.MARIADB)
    return source, target


@pytest.fixture
def mysql_zoo(mysql97_pair: tuple[Server, Server]) -> tuple[Server, Server]:
    source, target = mysql97_pair
    source.execute(*object_zoo.COMMON, *object_zoo.ACCOUNTS, *object_zoo.MYSQL)
    return source, target


def run(argv: list[str], given: str = "") -> str:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, input=given.encode(), capture_output=True, env=environment, timeout=180)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("utf-8", "surrogateescape")


def mariadb_judge(at: Server) -> str:
    """Objects and accounts as mariadb-dump writes them; `--force`, since one view is broken on purpose."""
    login = ["mariadb-dump", "--no-defaults", "-uroot", "-h127.0.0.1", f"-P{at.port}"]
    with at.connect() as connection:
        without_broken = [f"--ignore-table={name}.broken" for name in object_zoo.DATABASES]
        positions = connection.rows(
            "SELECT * FROM shop.seq UNION ALL SELECT * FROM shop.down UNION ALL SELECT * FROM shop.restarted"
        )
    users = "".join(
        line for line in run([*login, "--system=users", "--skip-comments"]).splitlines(keepends=True) if "root" not in line
    )
    return run([*login, *without_broken, *OBJECTS, *object_zoo.DATABASES]) + users + repr(positions)


def mariadb_client(at: Server, script: str) -> None:
    run(["mariadb", "--no-defaults", "--comments", "--binary-mode", "-uroot", "-h127.0.0.1", f"-P{at.port}"], script)


def read(at: Server) -> Inventory:
    with at.connect() as connection:
        return schema.read_inventory(connection, read_facts(connection))


def through_json(inventory: Inventory) -> Inventory:
    """What is restored is what lay in the repository."""
    return codec.decode(Inventory, codec.encode(inventory), what="inventory")


def create_all(at: Server, inventory: Inventory) -> list[str]:
    tables = [definitions.definition_of(table) for table in inventory.tables]
    with at.connect() as connection:
        return definitions.create(
            connection, [*inventory.databases, *inventory.sequences, *tables, *inventory.after_rows, *inventory.accounts]
        )


def test_mariadb_objects_are_created_as_they_were(mariadb_zoo: tuple[Server, Server]) -> None:
    source, target = mariadb_zoo
    before = read(source)
    warnings = create_all(target, through_json(before))
    assert mariadb_judge(target) == mariadb_judge(source)
    assert definitions.compare(before, read(target)) == ["view shop.broken is missing on the target"]
    assert len(warnings) == 1 and "view shop.broken" in warnings[0]
    kinds = {d.kind for d in before.after_rows} | {d.kind for d in before.accounts}
    assert kinds == {"view", "function", "procedure", "package", "package body", "trigger", "event", "account", "grant"}


def test_mariadb_scripts_do_the_same_through_the_client(mariadb_zoo: tuple[Server, Server]) -> None:
    source, target = mariadb_zoo
    source.execute("DROP VIEW shop.broken")
    written = scripts.definitions_text(read(source))
    for name in sorted(written):
        mariadb_client(target, written[name])
    assert mariadb_judge(target) == mariadb_judge(source)
    assert definitions.compare(read(source), read(target)) == []


def test_a_difference_of_any_kind_is_named(mariadb_zoo: tuple[Server, Server]) -> None:
    source, _ = mariadb_zoo
    before = read(source)
    source.execute(
        "ALTER TABLE shop.`order` AUTO_INCREMENT = 90",
        "ALTER TABLE shop.gen ADD extra int",
        "DROP TABLE shop.heap",
        "CREATE TABLE shop.fresh (i int)",
        "DROP TRIGGER shop.zero",
        "ALTER EVENT shop.nightly ENABLE",
        "SELECT NEXTVAL(shop.restarted)",
        "ALTER DATABASE shop COLLATE utf8mb4_bin",
        "GRANT INSERT ON shop.* TO reader",
        "ALTER USER `o'dd`@localhost IDENTIFIED BY 'other'",
    )
    after = read(source)
    assert sorted(definitions.compare(before, after)) == sorted(
        [
            "AUTO_INCREMENT of table shop.order differs",
            "table shop.gen differs",
            "table shop.heap is missing on the target",
            "table shop.fresh is on the target only",
            "trigger shop.zero is missing on the target",
            "event shop.nightly differs",
            "AUTO_INCREMENT of table shop.heap is missing on the target",
            "AUTO_INCREMENT of table shop.fresh is on the target only",
            "position of sequence shop.restarted differs",
            "database shop differs",
            "grant `reader` differs",
            "account `o'dd`@`localhost` differs",
        ]
    )
    assert schema.changed_tables(before.tables, after.tables) == [("shop", "fresh"), ("shop", "gen"), ("shop", "heap")]


def test_tables_are_described(mariadb_zoo: tuple[Server, Server]) -> None:
    inventory = read(mariadb_zoo[0])
    tables = {(t.schema, t.name): t for t in inventory.tables}
    assert [c.name for c in tables["shop", "gen"].columns] == ["id", "a", "b", "hid", "d"]
    assert tables["shop", "line"].key == ("part", "id")
    assert tables["shop", "ts"].key == ()
    odd = tables["odd `db` größe", "tä`ble"]
    assert [(c.name, c.data_type, c.charset) for c in odd.columns][:2] == [("ключ", "varchar", "latin1"), ("e", "enum", "latin1")]
    assert [t.name for t in inventory.tables if not t.transactional] == ["heap"]
    assert ("shop", "versioned") in tables
    text = "\n".join(inventory.warnings)
    assert (
        "shop.versioned" not in text  # its past rows are kept
        and "table shop.heap: engine MyISAM" in text
        and "view shop.broken" in text
    )
    assert not any("root" in d.name for d in inventory.accounts)


def test_an_object_that_fails_is_named_and_the_session_put_back(mariadb: Server) -> None:
    mariadb.execute("CREATE DATABASE d")
    bad = Definition(
        "procedure", "d", "p", ("CREATE PROCEDURE p() NONSENSE",), {"sql_mode": "ANSI_QUOTES", "character_set_client": "latin1"}
    )
    with mariadb.connect() as connection:
        before = connection.rows("SELECT @@sql_mode, @@character_set_client, @@foreign_key_checks, @@time_zone")
        with pytest.raises(errors.DatabaseError, match=r"cannot create procedure d\.p") as caught:
            definitions.create(connection, [bad])
        assert caught.value.number == 1064
        assert connection.rows("SELECT @@sql_mode, @@character_set_client, @@foreign_key_checks, @@time_zone") == before


def test_an_engine_that_is_missing_is_not_replaced_in_silence(mariadb: Server) -> None:
    mariadb.execute("CREATE DATABASE d")
    table = Definition("table", "d", "t", ("CREATE TABLE t (i int) ENGINE=ROCKSDB",))
    with mariadb.connect() as connection, pytest.raises(errors.DatabaseError, match=r"table d\.t"):
        definitions.create(connection, [table])


def test_views_in_the_wrong_order_are_tried_again(mariadb: Server) -> None:
    mariadb.execute("CREATE DATABASE d", "CREATE TABLE d.t (i int)")
    wrong = [
        Definition("view", "d", name, (f"CREATE VIEW {name} AS SELECT * FROM {of}",))
        for name, of in (("a", "b"), ("b", "c"), ("c", "t"))
    ]
    with mariadb.connect() as connection:
        assert definitions.create(connection, wrong) == []
        assert connection.rows("SELECT * FROM d.a") == []
        hopeless = Definition("view", "d", "x", ("CREATE VIEW x AS SELECT * FROM nothing",))
        with pytest.raises(errors.DatabaseError, match=r"cannot create view d\.x"):
            definitions.create(connection, [hopeless])


def test_a_trigger_that_the_source_spoiled_is_left_out_only_where_the_source_is_as_this_server(mariadb: Server) -> None:
    """MariaDB stores the body of a trigger without the signs of its comments, and cannot read it again."""
    mariadb.execute(
        "CREATE DATABASE d", "CREATE TABLE d.t (i int)", "CREATE TABLE d.u (i int)", "USE d",
        "CREATE TRIGGER spoiled BEFORE INSERT ON t FOR EACH ROW INSERT/*!INTO*/u VALUES (1)",
    )
    with mariadb.connect() as connection:
        with pytest.raises(errors.DatabaseError):
            connection.execute("INSERT INTO d.t VALUES (1)")
        made = read(mariadb)
        connection.execute("DROP TRIGGER d.spoiled")
        with pytest.raises(errors.DatabaseError, match=r"cannot create trigger d\.spoiled"):
            definitions.create(connection, made.after_rows, source_version="10.6.1-MariaDB")
        (warning,) = definitions.create(connection, made.after_rows, source_version=made.settings["version"])
        assert "cannot create trigger d.spoiled" in warning


def test_options_that_no_engine_knows_come_back_by_script_too(mariadb: Server) -> None:
    mariadb.execute(
        "CREATE DATABASE d", "USE d", "SET SESSION sql_mode = 'IGNORE_BAD_TABLE_OPTIONS'",
        "CREATE TABLE odd (i int first_one='a', KEY k (i) second_one=2) third_one='c'", "SET SESSION sql_mode = DEFAULT",
        "CREATE TABLE plain (i int)",
    )
    before = read(mariadb)
    assert all(f"`{name}_one`=" in before.tables[0].create_sql for name in ("first", "second", "third"))
    script = scripts.definitions_text(before)[scripts.BEFORE_ROWS]
    mariadb.execute("DROP DATABASE d")
    mariadb_client(mariadb, script)
    assert definitions.compare(before, read(mariadb)) == []
    known = dataclasses.replace(before.tables[1], create_sql="CREATE TABLE `other` (\n  `i` int(11) `lost`=1\n) ENGINE=InnoDB")
    with mariadb.connect() as connection, pytest.raises(errors.DatabaseError, match="lost"):
        connection.execute("USE d")
        definitions.create(connection, [definitions.definition_of(known)])


def test_an_account_without_rights_on_mysql_gets_a_warning_not_accounts(mariadb: Server) -> None:
    mariadb.execute(
        "CREATE DATABASE d", "CREATE USER limited IDENTIFIED BY 'p'", "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON d.* TO limited"
    )
    with server.connect(dataclasses.replace(mariadb.endpoint, user="limited", password="p")) as connection:
        inventory = schema.read_inventory(connection, read_facts(connection), databases=("d",))
    assert inventory.accounts == ()
    assert any("accounts and grants are not in this backup" in one for one in inventory.warnings)


def test_a_routine_whose_text_is_hidden_is_refused_with_the_grant(mariadb: Server) -> None:
    mariadb.execute(
        "CREATE DATABASE d",
        "CREATE PROCEDURE d.p() SELECT 1",
        "CREATE USER limited IDENTIFIED BY 'p'",
        "GRANT SELECT, EXECUTE ON d.* TO limited",
    )
    with (
        server.connect(dataclasses.replace(mariadb.endpoint, user="limited", password="p")) as connection,
        pytest.raises(errors.PrivilegeMissing, match=r"procedure d\.p") as caught,
    ):
        schema.read_inventory(connection, read_facts(connection), databases=("d",))
    assert "mysql.proc" in caught.value.hint


def test_tablespaces_that_the_account_may_not_see_are_named(mysql97: Server) -> None:
    mysql97.execute(
        "CREATE DATABASE d", "CREATE TABLESPACE `a b`", "CREATE TABLE d.t (id INT) TABLESPACE `a b`",
        "CREATE TABLE d.u (id INT) COMMENT=' /*!50100 TABLESPACE `c` */'",
        "CREATE USER limited IDENTIFIED BY 'p'", "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON *.* TO limited",
    )
    seen = read(mysql97)
    assert [one.name for one in seen.tablespaces] == ["a b"]
    with server.connect(dataclasses.replace(mysql97.endpoint, user="limited", password="p")) as connection:
        found = schema.read_inventory(connection, read_facts(connection), databases=("d",))
    assert found.tablespaces == ()
    named = [one for one in found.warnings if one.startswith("tablespace ")]
    assert len(named) == 1 and "tablespace a b: not kept" in named[0] and named[0].endswith("before d.t")


def test_a_tablespace_that_is_there_is_taken_and_one_that_cannot_be_made_is_named(mysql97: Server) -> None:
    mysql97.execute("CREATE DATABASE d", "CREATE TABLESPACE s", "CREATE TABLE d.t (id INT) TABLESPACE s")
    seen = read(mysql97)
    mysql97.execute("CREATE USER limited IDENTIFIED BY 'p'", "GRANT ALL ON d.* TO limited")
    with mysql97.connect() as connection:
        tablespaces.create(connection, seen.tablespaces, seen.tables)
        odd = dataclasses.replace(seen.tablespaces[0], statements=("CREATE TABLESPACE other FILE_BLOCK_SIZE = 3",))
        with pytest.raises(errors.DatabaseError, match=r"cannot create tablespace s, in which d\.t is"):
            tablespaces.create(connection, [odd], seen.tables)
    limited = dataclasses.replace(mysql97.endpoint, user="limited", password="p")
    with server.connect(limited) as connection, pytest.raises(errors.PrivilegeMissing, match="cannot create tablespace s"):
        tablespaces.create(connection, seen.tablespaces, seen.tables)


def test_an_account_that_may_load_may_have_loose_foreign_keys(mysql97: Server) -> None:
    mysql97.execute(
        "CREATE DATABASE d", "CREATE USER limited IDENTIFIED BY 'p'", "GRANT ALL ON d.* TO limited",
        "GRANT SESSION_VARIABLES_ADMIN ON *.* TO limited",
    )
    with server.connect(dataclasses.replace(mysql97.endpoint, user="limited", password="p")) as connection:
        load.prepare_session(connection)
        connection.execute("CREATE TABLE d.p (a INT, KEY (a))")
        connection.execute("CREATE TABLE d.c (a INT, FOREIGN KEY (a) REFERENCES d.p (a))")


def test_what_follows_a_creation_may_be_repeated_when_rows_are_there(mysql97: Server) -> None:
    mysql97.execute(
        "CREATE DATABASE d", "CREATE TABLE d.t (a VARCHAR(9), b INT) DEFAULT CHARSET latin1",
        "ALTER TABLE d.t DEFAULT CHARSET utf8mb4", "ALTER TABLE d.t ALTER b DROP DEFAULT", "INSERT INTO d.t VALUES ('é', 1)",
    )
    before = read(mysql97)
    again = table_text.after_creation(before.tables[0].create_sql)
    assert len(again) == 3
    mysql97.execute("USE d", *again)
    assert definitions.compare(before, read(mysql97)) == []
    with mysql97.connect() as connection:
        assert list(connection.rows("SELECT a, b FROM d.t")) == [("é", 1)]


def test_a_database_that_does_not_exist_is_a_settings_error(mariadb: Server) -> None:
    with mariadb.connect() as connection, pytest.raises(errors.SettingsError, match="nowhere"):
        schema.read_inventory(connection, read_facts(connection), databases=("nowhere",))


def test_names_of_accounts_are_those_of_the_definitions(mariadb_zoo: tuple[Server, Server]) -> None:
    source, _ = mariadb_zoo
    with source.connect() as connection:
        present = accounts.names(connection, read_facts(connection))
    assert {d.name for d in read(source).accounts if d.kind == "account"} < present
    assert "`root`@`localhost`" in present


@pytest.fixture
def mysql_judge(mysql97_programs: Path) -> Iterator[Judge]:
    def judge(at: Server) -> str:
        with at.connect() as connection:
            users = connection.rows(
                "SELECT * FROM mysql.user WHERE user NOT LIKE 'mysql.%%' AND user <> 'root' ORDER BY user, host", ()
            )
            roles = connection.rows("SELECT * FROM mysql.role_edges ORDER BY 1, 2, 3, 4")
            roles += connection.rows("SELECT * FROM mysql.default_roles ORDER BY 1, 2, 3, 4")
            tables = connection.rows(
                "SELECT host, db, user, table_name, table_priv, column_priv FROM mysql.tables_priv WHERE db = 'shop'"
            )
            databases = connection.rows("SELECT * FROM mysql.db WHERE db LIKE 'sh%%' ORDER BY 1, 2, 3", ())
        users = [tuple(v for v in row if not hasattr(v, "year")) for row in users]  # when a password was set may differ
        login = [
            str(mysql97_programs / "bin" / "mysqldump"),
            "--no-defaults",
            "-uroot",
            "-h127.0.0.1", f"-P{at.port}",
            "--set-gtid-purged=OFF",
        ]
        objects = run([*login, "--ignore-table=shop.broken", *OBJECTS, *object_zoo.DATABASES])
        # MySQL prints whether a column's character set was once written out, which differs after mysqldump's own reload too
        return re.sub(r" CHARACTER SET \w+( COLLATE)", r"\1", objects) + repr((users, roles, tables, databases))

    yield judge


def test_mysql_objects_are_created_as_they_were(mysql_zoo: tuple[Server, Server], mysql_judge: Judge) -> None:
    source, target = mysql_zoo
    before = read(source)
    create_all(target, through_json(before))
    assert mysql_judge(target) == mysql_judge(source)
    assert definitions.compare(before, read(target)) == ["view shop.broken is missing on the target"]
    hidden = next(t for t in before.tables if t.name == "hidden_key")
    assert hidden.key == ("my_row_id",) and [c.name for c in hidden.columns] == ["my_row_id", "x"]


def test_mysql_scripts_do_the_same_through_the_client(
    mysql_zoo: tuple[Server, Server], mysql_judge: Judge, mysql97_programs: Path
) -> None:
    source, target = mysql_zoo
    source.execute("DROP VIEW shop.broken")
    written = scripts.definitions_text(read(source))
    client = [
        str(mysql97_programs / "bin" / "mysql"),
        "--no-defaults",
        "--comments",
        "--binary-mode",
        "-uroot",
        "-h127.0.0.1", f"-P{target.port}",
    ]
    for name in sorted(written):
        run(client, written[name])
    assert mysql_judge(target) == mysql_judge(source)
    assert definitions.compare(read(source), read(target)) == []


def test_no_statement_holds_a_password_in_clear(mariadb_zoo: tuple[Server, Server]) -> None:
    text = "\n".join(scripts.definitions_text(read(mariadb_zoo[0])).values())
    assert "secret" not in text
    assert re.search(r"IDENTIFIED BY PASSWORD '\*[0-9A-F]{40}'", text)


def test_columns_without_any_default_are_named_and_disabled_keys_are_kept(mariadb: Server) -> None:
    """Only CREATE ... SELECT makes such columns, and no statement that names them can."""
    mariadb.execute("CREATE DATABASE d", "CREATE TABLE d.u (a int PRIMARY KEY, b int, KEY (b)) ENGINE=MyISAM")
    mariadb.execute("INSERT INTO d.u VALUES (1, 2)", "ALTER TABLE d.u DISABLE KEYS")
    mariadb.execute("CREATE TABLE d.t AS SELECT engine, 1 AS b FROM information_schema.tables LIMIT 1")
    mariadb.execute("CREATE TABLE d.v (e ENUM ('a','b'), f ENUM ('')) AS SELECT 'a' AS e")
    with mariadb.connect() as connection:
        found = schema.read_inventory(connection, read_facts(connection), databases=("d",))
    assert "`engine` varchar(64) CHARACTER SET utf8mb3 COLLATE utf8mb3_general_ci DEFAULT NULL," in found.tables[0].create_sql
    assert [one for one in found.warnings if one.startswith("table d.t: the columns engine may be NULL")]
    assert [table.keys_disabled for table in found.tables] == [False, True, False]
    assert [one for one in found.warnings if one.startswith("table d.v: the columns e show a length of 0")]
    assert [table.key for table in found.tables] == [(), ("a",), ()]


@pytest.mark.parametrize("name", ["mariadb", "mysql97"])
def test_a_computed_double_of_another_precision_is_named(name: str, request: pytest.FixtureRequest) -> None:
    """A literal's is that of its digits, on every server; no statement that names the column can make it."""
    server: Server = request.getfixturevalue(name)
    server.execute(
        "CREATE DATABASE d",
        "CREATE TABLE d.plain (d double, u double unsigned, f float, s double(5,2), z double unsigned zerofill)",
        "CREATE TABLE d.t AS SELECT 1e0 AS lit, d, f, s FROM d.plain",
    )
    with server.connect() as connection:
        found = schema.read_inventory(connection, read_facts(connection), databases=("d",))
    named = [one.partition(": ")[2] for one in found.warnings if "numeric_precision" in one]
    assert len(named) == 1 and named[0].startswith("the columns lit show another")
