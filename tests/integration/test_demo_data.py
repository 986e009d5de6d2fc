"""The demo's own judge: its data are what they claim to be, and its comparison notices every kind of change.

A demo whose comparison is blind would prove nothing, so each test damages a server in one way and sees that way named.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from demo import accident, data, leaks, objects, planted, truth, writer
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.s3 import S3Server


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with the tiny database for the whole file: tests change it and read the truth anew."""
    with mariadb_server(tmp_path_factory.mktemp("demo"), server_id=1) as server:
        with truth.connect(server.port) as connection:
            data.load(connection, data.SIZES["tiny"])
            objects.create(connection)
        yield server


@pytest.fixture
def connection(loaded: Server) -> Iterator[pymysql.Connection[Any]]:
    with truth.connect(loaded.port) as opened:
        opened.select_db(data.DATABASE)
        yield opened


def _value(connection: pymysql.Connection[Any], query: str, *values: object) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(query, values or None)
        row = cursor.fetchone()
    assert row is not None, query
    return row[0]


def _read(connection: pymysql.Connection[Any]) -> truth.Truth:
    return truth.read(connection, accounts=objects.PLANTED_ACCOUNTS)


def test_generator_gives_the_same_rows_every_time() -> None:
    first, second = ([(table, list(rows)) for table, rows in data.Generator(data.SIZES["tiny"]).tables()] for _ in range(2))

    assert first == second
    size = data.SIZES["tiny"]
    counts = {table.split(" ")[0]: len(rows) for table, rows in first}
    assert (counts["users"], counts["clusters"], counts["operation_logs"]) == (size.users, size.clusters, size.logs)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT display_name FROM users WHERE username = 'admin'", "管理员"),
        ("SELECT GROUP_CONCAT(DISTINCT char_length(username) ORDER BY 1) FROM users WHERE id < 4", "1,5,50"),
        ("SELECT COUNT(*) FROM users WHERE deleted_at IS NOT NULL", 1),
        ("SELECT COUNT(*) FROM user_groups WHERE deleted_at IS NOT NULL", 1),
        ("SELECT length(kubeconfig_enc) FROM clusters WHERE name = 'prod-shanghai'", 61_440),
        ("SELECT COUNT(*) FROM clusters WHERE name LIKE '%🧪'", 1),
        ("SELECT COUNT(*) FROM clusters WHERE ca_enc LIKE '-----BEGIN%\\n%\\n-----END%'", 3),
        ("SELECT COUNT(*) FROM clusters c WHERE NOT EXISTS (SELECT 1 FROM cluster_permissions WHERE cluster_id = c.id)", 1),
        ("SELECT COUNT(*) FROM operation_logs WHERE request_body LIKE '-- Dump completed%'", 1),
        ("SELECT COUNT(*) FROM operation_logs WHERE request_body LIKE 'DELIMITER ;;%'", 1),
        ("SELECT COUNT(*) FROM operation_logs WHERE request_body LIKE '%...(truncated)'", 1),
        ("SELECT COUNT(*) FROM operation_logs WHERE request_body = ''", 1),
        ("SELECT COUNT(*) > 0 FROM operation_logs WHERE request_body IS NULL AND user_id IS NOT NULL", 1),
        ("SELECT COUNT(*) > 0 FROM operation_logs WHERE user_id IS NULL AND action = 'login_failed'", 1),
        ("SELECT COUNT(*) > 0 FROM operation_logs WHERE cluster_id IS NULL", 1),
        ("SELECT COUNT(*) FROM terminal_commands WHERE raw_input LIKE CONCAT('%', CHAR(27), '%')", 2),
        ("SELECT MIN(exit_code) FROM terminal_commands", -9),
        ("SELECT COUNT(*) > 0 FROM terminal_sessions WHERE end_at IS NULL", 1),
        ("SELECT COUNT(DISTINCT microsecond(created_at) IN (0, 999000)) FROM operation_logs", 2),
        ("SELECT MAX(id) - COUNT(*) FROM users", 10),
        ("SELECT COUNT(*) FROM `kpdemo-secret-projects`", 1),
        ("SELECT COUNT(*) FROM api_tokens WHERE token LIKE 'KPDEMO-SECRET-%'", 20),
        ("SELECT summary FROM cluster_capacity WHERE cluster_id = 3", "1500m / 4096Mi"),
        ("SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_schema = 'kubepolaris'", 2),
        ("SELECT COUNT(*) FROM information_schema.events WHERE event_schema = 'kubepolaris' AND status = 'ENABLED'", 1),
        ("SELECT COUNT(*) FROM information_schema.routines WHERE routine_schema = 'kubepolaris'", 2),
    ],
)
def test_planted_values_are_there(connection: pymysql.Connection[Any], query: str, expected: object) -> None:
    found = _value(connection, query)

    assert (found if isinstance(expected, str) else int(found)) == expected


def test_bodies_and_inputs_come_back_as_they_were_planted(connection: pymysql.Connection[Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT request_body FROM operation_logs ORDER BY id LIMIT %s", (len(planted.BODIES),))
        assert [body for (body,) in cursor.fetchall()] == list(planted.BODIES)
        cursor.execute("SELECT raw_input, exit_code FROM terminal_commands ORDER BY id LIMIT %s", (len(planted.INPUTS),))
        assert list(cursor.fetchall()) == list(planted.INPUTS)


def test_truth_of_an_untouched_server_agrees_with_itself(connection: pymysql.Connection[Any]) -> None:
    before = _read(connection)

    assert truth.differences(before, _read(connection)) == []
    assert truth.rows_in(before) == sum(
        _value(connection, f"SELECT COUNT(*) FROM `{table}`")
        for table in {name.split(".")[1].removesuffix(" rows") for name in before if name.endswith(" rows")}
    )


CHANGES = {
    "a value": ("UPDATE clusters SET ca_enc = CONCAT(ca_enc, ' ') WHERE id = 1", "clusters.ca_enc hash"),
    "'' for NULL": ("UPDATE users SET phone = '' WHERE phone IS NULL LIMIT 1", "users.phone hash"),
    "a swap of two values": (
        "UPDATE cluster_capacity SET memory_mib = 1, load_average = CASE cluster_id WHEN 1 THEN 0.2 WHEN 5 THEN 0 END",
        "cluster_capacity whole-row hash",
    ),
    "a missing row": ("DELETE FROM audit_logs WHERE id = 5", "audit_logs rows"),
    "a row too many": ("INSERT INTO user_group_members VALUES (99, 99)", "user_group_members rows"),
    "the counter": ("ALTER TABLE ai_configs AUTO_INCREMENT = 100", "ai_configs next AUTO_INCREMENT"),
    "a column": ("ALTER TABLE audit_logs MODIFY details mediumtext COMMENT 'x'", "audit_logs definition"),
    "an index": ("DROP INDEX idx_operation_logs_method ON operation_logs", "operation_logs definition"),
    "a missing table": ("DROP TABLE cluster_metrics", "cluster_metrics rows"),
    "a view": ("ALTER SQL SECURITY DEFINER VIEW active_users AS SELECT id, username FROM users", "view kubepolaris.active_users"),
    "a trigger": ("DROP TRIGGER mask_value", "trigger kubepolaris.mask_value"),
    "a routine": ("ALTER FUNCTION days_since COMMENT 'other'", "function kubepolaris.days_since"),
    "an event's state": ("ALTER EVENT nightly_purge DISABLE", "event kubepolaris.nightly_purge"),
    "a grant": ("REVOKE DROP ON kubepolaris.* FROM 'kubepolaris'@'%'", "grants of 'kubepolaris'@'%'"),
    "an account": ("ALTER USER 'o''dd 用户'@'localhost' ACCOUNT UNLOCK", "account 'o''dd 用户'@'localhost'"),
    "a column's grant": ("REVOKE SELECT (username) ON kubepolaris.users FROM 'o''dd 用户'@'localhost'", "grants of 'o''dd 用户'"),
    "a database": ("CREATE DATABASE one_more", "one_more definition"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_every_change_is_named(connection: pymysql.Connection[Any], what: str) -> None:
    statement, name = CHANGES[what]
    before = _read(connection)
    connection.query(statement)

    lines = truth.differences(before, _read(connection))

    assert [line for line in lines if name in line], lines


def test_dumps_that_differ_in_one_line_are_told_apart(
    loaded: Server, connection: pymysql.Connection[Any], tmp_path: Path
) -> None:
    before, same, after = (tmp_path / name for name in ("before", "same", "after"))
    truth.dump("mariadb-dump", loaded.socket, data.DATABASE, before)
    truth.dump("mariadb-dump", loaded.socket, data.DATABASE, same)
    connection.query("UPDATE system_settings SET value = 'other' WHERE id = 2")
    truth.dump("mariadb-dump", loaded.socket, data.DATABASE, after)

    assert truth.first_difference(before, same) is None
    assert "system_settings" in (truth.first_difference(before, after) or "")


def test_accident_takes_the_cluster_with_all_that_hangs_on_it_in_a_second_of_its_own(tmp_path: Path) -> None:
    with mariadb_server(tmp_path, server_id=1) as server, truth.connect(server.port) as connection:
        data.load(connection, data.SIZES["tiny"])
        objects.create(connection)
        application = writer.Writer(server.port, per_second=200)
        application.start()
        application.wait_for(5)
        application.pause()
        last_write = int(_value(connection, "SELECT UNIX_TIMESTAMP(SYSDATE())"))
        logged = _value(connection, "SELECT COUNT(*) FROM kubepolaris.operation_logs WHERE cluster_id = 1")

        happened = accident.delete_cluster(connection, name=data.VICTIM)
        after = int(_value(connection, "SELECT UNIX_TIMESTAMP(SYSDATE())"))
        application.resume()
        application.wait_for(5)
        application.abandon()
        application.wait_end()

        assert logged > 5
        assert last_write < happened.moment_before.timestamp() < after - 1
        assert happened.gtid == "1-1-" + str(int(happened.gtid.split("-")[2]))
        for table in ("clusters WHERE id = 1", "terminal_sessions WHERE cluster_id = 1", "argocd_configs WHERE cluster_id = 1"):
            assert _value(connection, f"SELECT COUNT(*) FROM kubepolaris.{table}") == 0
        assert _value(connection, "SELECT COUNT(*) FROM kubepolaris.operation_logs WHERE cluster_name = %s", data.VICTIM) > logged
        application.check()


def test_leaks_are_found_in_every_form_and_nothing_is_found_in_noise(s3: S3Server, s3_bucket: str) -> None:
    client = s3.client()
    try:
        client.put_object(Bucket=s3_bucket, Key="sealed", Body=leaks.AGE_HEADER + b"\x00\xff" * 500)
        searched, found = leaks.in_bucket(client, s3_bucket)
        assert (found, searched.objects, searched.sealed) == ([], 1, 1)

        assert leaks.prove_search(client, s3_bucket) == 6
        assert leaks.in_bucket(client, s3_bucket)[0].objects == 1

        client.put_object(Bucket=s3_bucket, Key="kpdemo-secret-name", Body=b"\x28\xb5\x2f\xfdcompressed")
        found = leaks.in_bucket(client, s3_bucket)[1]
        assert any("compressed but not encrypted" in leak for leak in found)
        assert any(leak.startswith("key kpdemo-secret-name") for leak in found)
    finally:
        client.close()
