"""The scale drill: three sizes really restored, what can grow has grown, and a line through the times."""

from __future__ import annotations

from pathlib import Path

import pytest

from kpbackup.service import scale
from tests.integration.deployment import deploy, order
from tests.servers.database import Server


def test_three_sizes(mariadb: Server, tmp_path: Path) -> None:
    made = deploy(tmp_path / "deployment", mariadb)
    mariadb.execute(
        "CREATE TABLE shop.users (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) UNIQUE)",
        "INSERT INTO shop.users (name) VALUES ('one'), ('two')",
        "CREATE TABLE shop.log (note TEXT, half INT AS (LENGTH(note)) VIRTUAL)",
        "INSERT INTO shop.log (note) VALUES ('a'), ('b')",
        "CREATE TABLE shop.counter (id INT PRIMARY KEY)",
        "CREATE TRIGGER shop.counting AFTER INSERT ON shop.log FOR EACH ROW INSERT INTO shop.counter VALUES (NEW.half)",
    )
    made.json("backup", "full")
    order(mariadb, "later")
    made.json("backup", "incremental")
    made.settings["encryption"]["identity_file"] = str(made.keys / "identity.txt")
    made.settings["drill"] = {"directory": str(tmp_path)}
    made.write()
    done = made.json("drill", "scale", timeout_s=900)
    rows = [point["rows"] for point in done["points"]]
    assert rows == [1001 + 2 + 2, 2002 + 2 + 4, 4004 + 2 + 8]  # the users cannot be doubled, and no trigger ran
    assert [point["factor"] for point in done["points"]] == [1, 2, 4]
    assert all(point["measured_rto_seconds"] > 0 for point in done["points"])
    assert not list(tmp_path.glob("kpbackup-drill-*"))
    newest = made.json("recoveries")["recoveries"][-1]
    assert (newest["kind"], newest["state"]) == ("drill", "passed")
    status = made.json("status")
    assert status["last_drill"]["passed"] and status["measured_rto"]["drill"]["run"] == done["run"]  # of today's size alone


def test_a_straight_line() -> None:
    points = [scale.Point(factor, 1, factor * 1000, 5.0 + 2.0 * factor) for factor in (1, 2, 4)]
    line = scale.fit(points)
    assert (round(line.base_s, 6), round(line.s_per_byte, 6)) == (5.0, 0.002)
    assert line.at(8000) == pytest.approx(21.0) and line.reaches(25.0) == pytest.approx(10_000)
    assert line.reaches(4.0) is None and scale.fit([points[0]] * 3).reaches(100.0) is None
