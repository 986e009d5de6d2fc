"""Full backups while the bank is under fire: exact at their coordinates, or a clear error; never a table that is another.

Exact: restored to its coordinates a set keeps the bank's promises; replayed from there to a quiet point it equals the source.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kpbackup import errors
from kpbackup.backup import full
from kpbackup.model.manifest import BackupSet
from kpbackup.mysql.cutting import Size
from kpbackup.pipeline import encrypt, sign
from kpbackup.repository import binding
from kpbackup.storage import open_backend
from tests.conftest import unless_without
from tests.crash.test_ordering import CREATED
from tests.integration import bank, scenario
from tests.integration.scenario import Scene
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mysql97 import mysql97_server

ATTEMPTS = 8
EVERYWHERE = "SELECT, SHOW VIEW, TRIGGER, EVENT, REPLICATION SLAVE, REPLICATION CLIENT"
# (fixture, what the account may do beside that, the rung it climbs)
LOGINS = [
    ("mariadb_pair", ("LOCK TABLES",), "lock_tables"),
    ("mysql97_pair", ("RELOAD, BACKUP_ADMIN",), "instance_lock_ftwrl"),
    ("mysql97_pair", ("LOCK TABLES",), "lock_tables"),
]


def backed_up(scene: Scene, fire: bank.Fire) -> dict[str, Any]:
    """A full backup that succeeds; until then each attempt ends with a clear SnapshotError, and nothing is stored.

    Tables come and go, and transfers are made, more rarely from attempt to attempt: on a slow machine a dump takes longer than
    they rest in the beginning, and so does what the lock-free point needs to be without writes.
    """
    pause_s = fire.pause_s
    for attempt in range(ATTEMPTS):
        fire.rest_s, fire.pause_s = 1.5**attempt, pause_s * 1.5**attempt
        ended = scene.run("--json", "backup", "full")
        if ended.code == 0:
            found: dict[str, Any] = ended.document
            return found
        assert ended.code == 28, ended.err
        scenario.assert_clear(ended.err)
        assert [key for key in scene.manifests() if "/sets/" in key] == []
    raise AssertionError(f"no backup in {ATTEMPTS} attempts: {ended.err}")


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "grants", "rung"), LOGINS)
def test_a_backup_under_fire_is_exact(
    request: pytest.FixtureRequest, tmp_path: Path, pair: str, grants: tuple[str, ...], rung: str
) -> None:
    source, target = request.getfixturevalue(pair)
    bank.create(source)
    source.execute("CREATE USER kp@'%' IDENTIFIED BY 'p'", *(f"GRANT {one} ON *.* TO kp@'%'" for one in (EVERYWHERE, *grants)))
    target.execute("SET GLOBAL event_scheduler = OFF")
    scene = Scene(tmp_path / "scene", source=source, target=target, environ={"KPBACKUP_SOURCE__PASSWORD": "p"})
    scene.settings["source"] |= {"user": "kp", "databases": ["bank"]}
    scene.ok("init", "--keys", str(scene.keys))
    with bank.Fire(source) as fire:
        made = backed_up(scene, fire)
    assert made["snapshot"] == rung
    assert fire.transfers > 0 and bank.broken_promises(source) == []
    (listed,) = scene.ok("list")["sets"]
    assert (listed["snapshot"], listed["writes_blocked_ms"]) == (rung, made["writes_blocked_ms"])
    assert f"{rung}, {made['writes_blocked_ms']} ms" in scene.run("list").out
    if source.product == "MySQL":  # what this account may not look for is told, not passed over
        assert any("XA_RECOVER_ADMIN" in one for one in scene.ok("list", "--warnings", made["set"])["warnings"])
    scene.ok("backup", "incremental")
    scene.restore("--to-position", made["coordinates"])
    assert bank.broken_promises(target) == []
    at_the_point = scenario.truth(target)
    assert set(at_the_point) == {"bank.account", "bank.transfer", "bank.ballast"}
    scene.restore("--to", "latest", "--overwrite", "bank")
    assert scenario.truth(target) == scenario.truth(source) != at_the_point


# -- the other rungs of the ladder, on servers they share

# MariaDB asks for flush_tables only where a service refuses BACKUP STAGE: test_snapshot.py forces it, with a writer beside it
RUNGS = [("mariadb", "backup_stage"), ("mariadb", "lock_free"), ("mysql", "flush_tables"), ("mysql", "lock_free")]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[Server, Server]]]:
    """Source and target of a flavour, started when they are first asked for."""
    directory, started = tmp_path_factory.mktemp("rungs"), dict[str, tuple[Server, Server]]()
    with contextlib.ExitStack() as stack:

        def pair(flavour: str) -> tuple[Server, Server]:
            if flavour == "mysql":
                unless_without("mysql97")
            make = mariadb_server if flavour == "mariadb" else mysql97_server
            if flavour not in started:
                source, target = (
                    stack.enter_context(make(directory / f"{flavour}-{number}", server_id=number)) for number in (281, 282)
                )
                started[flavour] = source, target
                target.execute("SET GLOBAL event_scheduler = OFF")
            return started[flavour]

        yield pair


@pytest.mark.slow
@pytest.mark.parametrize(("flavour", "rung"), RUNGS)
def test_every_rung_holds_under_fire(
    pairs: Callable[[str], tuple[Server, Server]], tmp_path: Path, flavour: str, rung: str
) -> None:
    """Transfers, tables that come and go, long queries: what was read at the coordinates, replayed from there, is the source."""
    source, target = pairs(flavour)
    scenario.wipe(source, users=["kp@'%'"])
    scenario.wipe(target)
    bank.create(source, ballast_rows=500)
    rights = EVERYWHERE if rung == "lock_free" else f"{EVERYWHERE}, RELOAD"
    source.execute("CREATE USER kp@'%' IDENTIFIED BY 'p'", f"GRANT {rights} ON *.* TO kp@'%'")
    scene = Scene(tmp_path / "scene", source=source, target=target, environ={"KPBACKUP_SOURCE__PASSWORD": "p"})
    scene.settings["source"] |= {"user": "kp", "databases": ["bank"]}
    scene.ok("init", "--keys", str(scene.keys))
    is_calm = rung == "lock_free"  # it needs a moment without writes, or gives up
    with bank.Fire(source, writers=1 if is_calm else 2, pause_s=0.5 if is_calm else 0.02) as fire:
        made = backed_up(scene, fire)
        seen = fire.transfers
        while fire.transfers <= seen:  # something to replay
            assert not fire.has_failed
            time.sleep(0.01)
    assert made["snapshot"] == rung and fire.transfers > 0
    scene.ok("backup", "incremental")
    scene.restore("--to", "latest")
    assert bank.broken_promises(target) == bank.broken_promises(source) == []
    assert scenario.truth(target) == scenario.truth(source)


# -- a definition changes at a known moment: after the first object was stored, before the last


class Ddl:
    """Tables a, b and c of several megabytes, alike but for their rows; `backup` runs statements in the middle of the dump."""

    def __init__(self, source: Server, directory: Path) -> None:
        self._source, self._number, self._directory = source, 0, directory

    def create(self) -> None:
        self._source.execute(
            "DROP DATABASE IF EXISTS ddl", "CREATE DATABASE ddl", "USE ddl",
            *(f"CREATE TABLE {name} (id INT PRIMARY KEY AUTO_INCREMENT, pad VARCHAR(900) NOT NULL)" for name in "abc"),
            *(f"INSERT INTO {name} (pad) SELECT REPEAT('{name}', 850) FROM bank.ballast LIMIT 2600" for name in "abc"),
            "CREATE VIEW v AS SELECT id FROM a", *(f"ANALYZE TABLE {name}" for name in "abc"),
        )

    def backup(self, *moments: tuple[str, ...]) -> BackupSet:
        """`moments[n]` are run when n + 1 objects are stored."""
        self._number += 1
        store = open_backend((self._directory / str(self._number)).as_uri())
        repository = binding.create_repository(
            store, signing_key=sign.SigningKey.generate(), source="db", flavour=self._source.product.lower(), created_at=CREATED
        )
        waiting = list(moments)

        def progress(done: int, total: int) -> None:
            if waiting:
                try:
                    self._source.execute("USE ddl", "SET lock_wait_timeout = 30", *waiting[0])
                    del waiting[0]
                except errors.KpbackupError as exc:
                    raise AssertionError(f"the change had to wait for the dump, or failed: {exc}") from exc

        request = full.FullRequest(
            self._source.endpoint, (encrypt.Identity.generate().recipient,), "here", databases=("ddl",), workers=1,
            chunk=Size(rows=100_000), progress=progress,
        )
        made = full.run_full(repository, request)
        assert waiting == [], "the dump was over before the change"
        return made


SWAP = "RENAME TABLE {0} TO x, {1} TO {0}, x TO {1}"
REFUSED: dict[str, tuple[tuple[str, ...], ...]] = {
    "swapped and swapped back": ((SWAP.format("b", "c"),), (SWAP.format("b", "c"),)),
    "swapped with what is stored already": ((SWAP.format("a", "b"),), (SWAP.format("a", "b"),)),
    "emptied": (("TRUNCATE TABLE c",),),
    "made anew": (("CREATE TABLE d LIKE c", "INSERT INTO d SELECT * FROM c", "DROP TABLE c", "RENAME TABLE d TO c"),),
    "altered and altered back": (("ALTER TABLE c ADD x INT FIRST",), ("ALTER TABLE c DROP x",)),
    "dropped": (("DROP TABLE c",),),
    "database dropped": (("DROP DATABASE ddl",),),
    "a view changed": (("ALTER VIEW v AS SELECT id FROM b",),),
    "an account made": (("CREATE USER ddl_user@'%'",),),
}
ALLOWED: dict[str, tuple[tuple[str, ...], ...]] = {
    "other tables come and go": (
        ("CREATE TABLE new LIKE a", "INSERT INTO new SELECT * FROM a", "ALTER TABLE new ADD x INT", "RENAME TABLE new TO newer"),
        ("TRUNCATE TABLE newer", "CREATE TABLE IF NOT EXISTS a (i INT)", "CREATE TABLE left_there (i INT)"),
    ),
    "another database": (("CREATE DATABASE elsewhere", "CREATE TABLE elsewhere.a (i INT)", "DROP DATABASE elsewhere"),),
    "statistics": (("ANALYZE TABLE c", "FLUSH TABLES"),),
}


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["mariadb", "mysql97"])
def test_a_change_of_definitions_in_the_middle(request: pytest.FixtureRequest, tmp_path: Path, flavour: str) -> None:
    source: Server = request.getfixturevalue(flavour)
    bank.create(source)
    ddl = Ddl(source, tmp_path)
    for case, moments in REFUSED.items():
        ddl.create()
        with pytest.raises(errors.SnapshotError) as caught:
            ddl.backup(*moments)
            pytest.fail(f"{case}: taken for exact")
        said = caught.value.message
        assert ("definition" in said or "dropped or altered while the backup ran" in said) and caught.value.hint, case
        source.execute("DROP USER IF EXISTS ddl_user@'%'")
    for moments in ALLOWED.values():
        ddl.create()
        made = ddl.backup(*moments)
        assert (made.totals.tables, made.totals.rows) == (3, 3 * 2600)
