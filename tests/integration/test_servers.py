"""The servers under the tests are what the tests believe: real, separate, and as durable as a kill -9 demands."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.servers import exercised
from tests.servers.database import Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mysql97 import mysql97_server
from tests.servers.s3 import Credentials, S3Server, s3_server

_TABLE = "CREATE TABLE shop.orders (id INT PRIMARY KEY)"


def test_mariadb_keeps_committed_rows_over_kill_9(mariadb: Server) -> None:
    mariadb.execute("CREATE DATABASE shop", _TABLE, "INSERT INTO shop.orders VALUES (1), (2)")
    port, pid = mariadb.port, mariadb.pid
    mariadb.kill()
    assert not mariadb.is_running
    mariadb.restart()
    assert mariadb.port == port and mariadb.pid != pid
    with mariadb.connect() as connection:
        assert connection.rows("SELECT id FROM shop.orders ORDER BY id") == [(1,), (2,)]


def test_mariadb_settings(mariadb: Server) -> None:
    with mariadb.connect() as connection:
        assert connection.row("SELECT @@log_bin, @@binlog_format, @@server_id") == (1, "ROW", mariadb.server_id)
        assert connection.value("SELECT VERSION()").startswith(mariadb.version)
    assert f"MariaDB {mariadb.version}" in exercised.line()


def test_two_mariadb_servers_are_two(mariadb_pair: tuple[Server, Server]) -> None:
    source, target = mariadb_pair
    source.execute("CREATE DATABASE only_here")
    with source.connect() as one, target.connect() as other:
        assert one.value("SELECT @@server_id") != other.value("SELECT @@server_id")
        assert ("only_here",) in one.rows("SHOW DATABASES")
        assert ("only_here",) not in other.rows("SHOW DATABASES")


def test_options_of_the_caller_win(tmp_path: Path, server_id: int) -> None:
    options = ["--binlog-format=STATEMENT"]
    with mariadb_server(tmp_path, server_id=server_id, options=options) as server, server.connect() as connection:
        assert connection.value("SELECT @@global.binlog_format") == "STATEMENT"
    assert not server.is_running


def test_a_wrong_option_fails_with_the_servers_own_words(tmp_path: Path, server_id: int) -> None:
    wrong = mariadb_server(tmp_path, server_id=server_id, options=["--no-such-thing=1"])
    with pytest.raises(RuntimeError, match="no-such-thing"), wrong:
        pytest.fail("it started")


def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time\n"
        "from tests.servers.mariadb import mariadb_server\n"
        "with mariadb_server(pathlib.Path(sys.argv[1]), server_id=9) as server:\n"
        "    print(server.pid, server.socket, flush=True); time.sleep(600)\n"
    )
    argv = [sys.executable, "-c", script, str(tmp_path / "server")]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}  # nobody is left to remove the template
    root = Path(__file__).parents[2]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=root, env=environ) as starter:
        assert starter.stdout is not None
        pid, _, socket = starter.stdout.readline().strip().partition(" ")
        server_pid = int(pid)
        os.kill(starter.pid, signal.SIGKILL)
    deadline = time.monotonic() + 120
    while _is_alive(server_pid):
        assert time.monotonic() < deadline, "the server outlived its starter"
        time.sleep(0.02)
    shutil.rmtree(Path(socket).parent)


def test_mysql_answers_and_survives_kill_9(mysql97: Server) -> None:
    mysql97.execute("CREATE DATABASE shop", _TABLE, "INSERT INTO shop.orders VALUES (7)")
    mysql97.kill()
    mysql97.restart()
    with mysql97.connect() as connection:
        assert connection.rows("SELECT id FROM shop.orders") == [(7,)]
        assert connection.row("SELECT @@gtid_mode, @@binlog_format, @@server_id") == ("ON", "ROW", mysql97.server_id)
        assert "MariaDB" not in connection.value("SELECT VERSION()")


def test_mysql_without_gtid_and_with_its_own_uuid(mysql97: Server, tmp_path: Path, server_id: int) -> None:
    options = ["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]
    without_gtid = mysql97_server(tmp_path / "other", server_id=server_id, options=options)
    with without_gtid as other, mysql97.connect() as one, other.connect() as two:
        assert two.value("SELECT @@gtid_mode") == "OFF"
        assert one.value("SELECT @@server_uuid") != two.value("SELECT @@server_uuid")


def test_mysql_programs_run(mysql97_programs: Path) -> None:
    program = mysql97_programs / "bin" / "mysqlbinlog"
    assert "mysqlbinlog" in subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout


def test_s3_gives_back_what_was_put(s3: S3Server, s3_bucket: str) -> None:
    client = s3.client()
    client.put_object(Bucket=s3_bucket, Key="a/b", Body=b"hello")
    assert client.get_object(Bucket=s3_bucket, Key="a/b")["Body"].read() == b"hello"


def test_s3_reader_may_read_and_nothing_else(s3: S3Server, s3_bucket: str) -> None:
    s3.client().put_object(Bucket=s3_bucket, Key="k", Body=b"1")
    reader = s3.client(s3.reader)
    assert reader.get_object(Bucket=s3_bucket, Key="k")["Body"].read() == b"1"
    assert [entry["Key"] for entry in reader.list_objects_v2(Bucket=s3_bucket)["Contents"]] == ["k"]
    assert _refusal(lambda: reader.put_object(Bucket=s3_bucket, Key="k2", Body=b"2")) == "AccessDenied"
    assert _refusal(lambda: reader.delete_object(Bucket=s3_bucket, Key="k")) == "AccessDenied"


def test_s3_writer_may_put_but_not_delete(s3: S3Server, s3_bucket: str) -> None:
    writer = s3.client(s3.writer)
    writer.put_object(Bucket=s3_bucket, Key="k", Body=b"1", IfNoneMatch="*")
    upload = writer.create_multipart_upload(Bucket=s3_bucket, Key="m")["UploadId"]
    part = writer.upload_part(Bucket=s3_bucket, Key="m", UploadId=upload, PartNumber=1, Body=b"x" * 1000)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    writer.complete_multipart_upload(Bucket=s3_bucket, Key="m", UploadId=upload, MultipartUpload=parts)
    assert [entry["Key"] for entry in writer.list_objects_v2(Bucket=s3_bucket)["Contents"]] == ["k", "m"]
    assert _refusal(lambda: writer.delete_object(Bucket=s3_bucket, Key="k")) == "AccessDenied"
    refused = writer_batch_errors(writer, bucket=s3_bucket, key="k")
    assert refused and s3.client().head_object(Bucket=s3_bucket, Key="k")["ContentLength"] == 1


def test_s3_refuses_a_wrong_secret(s3: S3Server, s3_bucket: str) -> None:
    stranger = s3.client(Credentials(s3.access_key, "wrong"))
    assert _refusal(lambda: stranger.list_objects_v2(Bucket=s3_bucket)) == "SignatureDoesNotMatch"


def test_s3_keeps_objects_over_kill_9(tmp_path: Path) -> None:
    with s3_server(tmp_path / "own s3") as server:
        server.create_bucket("kept")
        server.client().put_object(Bucket="kept", Key="k", Body=b"1")
        server.restart()
        assert server.client().get_object(Bucket="kept", Key="k")["Body"].read() == b"1"


def writer_batch_errors(client, *, bucket, key):
    """The refused keys of a batch delete, which S3 reports inside a successful answer."""
    try:
        return client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key}]}).get("Errors", [])
    except ClientError as refusal:
        return [refusal.response["Error"]]


def _refusal(call) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return caught.value.response["Error"]["Code"]


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
