"""kill -9 at seeded moments: nothing half-written counts, no process stays behind, the next run and --resume finish the work.

A moment is a fraction of the time an undisturbed run takes, so the kills fall into every phase on a machine of any speed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.mysql import server as mysql
from tests.integration import scenario
from tests.integration.scenario import Ended, Scene
from tests.servers.database import Server
from tests.servers.mysql97 import mysql97_server

SEED = 20261122
KILLS = 4
LAST = "t9"  # of tables of one size the last one that is loaded, by its name
PATIENCE_S = 120.0
EVENTS = "SELECT event_name, status FROM information_schema.events ORDER BY 1"

SHOP = (
    "CREATE DATABASE shop",
    "USE shop",
    "CREATE TABLE shop.a (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(80), w INT, KEY (v), KEY (w), UNIQUE (w, id))",
    "CREATE TABLE shop.b LIKE shop.a",
    "CREATE TABLE shop.keyless (v VARCHAR(80), w INT)",
    "CREATE TABLE shop.old (id INT PRIMARY KEY, v VARCHAR(80)) ENGINE=MyISAM",
    "INSERT INTO shop.a (v, w) SELECT CONCAT('value ', seq, REPEAT('x', 40)), seq FROM seq_1_to_30000",
    "INSERT INTO shop.b (v, w) SELECT v, w FROM shop.a",
    "INSERT INTO shop.keyless SELECT v, w FROM shop.a WHERE id <= 5000",
    "INSERT INTO shop.old SELECT id, v FROM shop.a WHERE id <= 5000",
    "CREATE VIEW shop.va AS SELECT * FROM shop.a",
    "CREATE USER app@'%' IDENTIFIED BY 'x'",
    "GRANT SELECT ON shop.* TO app@'%'",
)


@pytest.fixture
def scene(tmp_path: Path, mariadb_pair: tuple[Server, Server]) -> Iterator[Scene]:
    source, target = mariadb_pair
    source.execute(*SHOP)
    scene = Scene(tmp_path / "scene", source=source, target=target).loading_as_users_do()
    scene.ok("init", "--keys", str(scene.keys))
    yield scene


def _moments(whole_s: float, kills: int = KILLS) -> list[float]:
    """One moment in each of `kills` equal stretches of a run, at a random place in it."""
    place = random.Random(SEED)
    return [whole_s * (stretch + place.random()) / kills for stretch in range(kills)]


def _timed(scene: Scene, *words: str) -> float:
    began = time.monotonic()
    scene.ok(*words)
    return time.monotonic() - began


def _kill_after(scene: Scene, seconds: float, *words: str) -> Ended:
    """Runs kpbackup and kills it, and only it, after so long; its workers must go by themselves."""
    process = scene.start(*words)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate()
    _await_no_worker(scene)
    return Ended(process.returncode, out, err)


def _workers() -> dict[int, str]:
    """Worker processes of kpbackup without a living parent of ours."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if "_worker" in command and "kpbackup." in command and _marked(entry):
                found[int(entry.name)] = f"{command} (parent {parent})"
    return found


def _marked(entry: Path) -> bool:
    """Whether the process comes from this test: others may run kpbackup on this machine."""
    return f"KPB_TEST_MARK={os.getpid()}".encode() in (entry / "environ").read_bytes()


def _await_no_worker(scene: Scene) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while left := _workers():
        assert time.monotonic() < deadline, f"orphans: {left}"
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def _mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KPB_TEST_MARK", str(os.getpid()))


def _sets(scene: Scene) -> list[str]:
    return [key for key in scene.manifests() if "/sets/" in key]


def _segments(scene: Scene) -> list[str]:
    return [key for key in scene.manifests() if "/segments/" in key]


@pytest.mark.slow
def test_full_and_incremental(scene: Scene, mariadb_pair: tuple[Server, Server]) -> None:
    source, target = mariadb_pair
    whole_s = _timed(scene, "backup", "full")
    for moment in _moments(whole_s):
        before = _sets(scene)
        ended = _kill_after(scene, moment, "backup", "full")
        made = len(_sets(scene)) - len(before)
        assert made == (1 if ended.code == 0 else 0) or made == 1  # killed after the commit, before it said so
        scene.release_leases()
    for moment in _moments(_timed(scene, "backup", "incremental") + 0.3):
        source.execute("INSERT INTO shop.a (v, w) SELECT v, w FROM shop.b LIMIT 5000", "FLUSH BINARY LOGS")
        before = _segments(scene)
        _kill_after(scene, moment, "backup", "incremental")
        assert _segments(scene)[: len(before)] == before
        scene.release_leases()
    scene.ok("backup", "incremental")
    done = scene.ok("backup", "full")
    assert _sets(scene)[-1].endswith(f"{int(done['set'].split('-')[1]):010d}")
    for words in (("--to", "latest"), ("--to-gtid", scenario.gtid(source))):
        scene.restore(*words, *(("--overwrite", "shop") if scenario.databases(target) else ()))
        assert scenario.truth(target) == scenario.truth(source)


@pytest.mark.slow
def test_a_killed_process_is_waited_out(scene: Scene) -> None:
    """Without anybody's help: the lease of the dead runs out and the next run takes over."""
    scene.settings["source"]["bandwidth_limit"] = "64KiB"  # it cannot end before the kill
    process = scene.start("backup", "full")
    lease = scene.repository / "leases" / "full"
    while not lease.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert _sets(scene) == []
    del scene.settings["source"]["bandwidth_limit"]
    scene.ok("backup", "full")
    assert len(_sets(scene)) == 1


def _resumed(scene: Scene, run: str, *words: str) -> None:
    ended = scene.run("restore", *words, "--resume", run)
    assert ended.code == 0, ended.err


@pytest.mark.slow
def test_restore_while_loading(scene: Scene, mariadb_pair: tuple[Server, Server]) -> None:
    """Killed again and again at growing moments of the same run; each resume goes on where the one before stopped."""
    source, target = mariadb_pair
    scene.ok("backup", "full")
    began = time.monotonic()
    scene.restore("--to", "latest")
    whole_s = time.monotonic() - began
    words = ("restore", "database", "--to", "latest", "--yes", "--overwrite", "shop")
    target.execute("DROP USER app@'%'")
    known = {one["run"] for one in scene.ok("recoveries")["recoveries"]}
    run, moments = "", _moments(whole_s)
    while moments:
        moment = moments.pop(0)
        _kill_after(scene, moment, *(words if not run else ("restore", "--resume", run)))
        run = next((one["run"] for one in scene.ok("recoveries")["recoveries"] if one["run"] not in known), "")
        if run and _half_restored(scene, run):
            assert "shop" not in (there := scenario.databases(target)) or "kpbackup_restore" in there, "looks whole, but is not"
        if not moments and not run:
            moments = [2 * moment]  # the machine has become slower meanwhile: no kill came late enough to begin a run
    _resumed(scene, run)
    assert scenario.truth(target) == scenario.truth(source)
    assert scenario.databases(target) == ["shop"]
    shown = "SHOW GRANTS FOR app@'%'"
    assert scenario.rows(target, shown) == scenario.rows(source, shown)


def _half_restored(scene: Scene, run: str) -> bool:
    """After the target's own databases were dropped, and before the last check of what was restored passed."""
    entries = scene.ok("recoveries", run)["entries"]
    dropped = any(one["event"] == "step_finished" and one["fields"]["step"] == "prepare" for one in entries)
    return dropped and not any(one["event"] == "checked" for one in entries)


def _written(target: Server) -> int:
    """Rows written since the server started, those of its own temporary tables too."""
    return int(scenario.rows(target, "SHOW GLOBAL STATUS LIKE 'Handler_write'")[0][1])


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["kpbackup", "the target"])
def test_finished_chunks_are_not_loaded_twice(tmp_path: Path, mariadb_pair: tuple[Server, Server], killed: str) -> None:
    source, target = mariadb_pair
    fill = "INSERT INTO shop.t0 (v) SELECT REPEAT(CHAR(97 + seq % 26), 1500) FROM seq_1_to_2000"
    table = "CREATE TABLE shop.t0 (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(2000))"
    source.execute("CREATE DATABASE shop", "USE shop", table, fill,
                   *(f"CREATE TABLE shop.t{n} SELECT * FROM shop.t0" for n in range(1, 16)))  # fmt: skip
    scene = Scene(tmp_path / "scene", source=source, target=target)
    scene.settings["recovery"]["target"]["max_connections"] = 1  # one after the other, so that a part is done
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok("backup", "full")
    process = scene.start("restore", "database", "--to", "latest", "--yes")
    marked = "SELECT COUNT(*), COALESCE(SUM(`rows`), 0) FROM kpbackup_restore.progress"
    run = _await_state(scene, process, "step_started")
    _await(process, lambda: scenario.is_there(target, "shop", LAST))
    with target.connect() as holder:  # no row gets into the last table: the load cannot end before the kill
        holder.execute("START TRANSACTION")
        assert holder.rows(f"SELECT id FROM shop.{LAST} FOR UPDATE") == []
        _await(process, lambda: _progressed(target, marked))
        if killed == "kpbackup":
            process.kill()
            _await_no_worker(scene)
            _end_other_sessions(holder)
        else:
            target.kill()
    _, err = process.communicate(timeout=PATIENCE_S)
    _await_no_worker(scene)
    if killed == "the target":
        assert process.returncode == 12, err
        scenario.assert_clear(err)
        target.restart()
    (chunks, done), before = scenario.rows(target, marked)[0], _written(target)
    assert 3 <= chunks < 16
    _resumed(scene, run)
    written = _written(target) - before
    assert 32_000 - done <= written < 32_000 - done + 2_000  # one chunk more would be 2,000
    assert scenario.truth(target) == scenario.truth(source)


def _end_other_sessions(own: mysql.Connection) -> None:
    """The server goes on with the last statement of a client that was killed, and its rows would be counted."""
    others = "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND user = 'root'"
    deadline = time.monotonic() + PATIENCE_S
    while found := own.rows(others):
        for (number,) in found:
            with contextlib.suppress(errors.DatabaseError):  # it has ended by itself
                own.execute(f"KILL {number}")
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def _progressed(target: Server, marked: str) -> bool:
    try:
        return bool(scenario.rows(target, marked)[0][0] >= 3)
    except errors.DatabaseError:  # not made yet
        return False


def _await_state(scene: Scene, process: subprocess.Popen[str], event: str) -> str:
    """The run whose journal has reached `event`, read from the files: asking kpbackup would take too long."""
    while True:
        has_ended = process.poll() is not None  # asked first: what it wrote last may be seen after its end
        for entry in sorted((scene.repository / "recoveries").glob("*/*")):
            if f'"event":"{event}"'.encode() in entry.read_bytes():
                return entry.parent.name
        assert not has_ended, process.communicate()[1]
        time.sleep(0.02)


def _await(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    """Polls while the process is at work."""
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def _await_replayed(target: Server, process: subprocess.Popen[str]) -> None:
    """Until the target has executed a part of the history.

    Not earlier: MariaDB does not start again when it is killed in the middle of CHANGE MASTER ("Error reading master
    configuration", docs/recovery.md), and that is not what is tried here.
    """
    _await(process, lambda: scenario.rows(target, "SELECT 1 FROM shop.a WHERE v LIKE 'later%' LIMIT 1"))


def _write_history(source: Server) -> None:
    with source.connect() as connection:
        connection.execute("USE shop")
        connection.execute("CREATE EVENT awake ON SCHEDULE EVERY 1 DAY DO DELETE FROM b WHERE id < 0")
        connection.execute("CREATE EVENT asleep ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM b WHERE id < 0")
        for number in range(1, 2501):
            connection.execute(f"INSERT INTO a (v, w) VALUES ('later {number}', {number})")
            if number % 500 == 0:
                connection.execute("FLUSH BINARY LOGS")
                connection.execute(f"UPDATE b SET w = w + 1 WHERE id <= {number}")
        connection.execute("CREATE TABLE after (i INT PRIMARY KEY)")
        connection.execute("INSERT INTO after VALUES (1)")


def _replay_killed(scene: Scene, source: Server, target: Server) -> None:
    """The replay killed three times after it began, at random moments, then resumed; nothing missing, nothing twice."""
    scene.ok("backup", "full")
    _write_history(source)
    scene.ok("backup", "incremental")
    at, states = scenario.truth(source), scenario.rows(source, EVENTS)
    threads = "slave_parallel_threads" if target.product == "MariaDB" else "replica_parallel_workers"
    settings = f"SELECT @@GLOBAL.server_id, @@GLOBAL.{threads}"
    own = scenario.rows(target, settings)
    place, run = random.Random(SEED), ""
    for _ in range(3):
        words = ("restore", "--resume", run) if run else ("restore", "database", "--to", "latest", "--yes")
        process = scene.start(*words)
        run = _await_state(scene, process, "replay_started")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1.0 * place.random() + (0 if words[1] == "database" else 3.0))
        process.kill()
        process.communicate()
        _await_no_worker(scene)
    source.execute("INSERT INTO shop.after VALUES (2)", "FLUSH BINARY LOGS", "INSERT INTO shop.after VALUES (3)")
    scene.ok("backup", "incremental")  # what is archived meanwhile is not the interrupted run's
    _resumed(scene, run)
    assert scenario.truth(target) == at
    assert scenario.rows(target, EVENTS) == states
    assert scenario.rows(target, settings) == own


@pytest.mark.slow
def test_restore_while_replaying(scene: Scene, mariadb_pair: tuple[Server, Server]) -> None:
    _replay_killed(scene, *mariadb_pair)


@pytest.mark.slow
def test_restore_while_replaying_anonymous_transactions(tmp_path: Path, mysql97_programs: Path) -> None:
    """Without GTIDs only the channel knows how far the replay came; the target's own GTIDs say nothing."""
    off = ("--gtid-mode=OFF", "--enforce-gtid-consistency=OFF")
    with (
        mysql97_server(tmp_path / "source", server_id=41, options=off) as source,
        mysql97_server(tmp_path / "target", server_id=42) as target,
    ):
        source.execute(
            "CREATE DATABASE shop", "CREATE TABLE shop.a (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(80), w INT)",
            "CREATE TABLE shop.b LIKE shop.a", "INSERT INTO shop.b (v, w) VALUES ('b', 1)",
        )
        target.execute("SET GLOBAL event_scheduler = OFF")
        scene = Scene(tmp_path / "scene", source=source, target=target).loading_as_users_do()
        scene.ok("init", "--keys", str(scene.keys))
        _replay_killed(scene, source, target)


@pytest.mark.slow
def test_the_target_crashes_while_replaying(tmp_path: Path, scene: Scene, mariadb_pair: tuple[Server, Server]) -> None:
    source, target = mariadb_pair
    source.execute("DROP TABLE shop.old")  # MyISAM does not survive a crash in the middle; nothing of ours could help it
    scene.ok("backup", "full")
    _write_history(source)
    scene.ok("backup", "incremental")
    process = scene.start("restore", "database", "--to", "latest", "--yes")
    run = _await_state(scene, process, "replay_started")
    with target.connect() as holder:  # a row that the history changes now and then: the replay cannot end before the kill
        holder.execute("START TRANSACTION")
        assert len(holder.rows("SELECT id FROM shop.b WHERE id = 1 FOR UPDATE")) == 1
        _await_replayed(target, process)
        target.kill()
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (12, 26), err
    scenario.assert_clear(err)
    target.restart()
    _resumed(scene, run)
    assert scenario.truth(target) == scenario.truth(source)


def test_overwrite_is_remembered_by_the_run(scene: Scene, mariadb_pair: tuple[Server, Server]) -> None:
    """A kill between the plan and the end of the preparation: the resumed run still drops what it was told to drop."""
    source, target = mariadb_pair
    scene.ok("backup", "full")
    target.execute("CREATE DATABASE shop", "CREATE TABLE shop.a (wrong INT)", "CREATE TABLE shop.stray (i INT)")
    process = scene.start("restore", "database", "--to", "latest", "--yes", "--overwrite", "shop")
    run = _await_state(scene, process, "planned")
    process.kill()
    process.communicate()
    _resumed(scene, run)
    assert scenario.truth(target) == scenario.truth(source)
