"""The archive of a binlog against the files on the server's disk."""

from __future__ import annotations

import subprocess
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from kpbackup import errors
from kpbackup.model import gtid
from kpbackup.model.coordinates import Coordinates, after_takeovers
from kpbackup.mysql import binlog_file, coordinates, events, facts, follow, segmenter, server
from kpbackup.mysql.segmenter import SegmentFacts
from kpbackup.mysql.transactions import Kind, Transaction, TransactionWalker
from tests.servers.database import Server
from tests.servers.mysql97 import mysql97_server, program

FIRST = "binlog.000001"
IN_USE_OFFSET = 21  # of the flags byte of the format description in a file


class Archive:
    """Segments with their plaintext, in memory."""

    def __init__(self) -> None:
        self.segments: list[tuple[SegmentFacts, bytes]] = []
        self._open = bytearray()

    def open_sink(self, file: str, position: int) -> Archive:
        self._open = bytearray()
        return self

    def write(self, data: bytes, /) -> None:
        self._open += data

    def take(self, found: SegmentFacts) -> None:
        self.segments.append((found, bytes(self._open)))

    def raw(self, file: str) -> bytes:
        return b"".join(text[found.prefix_bytes :] for found, text in self.segments if found.file == file)


def end_of(source: Server) -> Coordinates:
    with source.connect() as connection:
        return coordinates.read_coordinates(connection, facts.read_facts(connection))


def flavour_of(source: Server) -> str:
    return "mariadb" if source.product == "MariaDB" else "mysql"


def capture(
    source: Server, *, start: Coordinates, until: Coordinates | None = None, max_bytes: int = 1 << 20,
    archive: Archive | None = None,
) -> Archive:
    found = archive or Archive()
    flavour = flavour_of(source)
    until = until or end_of(source)
    head = follow.read_head(source.endpoint, flavour=flavour, file=start.file) if start.position > 4 else None
    stream = follow.follow_blocks(source.endpoint, flavour=flavour, start=start, until=until)
    for segment in segmenter.segments(
        stream, flavour=flavour, start=start, head=head, max_bytes=max_bytes, open_sink=found.open_sink
    ):
        found.take(segment)
    assert (found.segments[-1][0].file, found.segments[-1][0].end_position) == (until.file, until.position)
    return found


def assert_is_the_servers_binlog(source: Server, archive: Archive) -> None:
    """Closed files byte for byte, the active one but for the IN_USE flag; the facts agree with the bytes."""
    files = sorted(path for path in source.data_directory.glob("binlog.0*"))
    for path in files:
        on_disk = path.read_bytes()
        if path == files[-1]:
            assert on_disk[IN_USE_OFFSET] == 1
            # the server may have added a binlog checkpoint meanwhile: the archive is the file up to where it was asked to go
            on_disk = on_disk[:IN_USE_OFFSET] + b"\0" + on_disk[IN_USE_OFFSET + 1 : archive.segments[-1][0].end_position]
        assert archive.raw(path.name) == on_disk, path.name
    previous: SegmentFacts | None = None
    for found, text in archive.segments:
        assert len(text) == found.prefix_bytes + found.raw_bytes
        assert found.raw_bytes == found.end_position - found.start_position
        assert_whole_transactions(found, text)
        if previous is not None:
            assert found.gtid_before == previous.gtid_after
            if previous.ends_file:
                assert found.file != previous.file and found.start_position == 0 == found.prefix_bytes
            else:
                assert (found.file, found.start_position) == (previous.file, previous.end_position) and found.prefix_bytes
                assert found.identity == previous.identity
        previous = found


def transactions_of(found: SegmentFacts, text: bytes) -> list[Transaction]:
    walker = TransactionWalker()
    pieces = [text[i : i + 1000] for i in range(0, len(text), 1000)]
    stream = binlog_file.read_file(
        pieces, file=found.file, start_position=found.start_position, prefix_bytes=found.prefix_bytes
    )
    done = [walker.feed(event) for event in stream]
    assert not walker.is_open
    return [transaction for transaction in done if transaction]


def assert_whole_transactions(found: SegmentFacts, text: bytes) -> None:
    done = transactions_of(found, text)
    assert len(done) == found.transactions
    assert [t.gtid for t in (done[0], done[-1])] == [found.first_gtid, found.last_gtid] if done else not found.gtid_set


def assert_readable(archive: Archive, tool: Sequence[str], tmp_path: Path) -> str:
    """Every segment's plaintext alone; the tool's whole output."""
    output = ""
    for number, (_, text) in enumerate(archive.segments):
        path = tmp_path / f"segment{number}"
        path.write_bytes(text)
        run = subprocess.run([*tool, str(path)], capture_output=True, text=True, errors="replace", check=False)
        assert run.returncode == 0 and "ERROR" not in run.stderr, run.stderr
        output += run.stdout
    return output


def write_a_bit_of_everything(source: Server, *, mixed_engines: bool = True) -> None:
    """`mixed_engines`: transactions over both engines, which MySQL's GTIDs do not allow."""
    mixed = [
        "BEGIN", "INSERT INTO shop.a (v) VALUES ('three')", "SAVEPOINT s", "INSERT INTO shop.m VALUES (2)",
        "UPDATE shop.a SET v = 'THREE' WHERE id = 3", "ROLLBACK TO SAVEPOINT s", "COMMIT",
        "BEGIN", "INSERT INTO shop.a (v) VALUES ('gone')", "INSERT INTO shop.m VALUES (3)", "ROLLBACK",
    ]
    source.execute(
        "CREATE DATABASE shop",
        "CREATE TABLE shop.a (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(200)) ENGINE=InnoDB",
        "CREATE TABLE shop.m (id INT) ENGINE=MyISAM",
        "INSERT INTO shop.a (v) VALUES ('one'), ('two')",
        "INSERT INTO shop.m VALUES (1)",
        *(mixed if mixed_engines else []),
        "FLUSH BINARY LOGS",
        "CREATE TRIGGER shop.t BEFORE INSERT ON shop.a FOR EACH ROW SET NEW.v = CONCAT(NEW.v, '!')",
        "CREATE USER u@localhost IDENTIFIED BY 'COMMIT'",
        "XA START 'x1'", "INSERT INTO shop.a (v) VALUES ('xa')", "XA END 'x1'", "XA PREPARE 'x1'", "XA COMMIT 'x1'",
        "XA START 'x2'", "INSERT INTO shop.a (v) VALUES ('xb')", "XA END 'x2'", "XA COMMIT 'x2' ONE PHASE",
        "XA START 'x3'", "INSERT INTO shop.a (v) VALUES ('xc')", "XA END 'x3'", "XA PREPARE 'x3'", "XA ROLLBACK 'x3'",
        "CREATE TABLE shop.b AS SELECT * FROM shop.a",
        "SET SESSION binlog_format = 'STATEMENT'",
        "INSERT INTO shop.a (v) VALUES ('statement')",
        "SET @x = 'user variable'", "INSERT INTO shop.a (v) VALUES (@x)", "INSERT INTO shop.m VALUES (FLOOR(RAND() * 100))",
        "DROP TABLE shop.b",
    )


def write_40_megabytes(source: Server) -> None:
    """One transaction of many events."""
    source.execute(
        "CREATE TABLE shop.big (id INT PRIMARY KEY, v MEDIUMBLOB)",
        "SET max_recursive_iterations = 100" if source.product == "MariaDB" else "SET cte_max_recursion_depth = 100",
        "INSERT INTO shop.big WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 80) "
        "SELECT i, RANDOM_BYTES(1024) FROM n",
        "UPDATE shop.big SET v = REPEAT(v, 256)",
    )


def test_mariadb_archive_is_the_binlog(mariadb: Server, tmp_path: Path) -> None:
    write_a_bit_of_everything(mariadb)
    end_of_first_part = end_of(mariadb)
    archive = capture(mariadb, start=Coordinates(FIRST, 4), until=end_of_first_part, max_bytes=700)
    assert len(archive.segments) > 5
    write_40_megabytes(mariadb)
    mariadb.execute("FLUSH BINARY LOGS", "INSERT INTO shop.a (v) VALUES ('last')")
    mariadb.restart()
    capture(mariadb, start=archive.segments[-1][0].end, archive=archive)
    assert_is_the_servers_binlog(mariadb, archive)
    assert archive.segments[-1][0].gtid_after == end_of(mariadb).gtid
    assert max(found.raw_bytes for found, _ in archive.segments) > 20_000_000
    text = assert_readable(archive, ["mariadb-binlog", "--base64-output=decode-rows"], tmp_path)
    assert "Annotate_rows" in text and "VALUES (@x)" in text
    with mariadb.connect() as connection:
        state = str(connection.value("SELECT @@gtid_binlog_pos"))
    done = [t for found, raw in archive.segments for t in transactions_of(found, raw)]
    assert [int(t.gtid.rsplit("-")[-1]) for t in done] == list(range(1, int(state.rsplit("-")[-1]) + 1))
    assert {t.kind for t in done} == set(Kind)


@pytest.mark.parametrize("gtid_options", [(), ("--gtid-mode=OFF", "--enforce-gtid-consistency=OFF")], ids=["gtid", "anonymous"])
def test_mysql_archive_is_the_binlog(
    tmp_path: Path, mysql97_programs: Path, server_id: int, gtid_options: tuple[str, ...]
) -> None:
    with mysql97_server(tmp_path / "my", server_id=server_id, options=gtid_options) as source:
        write_a_bit_of_everything(source, mixed_engines=bool(gtid_options))
        archive = capture(source, start=Coordinates(FIRST, 4), max_bytes=700)
        assert len(archive.segments) > 5
        write_40_megabytes(source)
        tagged = [] if gtid_options else ["SET gtid_next = 'AUTOMATIC:batch_7'"]
        source.execute(
            "FLUSH BINARY LOGS", "SET SESSION binlog_transaction_compression = ON", *tagged,
            "INSERT INTO shop.a (v) VALUES ('compressed')", "INSERT INTO shop.a (v) SELECT v FROM shop.a",
        )
        capture(source, start=archive.segments[-1][0].end, archive=archive)
        assert_is_the_servers_binlog(source, archive)
        assert archive.segments[-1][0].gtid_after == str(gtid.MysqlGtidSet.parse(end_of(source).gtid))
        assert bool(archive.segments[-1][0].gtid_after) != bool(gtid_options)
        assert_readable(archive, [program("mysqlbinlog"), "--verify-binlog-checksum", "-v"], tmp_path)
        kinds = {t.kind for found, text in archive.segments for t in transactions_of(found, text)}
        assert kinds == set(Kind)
        commits = [found.last_commit_at for found, _ in archive.segments if found.last_commit_at]
        assert any(moment.microsecond for moment in commits)


def test_files_written_without_checksums_and_compressed_queries(mariadb: Server) -> None:
    mariadb.execute(
        "CREATE DATABASE shop", "CREATE TABLE shop.a (v TEXT)", "SET GLOBAL binlog_checksum = 'NONE'",
        "INSERT INTO shop.a VALUES ('1')",
        "SET GLOBAL log_bin_compress = 1", f"CREATE PROCEDURE shop.p() SELECT '{'x' * 400}'",
        f"INSERT INTO shop.a VALUES ('{'y' * 400}')", "SET GLOBAL binlog_checksum = 'CRC32'", "INSERT INTO shop.a VALUES ('2')",
    )
    archive = capture(mariadb, start=Coordinates(FIRST, 0), max_bytes=1)
    assert_is_the_servers_binlog(mariadb, archive)


def test_a_source_that_crashed_leaves_no_gap(mariadb: Server) -> None:
    write_a_bit_of_everything(mariadb)
    archive = capture(mariadb, start=Coordinates(FIRST, 4))
    mariadb.kill()
    mariadb.restart()
    mariadb.execute("INSERT INTO shop.a (v) VALUES ('after')")
    capture(mariadb, start=archive.segments[-1][0].end, archive=archive)
    closing = next(found for found, _ in archive.segments if found.raw_bytes == 0)
    assert closing.ends_file and closing.prefix_bytes
    assert archive.segments[-1][0].file == end_of(mariadb).file
    previous = archive.segments[0][0]
    for found, _ in archive.segments[1:]:
        assert found.start_position == (0 if previous.ends_file else previous.end_position)
        previous = found


def test_nothing_new_gives_nothing(mariadb: Server) -> None:
    assert list(follow.follow(mariadb.endpoint, flavour="mariadb", start=end_of(mariadb), until=end_of(mariadb))) == []


def test_an_archive_ahead_of_the_source_is_refused(mariadb: Server) -> None:
    at = end_of(mariadb)
    for start in (Coordinates(at.file, at.position + 1), Coordinates("binlog.000009", 4)):
        with pytest.raises(errors.ChainBroken, match="reset or restored"):
            next(follow.follow(mariadb.endpoint, flavour="mariadb", start=start, until=at))


def test_the_same_name_after_a_reset_is_another_file(mariadb: Server) -> None:
    mariadb.execute("CREATE DATABASE shop")
    before = follow.file_identity(mariadb.endpoint, flavour="mariadb", file=FIRST)
    assert before == follow.file_identity(mariadb.endpoint, flavour="mariadb", file=FIRST)
    with mariadb.connect() as connection:
        connection.execute("RESET MASTER")
        connection.execute("SET GLOBAL gtid_binlog_state = '1-7-7'")
        connection.execute("FLUSH BINARY LOGS")
        connection.execute("FLUSH BINARY LOGS")
    assert follow.file_identity(mariadb.endpoint, flavour="mariadb", file=FIRST) != before
    assert follow.file_identity(mariadb.endpoint, flavour="mariadb", file="binlog.000002") != before


def test_purged_and_unknown_files(mariadb: Server, mysql97: Server) -> None:
    for source in (mariadb, mysql97):
        source.execute("CREATE DATABASE shop", "FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
        until = end_of(source)
        source.purge_binlogs(before=until.file)
        with pytest.raises(errors.ChainBroken, match="binlog") as caught:
            capture(source, start=Coordinates(FIRST, 4), until=until)
        assert "full backup" in caught.value.hint
        with pytest.raises(errors.ChainBroken):
            follow.read_head(source.endpoint, flavour=flavour_of(source), file="nofile.000001")


def test_a_position_inside_an_event_is_refused(mariadb: Server, mysql97: Server) -> None:
    for source in (mariadb, mysql97):
        source.execute(
            "CREATE DATABASE shop", "CREATE TABLE shop.a (v LONGTEXT)", "INSERT INTO shop.a VALUES (REPEAT('x', 3000))"
        )
        until = end_of(source)
        for position in (until.position - 1500, until.position - 7):
            with pytest.raises((errors.ChainBroken, errors.IntegrityError)):
                capture(source, start=Coordinates(until.file, position), until=until)


def test_a_missing_privilege_is_named(mariadb: Server, mysql97: Server) -> None:
    for source in (mariadb, mysql97):
        source.execute("CREATE USER weak@'127.0.0.1' IDENTIFIED BY 'pw'", "GRANT SELECT ON *.* TO weak@'127.0.0.1'")
        weak = server.Endpoint(host=source.host, port=source.port, user="weak", password="pw")
        with pytest.raises(errors.PrivilegeMissing) as caught:
            next(follow.follow(weak, flavour=flavour_of(source), start=Coordinates(FIRST, 4), until=end_of(source)))
        assert "REPLICATION SLAVE" in caught.value.hint


def test_without_end_it_waits_with_heartbeats_and_reports_a_lost_source(mariadb: Server) -> None:
    mariadb.execute("CREATE DATABASE shop")
    at = end_of(mariadb)
    stream = follow.follow(mariadb.endpoint, flavour="mariadb", start=at, until=None, heartbeat_s=0.2, read_timeout_s=60)
    assert next(stream) == events.Heartbeat(at.file, at.position)
    mariadb.execute("CREATE TABLE shop.a (id INT)")
    arrived = next(item for item in stream if isinstance(item, events.StreamEvent))
    assert (arrived.file, arrived.start, arrived.type) == (at.file, at.position, events.MARIADB_GTID)
    mariadb.kill()
    with pytest.raises(errors.ServerUnreachable):
        list(stream)


def test_of_two_clients_with_one_server_id_the_older_is_told(mariadb: Server) -> None:
    at = end_of(mariadb)

    def client() -> Generator[events.StreamEvent | events.Heartbeat, None, None]:
        return follow.follow(
            mariadb.endpoint, flavour="mariadb", start=at, until=None, server_id=4711, heartbeat_s=0.2, read_timeout_s=60
        )

    older, newer = client(), client()
    assert next(older) == next(newer) == events.Heartbeat(at.file, at.position)
    with pytest.raises(errors.ServerUnfit, match="same server_uuid/server_id"):  # the next run takes another id
        list(older)
    assert next(newer) == events.Heartbeat(at.file, at.position)
    newer.close()


def test_files_go_by_the_archives_names(mariadb: Server) -> None:
    """After takeovers a number stands before the server's own name, in every file that follows."""
    mariadb.execute("CREATE DATABASE shop", "FLUSH BINARY LOGS", "CREATE TABLE shop.a (id INT)")
    until = after_takeovers(end_of(mariadb), 2)
    found = list(follow.follow(mariadb.endpoint, flavour="mariadb", start=Coordinates(f"2/{FIRST}", 0), until=until))
    assert {item.file for item in found} == {f"2/{FIRST}", "2/binlog.000002"}
    head = follow.read_head(mariadb.endpoint, flavour="mariadb", file=f"2/{FIRST}")
    assert head.file == f"2/{FIRST}"
    assert head.identity == follow.file_identity(mariadb.endpoint, flavour="mariadb", file=FIRST)


def test_mysql_heartbeats(mysql97: Server) -> None:
    at = end_of(mysql97)
    stream = follow.follow(mysql97.endpoint, flavour="mysql", start=at, until=None, heartbeat_s=0.2, read_timeout_s=60)
    assert next(stream) == events.Heartbeat(at.file, at.position)
    stream.close()


def test_a_place_between_two_events_is_told_from_one_inside(mariadb: Server) -> None:
    """A source put back from a snapshot of its memory goes on in the same file, with other events at the same places."""
    # read from the checksum before it, an event of that second has the type of a heartbeat
    stamp = 0x65000000 + events.HEARTBEAT
    rows = (f"INSERT INTO d.t VALUES ({n})" for n in range(9))
    mariadb.execute(f"SET timestamp = {stamp}", "CREATE DATABASE d", "CREATE TABLE d.t (a INT)", *rows)
    with mariadb.connect() as connection:
        file, size = coordinates.list_binlogs(connection)[-1]
    whole = follow.follow(mariadb.endpoint, flavour="mariadb", start=Coordinates(file, 0), until=Coordinates(file, size))
    first = next(item for item in list(whole) if isinstance(item, events.StreamEvent) and item.start > 1000)

    def has_border(position: int) -> bool:
        return follow.has_border(mariadb.endpoint, flavour="mariadb", at=Coordinates(file, position), size=size)

    assert has_border(first.start) and has_border(first.end) and has_border(size) and has_border(0)
    assert not any(has_border(position) for position in (first.start + 1, first.end - 4, size - 5))
