"""The main job on MariaDB and S3: backup, archive, restore to any point, the five steps; told by SQL that is not kpbackup's."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration import scenario
from tests.integration.scenario import Scene
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.s3 import S3Server

SHOP = (
    "CREATE DATABASE shop",
    "USE shop",
    "CREATE TABLE item (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(60), price FLOAT, note TEXT,"
    " KEY (name), KEY (price, name))",
    "CREATE TABLE stock (item INT PRIMARY KEY, amount INT NOT NULL, FOREIGN KEY (item) REFERENCES item (id))",
    "CREATE TABLE log (at DATETIME(6), what VARCHAR(40))",
    "INSERT INTO item (name, price) SELECT CONCAT('item ', seq), seq / 7 FROM seq_1_to_2000",
    "INSERT INTO stock SELECT id, id * 3 FROM item",
    "CREATE VIEW dear AS SELECT * FROM item WHERE price > 100",
    "CREATE FUNCTION twice(x INT) RETURNS INT DETERMINISTIC RETURN x * 2",
    "CREATE PROCEDURE restock(IN which INT) UPDATE stock SET amount = amount + 10 WHERE item = which",
    "CREATE TRIGGER item_log AFTER INSERT ON item FOR EACH ROW INSERT INTO log VALUES (NOW(6), NEW.name)",
    "CREATE EVENT tidy ON SCHEDULE EVERY 1 DAY DO DELETE FROM log WHERE at < '2000-01-01'",
    "CREATE USER app@'%' IDENTIFIED BY 'app-secret'",
    "GRANT SELECT, INSERT ON shop.* TO app@'%'",
    "CREATE ROLE clerk",
    "GRANT UPDATE ON shop.stock TO clerk",
    "GRANT clerk TO app@'%'",
)
USERS = ("app@'%'",)


@dataclass
class Point:
    """A moment of the source's story: what it held, and how to ask for it."""

    truth: dict[str, tuple[int, int]]
    time: datetime
    gtid: str
    position: str


@dataclass
class Story:
    """A source with two sets, several binlog files and three points between them."""

    scene: Scene
    source: Server
    target: Server
    points: dict[str, Point] = field(default_factory=dict)
    sets: list[str] = field(default_factory=list)
    observed: datetime | None = None

    def write(self, name: str, *statements: str) -> None:
        self.source.execute("USE shop", *statements)
        at, gtid = scenario.position(self.source), scenario.gtid(self.source)
        self.points[name] = Point(scenario.truth(self.source), scenario.next_second(self.source), gtid, at)

    @property
    def machine(self) -> Scene:
        """A machine that only restores."""
        return self.scene.for_restore()

    def assert_at(self, name: str) -> None:
        assert scenario.truth(self.target) == self.points[name].truth


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, s3: S3Server) -> Iterator[Story]:
    """Full, writes A, new files, writes B, incremental, full, writes C, incremental, new file, incremental, observation."""
    directory = tmp_path_factory.mktemp("main")
    with (
        mariadb_server(directory / "source", server_id=77) as source,
        mariadb_server(directory / "target", server_id=77) as target,  # the same id: a copied configuration is usual
    ):
        bucket = s3.create_bucket(f"kpb-{secrets.token_hex(6)}")
        scene = Scene(
            directory / "scene", url=f"s3://{bucket}/shop", endpoint_url=s3.endpoint_url, environ=s3.environ(),
            source=source, target=target,
        ).loading_as_users_do()
        yield _tell(Story(scene, source, target))


def _tell(story: Story) -> Story:
    scene, source = story.scene, story.source
    source.execute(*SHOP)
    scene.ok("init", "--keys", str(scene.keys))
    story.sets.append(scene.ok("backup", "full")["set"])
    scenario.next_second(source)
    story.write("A", "UPDATE item SET note = 'A' WHERE id <= 50", "INSERT INTO item (name, price) VALUES ('new in A', 1.5)")
    source.execute("FLUSH BINARY LOGS")
    source.execute("FLUSH BINARY LOGS")
    story.write("B", "DELETE FROM stock WHERE item > 1900", "CREATE TABLE late (x INT)", "INSERT INTO late VALUES (1), (2)")
    scene.ok("backup", "incremental")
    story.sets.append(scene.ok("backup", "full")["set"])
    scenario.next_second(source)
    story.write("C", "CALL restock(7)", "CREATE USER late@'%' IDENTIFIED BY 'x'", "UPDATE late SET x = x + 10")
    scene.ok("backup", "incremental")
    source.execute("FLUSH BINARY LOGS")
    rotated = scene.ok("backup", "incremental")
    assert rotated["transactions"] == 0
    scenario.next_second(source)
    scenario.next_second(source)
    observed = scene.ok("backup", "incremental")
    assert observed["segments"] == 0
    story.observed = datetime.fromisoformat(observed["recovery_point"])
    return story


@pytest.fixture
def target(story: Story) -> Server:
    """The story's target, empty."""
    scenario.wipe(story.target, users=("app@'%'", "late@'%'"))
    story.target.execute("DROP ROLE IF EXISTS clerk")
    return story.target


def test_latest_brings_back_everything(story: Story, target: Server) -> None:
    done = story.machine.restore("--to", "latest")
    story.assert_at("C")
    assert done["details"]["rows"] != "0"
    assert scenario.definitions(target) == scenario.definitions(story.source)
    for who in ("app@'%'", "clerk", "late@'%'"):
        shown = f"SHOW GRANTS FOR {who}"
        assert scenario.rows(target, shown) == scenario.rows(story.source, shown)
    assert "kpbackup_restore" not in scenario.databases(target)


@pytest.mark.parametrize(
    ("point", "how"), [("A", "time"), ("A", "gtid"), ("A", "position"), ("B", "time"), ("B", "gtid"), ("C", "gtid")]
)
def test_any_point_by_any_name(story: Story, target: Server, point: str, how: str) -> None:
    asked = story.points[point]
    words = {
        "time": ("--to", scenario.text(asked.time)),
        "gtid": ("--to-gtid", asked.gtid),
        "position": ("--to-position", asked.position),
    }[how]
    story.machine.restore(*words)
    story.assert_at(point)


def test_the_newest_set_before_the_target_is_taken(story: Story, target: Server) -> None:
    planned = [
        story.machine.ok("restore", "database", "--to", scenario.text(story.points[name].time), "--dry-run")["set"]
        for name in ("A", "C")
    ]
    assert planned == story.sets


def test_before_a_gtid(story: Story, target: Server) -> None:
    domain, server, number = story.points["B"].gtid.split("-")
    first_of_b = int(number) - 2
    story.machine.restore("--before-gtid", f"{domain}-{server}-{first_of_b}")
    story.assert_at("A")


def test_the_end_of_a_file_is_not_the_end_of_the_next(story: Story, target: Server) -> None:
    """A position at the very end of a rotated file must not let the next file's transactions in."""
    file = story.points["A"].position.partition(":")[0]
    length = next(row[1] for row in scenario.rows(story.source, "SHOW BINARY LOGS") if row[0] == file)
    story.machine.restore("--to-position", f"{file}:{length}")
    story.assert_at("A")


def test_an_observation_moves_the_recovery_point(story: Story, target: Server) -> None:
    """Nothing was committed after C, and the archive saw that: a time behind the last commit is restorable."""
    assert story.observed is not None
    asked = story.observed - timedelta(milliseconds=1)
    assert asked > story.points["C"].time
    story.machine.restore("--to", scenario.text(asked))
    story.assert_at("C")


def test_times_outside_the_window_name_the_nearest_points(story: Story, target: Server) -> None:
    assert story.observed is not None
    late = story.machine.refused(22, "restore", "database", "--yes", "--to", scenario.text(story.observed + timedelta(seconds=5)))
    assert story.observed.strftime("%Y-%m-%dT%H:%M:%S") in late
    early = story.machine.refused(22, "restore", "database", "--yes", "--to", "2001-01-01T00:00Z")
    assert "before the first" in early
    assert "nearest recoverable points: 20" in early
    unknown = story.machine.refused(22, "restore", "database", "--yes", "--to-gtid", "1-77-999999")
    assert "1-77-999999" in unknown
    assert scenario.databases(target) == []


def test_nothing_changes_without_a_yes(story: Story, target: Server) -> None:
    before = (scenario.rows(target, "SHOW GLOBAL VARIABLES"), len(story.machine.ok("recoveries")["recoveries"]))
    story.machine.ok("restore", "--to", "latest", "--dry-run")
    said = story.machine.refused(20, "restore", "--to", "latest")
    assert "--yes" in said
    assert scenario.databases(target) == []
    after = (scenario.rows(target, "SHOW GLOBAL VARIABLES"), len(story.machine.ok("recoveries")["recoveries"]))
    assert [row for row in after[0] if row not in before[0] and "timestamp" not in row[0] and "rand" not in row[0]] == []
    assert after[1] == before[1]


def test_a_target_with_databases_is_refused_until_they_are_named(story: Story, target: Server) -> None:
    for name in ("other", "shop"):
        target.execute(f"CREATE DATABASE {name}", f"CREATE TABLE {name}.log (i INT)")
    said = story.machine.refused(23, "restore", "database", "--yes", "--to", "latest", "--overwrite", "shop")
    assert "other" in said
    assert "--overwrite other" in said
    assert scenario.databases(target) == ["other", "shop"]
    story.machine.restore("--to", "latest", "--overwrite", "shop", "--overwrite", "other")
    story.assert_at("C")


def test_without_the_source_and_with_what_an_older_restore_left(story: Story, target: Server) -> None:
    """The progress table of a restore that was given up must not make the next one skip its chunks."""
    story.machine.restore("--to", "latest")
    target.execute(
        "CREATE DATABASE kpbackup_restore",
        "CREATE TABLE kpbackup_restore.progress (chunk_id CHAR(64) PRIMARY KEY, `rows` BIGINT, done DATETIME(6))",
        "DROP DATABASE shop",
        "DROP USER late@'%'",
    )
    story.source.stop()
    try:
        story.machine.restore("--to", "latest")
    finally:
        story.source.restart()
    story.assert_at("C")


def test_an_account_in_the_way_of_the_replay(story: Story, target: Server) -> None:
    """The binlog creates an account that the target has already, for itself: it stays as it is, and that is told."""
    target.execute("CREATE USER late@'%' IDENTIFIED BY 'other'")
    before = scenario.rows(target, "SHOW CREATE USER late@'%'")
    done = story.machine.restore("--to", "latest")
    assert done["details"]["account_statements_left_out"] == "1"
    assert scenario.rows(target, "SHOW CREATE USER late@'%'") == before
    story.assert_at("C")


def test_a_running_event_scheduler_is_refused(story: Story, target: Server) -> None:
    target.execute("SET GLOBAL event_scheduler = ON")
    try:
        said = story.machine.refused(23, "restore", "database", "--yes", "--to", "latest")
    finally:
        target.execute("SET GLOBAL event_scheduler = OFF")
    assert "event_scheduler" in said


def test_a_target_without_binlog(story: Story, tmp_path: Path) -> None:
    with mariadb_server(tmp_path / "plain", server_id=5, options=("--skip-log-bin",)) as plain:
        scene = story.machine
        scene.settings["recovery"]["target"] = scenario.login(plain)
        scene.restore("--to-gtid", story.points["C"].gtid)
        assert scenario.truth(plain) == story.points["C"].truth


# The five steps


def _script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def _steps(story: Story, **steps: dict[str, Any]) -> Scene:
    scene = story.machine
    scene.settings["recovery"] = {**scene.settings["recovery"], **steps}
    return scene


def test_five_steps_by_commands_that_fail_once(story: Story, target: Server, tmp_path: Path) -> None:
    facts, mark = tmp_path / "facts", tmp_path / "second time"
    body = f'env | grep ^KPBACKUP_STEP_ | sort > "{facts}"\n[ -e "{mark}" ] || {{ touch "{mark}"; exit 3; }}'
    deploy = _script(tmp_path / "deploy", body)
    switch = _script(tmp_path / "switch", f'echo switched >> "{facts}"')
    scene = _steps(
        story, deploy={"driver": "command", "command": [deploy]}, switch={"driver": "command", "command": [switch]},
        verify={"driver": "none", "sql": [{"query": "SELECT COUNT(*) FROM shop.late", "expect": 2}]},
    )
    said = scene.refused(26, "restore", "--to", "latest", "--yes")
    run = said.partition("--resume ")[2].split("`")[0]
    assert "exit code 3" in said
    target.execute("SET GLOBAL event_scheduler = ON")  # the application's own now: resuming must not judge it
    try:
        done = scene.ok("restore", "--resume", run)
    finally:
        target.execute("SET GLOBAL event_scheduler = OFF")
    assert done["recovered"] is True
    story.assert_at("C")
    told = dict(line.split("=", 1) for line in facts.read_text().splitlines() if "=" in line)
    assert told["KPBACKUP_STEP_NAME"] == "deploy"
    assert told["KPBACKUP_STEP_RUN"] == run
    assert told["KPBACKUP_STEP_SET"] == story.sets[1]
    assert told["KPBACKUP_STEP_TARGET_HOST"] == target.host
    assert told["KPBACKUP_STEP_TARGET_PORT"] == str(target.port)
    assert told["KPBACKUP_STEP_RECOVERED_TO"].startswith("20")
    assert facts.read_text().endswith("switched\n")
    _assert_journal(scene, run)


def _assert_journal(scene: Scene, run: str) -> None:
    listed = {one["run"]: one for one in scene.ok("recoveries")["recoveries"]}
    assert listed[run]["recovered"] == "yes"
    assert listed[run]["measured_rto_seconds"] > 0
    events = [(entry["event"], entry["fields"].get("step")) for entry in scene.ok("recoveries", run)["entries"]]
    assert ("step_failed", "deploy") in events
    assert events.count(("step_finished", "database")) == 1
    assert events[-1][0] == "finished"


def test_manual_steps_without_a_terminal(story: Story, target: Server) -> None:
    scene = _steps(story, deploy={"driver": "manual"}, switch={"driver": "manual"})
    waiting = scene.refused(21, "restore", "--to", "latest", "--yes")
    run = waiting.partition("--resume ")[2].split()[0]
    assert f"--resume {run} --confirm deploy" in waiting
    assert "switch" in scene.refused(21, "restore", "--resume", run, "--confirm", "deploy")
    assert scene.ok("restore", "--resume", run, "--confirm", "switch")["recovered"] is True
    story.assert_at("C")


def test_no_driver_is_never_recovered_and_steps_are_gated(story: Story, target: Server) -> None:
    scene = story.machine
    prepared = scene.ok("restore", "prepare", "--to", "latest", "--yes")
    run = prepared["run"]
    assert scenario.databases(target) == []
    for step in ("deploy", "verify", "switch"):
        assert "gated" in scene.refused(26, "restore", step, "--resume", run)
    assert scene.ok("restore", "database", "--resume", run)["recovered"] is False
    story.assert_at("C")
    for step in ("deploy", "verify", "switch"):
        done = scene.ok("restore", step, "--resume", run)
    assert done["recovered"] is False
    assert done["skipped"] == ["deploy", "switch"]
    assert "nothing to confirm" in scene.refused(10, "restore", "deploy", "--resume", run, "--confirm", "deploy")


def test_a_wrong_answer_fails_the_verification(story: Story, target: Server) -> None:
    scene = _steps(story, verify={"driver": "none", "sql": [{"query": "SELECT COUNT(*) FROM shop.late", "expect": 3}]})
    said = scene.refused(26, "restore", "--to", "latest", "--yes")
    assert "SELECT COUNT(*) FROM shop.late" in said


# Histories of the source


def test_a_reset_source_starts_a_second_timeline(tmp_path: Path, mariadb_pair: tuple[Server, Server]) -> None:
    source, target = mariadb_pair
    scene = Scene(tmp_path / "scene", source=source, target=target).loading_as_users_do()
    source.execute("CREATE DATABASE shop", "CREATE TABLE shop.t (i INT PRIMARY KEY)", "INSERT INTO shop.t VALUES (1)")
    scene.ok("init", "--keys", str(scene.keys))
    first = scene.ok("backup", "full")
    source.execute("INSERT INTO shop.t VALUES (2)")
    scenario.next_second(source)
    scene.ok("backup", "incremental")
    before = (scenario.truth(source), scenario.next_second(source))
    scene.ok("backup", "incremental")
    source.execute("RESET MASTER", "INSERT INTO shop.t VALUES (3)")
    said = scene.refused(24, "backup", "incremental")
    assert "backup full" in said
    second = scene.ok("backup", "full")
    assert (first["set"][:4], second["set"][:4]) == ("0001", "0002")
    source.execute("INSERT INTO shop.t VALUES (4)")
    scene.ok("backup", "incremental")
    scene.restore("--to", "latest")
    assert scenario.truth(target) == scenario.truth(source)
    scene.restore("--to", scenario.text(before[1]), "--overwrite", "shop")
    assert scenario.truth(target) == before[0]


def test_a_source_that_crashes_between_passes(tmp_path: Path, mariadb_pair: tuple[Server, Server]) -> None:
    """Its last file has no ROTATE; the archive goes on in the next one, and a cut at the file's end stays a cut."""
    source, target = mariadb_pair
    scene = Scene(tmp_path / "scene", source=source, target=target).loading_as_users_do()
    source.execute("CREATE DATABASE shop", "CREATE TABLE shop.t (i INT PRIMARY KEY)", "INSERT INTO shop.t VALUES (1)")
    scene.ok("init", "--keys", str(scene.keys))
    scene.ok("backup", "full")  # and a second one, before the archive has begun
    source.execute("INSERT INTO shop.t VALUES (2)")
    scene.ok("backup", "full")
    source.execute("INSERT INTO shop.t VALUES (3)")
    at, held = scenario.position(source), scenario.truth(source)
    gtid = scenario.gtid(source)
    os.sync()
    source.kill()
    source.restart()
    source.execute("INSERT INTO shop.t VALUES (5)")
    scene.ok("backup", "incremental")
    scene.restore("--to", "latest")
    assert scenario.truth(target) == scenario.truth(source)
    for words in (("--to-position", at), ("--to-gtid", gtid)):
        scene.restore(*words, "--overwrite", "shop")
        assert scenario.truth(target) == held
