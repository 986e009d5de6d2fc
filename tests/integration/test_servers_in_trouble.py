"""Source and target in the middle of the work: tables that change or go, lost connections, restarts, limits, a full disk.

A dump is slowed down by `source.bandwidth_limit`, so that there is a middle; a load is caught by its own progress table.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.mysql import cutting
from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers import plugins
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server

FULL = ("backup", "full")
RESTORE = ("restore", "database", "--to", "latest", "--yes")
TABLES, ROWS = 6, 6000
PATIENCE_S = 180.0
OTHERS = "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND user = 'root'"
WRITTEN = "SHOW GLOBAL STATUS LIKE 'Handler_write'"


def fill(source: Server, number: int) -> None:
    """A table of a megabyte that does not shrink."""
    source.execute(
        "CREATE DATABASE IF NOT EXISTS shop", "USE shop",
        f"CREATE OR REPLACE TABLE t{number} (i INT PRIMARY KEY, v VARBINARY(200), KEY (v))",
        f"INSERT INTO t{number} SELECT seq, CONCAT(UNHEX(SHA2(seq + {number} * 1e6, 512)), UNHEX(SHA2(-seq, 512)),"
        f" UNHEX(SHA2(seq * 7 + {number}, 512))) FROM seq_1_to_{ROWS}",
    )


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    top = tmp_path_factory.mktemp("trouble")
    with mariadb_server(top / "source", server_id=71) as source, mariadb_server(top / "target", server_id=72) as target:
        for number in range(TABLES):
            fill(source, number)
        yield source, target


@pytest.fixture
def scene(tmp_path: Path, servers: tuple[Server, Server]) -> Scene:
    """The source's tables as they were in the beginning, and an empty target."""
    source, target = servers
    scenario.wipe(target)
    source.execute("DROP TABLE IF EXISTS shop.moved")
    fill(source, TABLES - 1)
    scene = Scene(tmp_path / "scene", source=source, target=target)
    scene.ok("init", "--keys", str(scene.keys))
    return scene


def backup_while(scene: Scene, happening: Callable[[], None]) -> scenario.Ended:
    """A full backup, slow enough that `happening` falls into its middle; nothing may be stored as a success."""
    scene.settings["source"] |= {"bandwidth_limit": "2MB", "max_connections": 3}
    process = scene.start(*FULL)
    scenario.until(process, lambda: any((scene.repository / "data").rglob("*")))
    assert process.poll() is None
    happening()
    out, err = process.communicate(timeout=PATIENCE_S)
    del scene.settings["source"]["bandwidth_limit"]
    scene.release_leases()
    if process.returncode:
        assert [key for key in scene.manifests() if "/sets/" in key] == [], err
        scenario.assert_clear(err)
    return scenario.Ended(process.returncode, out, err)


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE shop.t{last}", "ALTER TABLE shop.t{last} ADD COLUMN more INT DEFAULT 7",
        "RENAME TABLE shop.t{last} TO shop.moved",
    ],
    ids=lambda text: text.split()[0],
)
def test_definitions_that_change_during_a_dump(scene: Scene, servers: tuple[Server, Server], change: str) -> None:
    source, _ = servers
    ended = backup_while(scene, lambda: source.execute(change.format(last=TABLES - 1)))
    assert ended.code == 28, ended.err
    assert f"shop.t{TABLES - 1}" in ended.err
    scene.ok(*FULL)


def test_a_table_emptied_during_a_dump(scene: Scene, servers: tuple[Server, Server]) -> None:
    """No definition changes: either the rows were read before, or the server cannot read them any more and the backup fails."""
    source, target = servers
    held = scenario.truth(source)
    ended = backup_while(scene, lambda: source.execute(f"TRUNCATE TABLE shop.t{TABLES - 1}"))
    if ended.code == 0:
        scene.restore("--to-position", scene.ok("list")["sets"][0]["coordinates"])
        assert scenario.truth(target) == held
    else:
        assert ended.code == 28
        assert f"shop.t{TABLES - 1} was dropped or altered while the backup ran" in ended.err


def test_connections_killed_during_a_dump(scene: Scene, servers: tuple[Server, Server]) -> None:
    source, _ = servers
    ended = backup_while(scene, lambda: kill_all(source))
    assert ended.code == 12, ended.err
    scene.ok(*FULL)


def test_a_source_that_restarts_during_a_dump(scene: Scene, servers: tuple[Server, Server]) -> None:
    source, _ = servers
    ended = backup_while(scene, source.kill)
    assert ended.code == 12, ended.err
    source.restart()
    scene.ok(*FULL)


def kill_all(server: Server) -> None:
    with server.connect() as connection:
        for (number,) in connection.rows(OTHERS):
            with contextlib.suppress(errors.DatabaseError):  # it has ended by itself
                connection.execute(f"KILL {number}")


def loaded(target: Server) -> int:
    """Rows of the chunks that count as loaded."""
    if "kpbackup_restore" not in scenario.databases(target):
        return 0
    with target.connect() as connection:
        if not connection.rows("SHOW TABLES IN kpbackup_restore LIKE 'progress'"):
            return 0
        return int(connection.value("SELECT COALESCE(SUM(`rows`), 0) FROM kpbackup_restore.progress"))


@pytest.mark.parametrize("what", ["connections", "server"])
def test_a_load_that_loses_its_target_goes_on_where_it_was(scene: Scene, servers: tuple[Server, Server], what: str) -> None:
    source, target = servers
    scene.settings["source"]["max_connections"] = 3
    scene.ok(*FULL)
    process = scene.start(*RESTORE)
    last = f"t{TABLES - 1}"
    scenario.until(process, lambda: scenario.is_there(target, "shop", last))
    with target.connect() as holder:  # no row gets into the last table: the load cannot end before the kill
        holder.execute("START TRANSACTION")
        assert holder.rows(f"SELECT i FROM shop.{last} FOR UPDATE") == [], "caught too late: nothing was left to load"
        scenario.until(process, lambda: loaded(target))
        kill_all(target) if what == "connections" else target.kill()
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (12, 26), err
    scenario.assert_clear(err)
    run = err.partition("--resume ")[2].split("`")[0]
    if what == "server":
        target.restart()
    done = loaded(target)
    assert 0 < done < TABLES * ROWS
    before = int(scenario.rows(target, WRITTEN)[0][1])
    ended = scene.run("restore", "--resume", run)
    assert ended.code == 0, ended.err
    assert int(scenario.rows(target, WRITTEN)[0][1]) - before < TABLES * ROWS - done + ROWS // 2
    assert scenario.truth(target) == scenario.truth(source)


# what the target does not have room for


@contextmanager
def target_of(tmp_path: Path, *options: str) -> Iterator[Server]:
    with mariadb_server(tmp_path / "other", server_id=73, options=options) as target:
        yield target


def backed_up(tmp_path: Path, source: Server, database: str, *statements: str) -> Scene:
    source.execute(f"CREATE OR REPLACE DATABASE {database}", f"USE {database}", *statements)
    scene = Scene(tmp_path / "scene", source=source)
    scene.settings["source"]["databases"] = [database]
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok(*FULL)
    return scene


def test_a_packet_limit_below_the_rows(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    """What is known to be too large is refused before anything is touched; what shows on the way stops the load. Rows whose
    values all fit are no matter."""
    large = "INSERT INTO w VALUES (1, REPEAT('a', 1500000))"
    several = ("CREATE TABLE v (a MEDIUMTEXT, b LONGBLOB)", "INSERT INTO v VALUES (REPEAT('a', 700000), REPEAT('b', 700000))")
    scene = backed_up(tmp_path, servers[0], "wide", "CREATE TABLE w (i INT PRIMARY KEY, v LONGBLOB)", large, *several)
    with target_of(tmp_path, "--max-allowed-packet=1M") as target:
        scene.settings["recovery"]["target"] = scenario.target_login(target)
        refusal = scene.refused(23, *RESTORE)
        assert "max_allowed_packet is 1048576, too small for wide.w: they" in refusal
        assert "or leave out what needs it: --exclude wide.w" in refusal
        assert scenario.databases(target) == []
        servers[0].execute("USE wide", "INSERT INTO w SELECT seq, 'small' FROM seq_2_to_9")
        scene.ok(*FULL)
        said = scene.run(*RESTORE)
        assert said.code == 14, said.err
        assert "wide.w" in said.err
        assert "max_allowed_packet" in said.err
        target.execute("SET GLOBAL max_allowed_packet = 16777216")
        scene.ok("restore", "--resume", said.err.partition("--resume ")[2].split("`")[0])
        expected = {name: value for name, value in scenario.truth(servers[0]).items() if name.startswith("wide.")}
        assert scenario.truth(target) == expected


def test_another_rule_for_the_case_of_names(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    scene = backed_up(tmp_path, servers[0], "cased", "CREATE TABLE t (i INT)", "CREATE TABLE T (i INT)")
    with target_of(tmp_path, "--lower-case-table-names=1") as target:
        scene.settings["recovery"]["target"] = scenario.target_login(target)
        assert "lower_case_table_names is 1, on the source 0" in scene.refused(23, *RESTORE)
        assert scenario.databases(target) == []


def test_a_collation_that_the_target_does_not_have(tmp_path: Path) -> None:
    """One that was defined on the source's machine: refused by name before anything changes, and all else comes without it."""
    charsets = tmp_path / "charsets"
    shutil.copytree("/usr/share/mysql/charsets", charsets)
    rules = "<rules><reset>a</reset><p>z</p></rules>"
    own = f'<charset name="utf8mb4"><collation name="utf8mb4_own_ci" id="1029">{rules}</collation></charset>'
    index = charsets / "Index.xml"
    index.write_text(index.read_text().replace("</charsets>", f"{own}</charsets>"))
    places = [f"--character-sets-dir={charsets}"]
    with mariadb_server(tmp_path / "source", server_id=76, options=places) as source, target_of(tmp_path) as target:
        wanted = "CREATE TABLE named (v VARCHAR(9) COLLATE utf8mb4_own_ci)"
        scene = backed_up(tmp_path, source, "shop", wanted, "INSERT INTO named VALUES ('a')", "CREATE TABLE plain (i INT)")
        scene.settings["recovery"]["target"] = scenario.target_login(target)
        told = scene.refused(23, *RESTORE)
        assert "the target has no collation utf8mb4_own_ci, which shop.named need" in told
        assert "--exclude shop.named" in told
        assert scenario.databases(target) == []
        scene.ok(*RESTORE, "--exclude", "shop.named")
        assert set(scenario.truth(target)) == {"shop.plain"}


def test_an_archive_table_of_many_rows(tmp_path: Path) -> None:
    """Its engine takes rows in the order of their counter alone, and none back: the error of a row that it refuses is told."""
    loaded = plugins.options(plugins.installed_mariadb(), ("ha_archive",))
    with mariadb_server(tmp_path / "source", server_id=74, options=loaded) as source, target_of(tmp_path, *loaded) as target:
        table = "(i INT AUTO_INCREMENT PRIMARY KEY, v INT) ENGINE=ARCHIVE"
        filled = f"INSERT INTO a SELECT seq, seq % 7 FROM seq_1_to_{cutting.Size().rows + 10_000}"
        scene = backed_up(tmp_path, source, "shop", f"CREATE TABLE a {table}", filled)
        scene.settings["recovery"]["target"] = scenario.target_login(target)
        scene.ok(*RESTORE)
        assert scenario.truth(target) == scenario.truth(source)
        target.execute("DROP DATABASE shop")
        source.execute("USE shop", "DROP TABLE a", f"CREATE TABLE odd {table}", "INSERT INTO odd VALUES (1, 1), (-1, 2)")
        scene.ok(*FULL)
        told = scene.refused(25, *RESTORE)
        assert "engine ARCHIVE cannot take back the rows of an interrupted load (running " in told
        assert "error 1022: Can't write; duplicate key in table 'odd')" in told
        assert "--exclude shop.odd" in told


def test_a_trigger_that_the_source_itself_spoiled(scene: Scene, servers: tuple[Server, Server]) -> None:
    """Left out where the source cannot read it either; of a text that renaming changed that cannot be said."""
    source, target = servers
    spoiled = "CREATE TRIGGER odd.spoiled BEFORE INSERT ON odd.t FOR EACH ROW INSERT/*!INTO*/t VALUES (1)"
    source.execute("CREATE DATABASE odd", "CREATE TABLE odd.t (i INT)", "USE odd", spoiled)
    try:
        scene.ok(*FULL)
    finally:
        source.execute("DROP DATABASE odd")
    only = ("--only", "odd.*")
    assert "error 1064" in scene.refused(30, *RESTORE, *only, "--rename", "odd=other")
    scenario.wipe(target)
    ended = scene.run(*RESTORE, *only)
    assert ended.code == 0 and "warning: cannot create trigger odd.spoiled" in ended.err, ended.err
    assert scenario.is_there(target, "odd", "t")


def test_missing_plugins(tmp_path: Path) -> None:
    """An engine that is missing is refused with its tables; an account of a login that is missing is left out and named."""
    loaded = plugins.options(plugins.installed_mariadb(), ("ha_archive", "auth_ed25519"))
    with mariadb_server(tmp_path / "source", server_id=74, options=loaded) as source, target_of(tmp_path) as target:
        source.execute("CREATE USER ed@'%' IDENTIFIED VIA ed25519 USING PASSWORD('x')", "CREATE USER plain@'%' IDENTIFIED BY 'x'")
        scene = backed_up(tmp_path, source, "shop", "CREATE TABLE a (i INT) ENGINE=ARCHIVE", "CREATE TABLE t (i INT)")
        scene.settings["recovery"]["target"] = scenario.target_login(target)
        assert "no storage engine ARCHIVE, which shop.a need" in scene.refused(23, *RESTORE)
        assert scenario.databases(target) == []
        source.execute("DROP TABLE shop.a")
        scene.ok(*FULL)
        said = scene.run(*RESTORE)
        assert said.code == 0, said.err
        assert "was left out: the target has no login plugin ed25519" in said.err
        users = "SELECT user FROM mysql.user WHERE user IN ('ed', 'plain')"
        assert scenario.rows(target, users) == [("plain",)]


@contextmanager
def small_disk(directory: Path, size_mib: int) -> Iterator[Path]:
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(directory)]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"a small file system needs the right to mount: {made.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_a_full_disk_under_the_target(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    filler = "CREATE TABLE f (i INT PRIMARY KEY, v LONGBLOB)"
    rows = "INSERT INTO f SELECT seq, REPEAT(UNHEX(SHA2(seq, 512)), 16000) FROM seq_1_to_60"
    scene = backed_up(tmp_path, servers[0], "filling", filler, rows)
    with small_disk(tmp_path / "disk", 64) as disk, mariadb_server(disk / "target", server_id=75) as target:
        scene.settings["recovery"]["target"] = scenario.target_login(target)
        said = scene.run(*RESTORE)
        assert said.code != 0, "the disk had room for it"
        scenario.assert_clear(said.err)
        if target.is_running:
            assert "loading filling.f" in said.err
            assert "full" in said.err
            assert "kpbackup_restore" in scenario.databases(target), "it looks whole"
        else:  # InnoDB ends the server when a log cannot be written
            assert said.code == 12, said.err
