"""Event layouts and the transaction state machine, on bytes that real servers wrote."""

from __future__ import annotations

import struct
import zlib
from datetime import UTC, datetime

import pytest

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates
from kpbackup.mysql import binlog_file, events, follow, transactions
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.transactions import Kind, Transaction

# MariaDB 10.11.19, server id 7: CREATE DATABASE d, CREATE TABLE d.t, INSERT, with SET timestamp=1700000000
MARIADB_DESCRIPTION = bytes.fromhex(
    "8178036b0f07000000fc000000000100000100040031302e31312e31392d4d6172696144422d302b646562313275312d6c6f67000000000000000000"
    "00000000000000000000008178036b13380d000800120004040404120000e400041a08000000080808020000000a0a0a0000000000000a0a0a000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000004130400"
    "0d0808080a0a0a013ef69f2c"
)
MARIADB_GTID_LIST = bytes.fromhex("8178036ba3070000001d0000001d0100000000000000000000193878a3")
MARIADB_GTID_DDL = bytes.fromhex("00f15365a2070000002a0000006f010000080001000000000000000100000029000000000000c285620b")
MARIADB_GTID_ROWS = bytes.fromhex("00f15365a2070000002a0000007302000008000300000000000000010000000c00000000000002c2ec35")
MARIADB_CREATE = bytes.fromhex(
    "00f15365020700000051000000c00100000800050000008187af050100001a0000000000010100002054000000000603737464042d002d002d006400"
    "4352454154452044415441424153452064fc467f62"
)
XID = bytes.fromhex("00f1536510070000001f0000001103000000000a00000000000000daa8c1c3")
# MySQL 9.7.4, server id 9
MYSQL_DESCRIPTION = bytes.fromhex(
    "8a78036b0f090000007b0000007f00000001000400392e372e342d320000000000000000000000000000000000000000000000000000000000000000"
    "00000000000000000000008a78036b13000d0008000000000400040000006300041a08000000000000020000000a0a0a2a2a001234000a280000018c"
    "2e6225"
)
MYSQL_GTID = bytes.fromhex(
    "00f1536521090000004d000000eb0000000000012f5f38b5e6cb11f196f402fc00000001010000000000000002000000000000000001000000000000"
    "00d62112b6e56006b050620100cd1c9247"
)
MYSQL_GTID_WITH_ORIGINAL_TIME = bytes.fromhex(
    "00f15365210900000056000000660300000000002f5f38b5e6cb11f196f402fc00000001030000000000000002030000000000000004000000000000"
    "00c24d12b6e5608640e2a50731af05fc1001506201004fa72f8e"
)
MYSQL_GTID_TAGGED = bytes.fromhex(
    "00f153652a09000000530000005602000000000278000000025ebe70d50299032d0322c5035902d10304f103000000020404060e62617463685f3708"
    "080a0c0c7f634a12b6e560061035041283120b197457b7"
)
MYSQL_ANONYMOUS = bytes.fromhex(
    "8c78036b22090000004d000000eb00000000000100000000000000000000000000000000000000000000000002000000000000000001000000000000"
    "00bf102db6e56006b050620100b73174d7"
)
MYSQL_BEGIN = bytes.fromhex(
    "00f153650209000000470000009d0200000800090000008a87af050000001d000000000000012000a04500000000060373746404ff00ff00ff0012ff"
    "0000424547494edb94e30f"
)
UUID = "2f5f38b5-e6cb-11f1-96f4-02fc00000001"
ROW = events.seal_event(events.HEADER.pack(1700000000, 23, 7, 0, 0, 0) + b"row")


def query(text: bytes, *, compressed: bool = False, crc: bool = True) -> bytes:
    kind = events.QUERY
    if compressed:
        kind, text = events.QUERY_COMPRESSED, b"\x81" + bytes([len(text)]) + zlib.compress(text)
    head = events.HEADER.pack(1700000000, kind, 7, 0, 0, 0)
    return events.seal_event(head + struct.pack("<IIBHH", 1, 0, 1, 0, 3) + b"abc" + b"d\0" + text, crc=crc)


def plain(kind: int, body: bytes = b"") -> bytes:
    return events.seal_event(events.HEADER.pack(1700000000, kind, 7, 0, 0, 0) + body)


def walk(*data: bytes) -> list[Transaction]:
    walker, position, found = transactions.TransactionWalker(), 4, []
    for one in data:
        done = walker.feed(StreamEvent("binlog.000001", position, position + len(one), one[4], one))
        position += len(one)
        if done:
            found.append(done)
            assert done.end == position
            assert not walker.is_open
    return found


def test_mariadb_gtids() -> None:
    assert events.mariadb_gtid(MARIADB_GTID_DDL) == events.MariadbGtidEvent("1-7-1", standalone=True, ddl=True)
    assert events.mariadb_gtid(MARIADB_GTID_ROWS) == events.MariadbGtidEvent(
        "1-7-3", standalone=False, ddl=False, may_be_joined=True
    )


def test_mysql_gtids_and_commit_times() -> None:
    assert events.mysql_gtid(MYSQL_GTID) == events.MysqlGtidEvent(f"{UUID}:1", 1795389578682838)
    assert events.mysql_gtid(MYSQL_GTID_WITH_ORIGINAL_TIME) == events.MysqlGtidEvent(f"{UUID}:3", 1600000000123456)
    assert events.mysql_gtid(MYSQL_GTID_TAGGED) == events.MysqlGtidEvent(f"{UUID}:batch_7:1", 1795389578693219)
    anonymous = events.mysql_gtid(MYSQL_ANONYMOUS)
    assert anonymous.gtid == "" and anonymous.commit_at_us == 1795389580447935


def test_mysql_57_gtid_without_times() -> None:
    old = events.seal_event(MYSQL_GTID[:61])
    assert events.mysql_gtid(old) == events.MysqlGtidEvent(f"{UUID}:1", None)
    assert walk(old, MYSQL_BEGIN, ROW, XID)[0].commit_at_us == 1700000000_000000


@pytest.mark.parametrize("vector", [MYSQL_GTID, MYSQL_GTID_TAGGED, MARIADB_GTID_DDL], ids=["33", "42", "162"])
def test_cut_gtid_events_are_refused(vector: bytes) -> None:
    parse = events.mariadb_gtid if vector is MARIADB_GTID_DDL else events.mysql_gtid
    for length in (19, 24, 30):
        with pytest.raises(errors.IntegrityError):
            parse(vector[:length])


def test_framing_finds_any_flipped_byte() -> None:
    for vector in (MARIADB_GTID_LIST, MARIADB_CREATE, MYSQL_BEGIN, XID):
        events.check_crc(vector, "here")
        for at in range(len(vector)):
            with pytest.raises(errors.IntegrityError, match="here"):
                events.check_crc(vector[:at] + bytes([vector[at] ^ 1]) + vector[at + 1 :], "here")
    with pytest.raises(errors.IntegrityError):
        events.header(XID[:-1])
    with pytest.raises(errors.IntegrityError):
        events.header(XID[:10])


@pytest.mark.parametrize("description", [MARIADB_DESCRIPTION, MYSQL_DESCRIPTION], ids=["mariadb", "mysql"])
def test_format_description(description: bytes) -> None:
    assert description[17] & events.FLAG_IN_USE
    closed = events.without_in_use(description)
    assert not closed[17] & events.FLAG_IN_USE and closed[18:] == description[18:]
    assert events.checksum_algorithm(closed) == events.CHECKSUM_CRC32
    repeated = events.as_repeated(description)
    assert len(repeated) == len(description) and events.header(repeated).next_position == 0
    assert events.checksum_algorithm(repeated) == events.CHECKSUM_CRC32
    with pytest.raises(errors.IntegrityError):
        events.checksum_algorithm(closed[:60])


def test_file_head_identifies_a_file_whether_in_use_or_closed() -> None:
    head = binlog_file.file_head("b.1", [MARIADB_DESCRIPTION, MARIADB_GTID_LIST])
    assert head == binlog_file.file_head("b.1", [events.without_in_use(MARIADB_DESCRIPTION), MARIADB_GTID_LIST, XID])
    assert head.identity.server_id == 7
    assert head.identity.created_at == datetime.fromtimestamp(1795389569, UTC)
    other = plain(events.MARIADB_GTID_LIST, b"\1\0\0\0" + bytes(16))
    assert binlog_file.file_head("b.1", [MARIADB_DESCRIPTION, other]).identity != head.identity
    with pytest.raises(errors.IntegrityError):
        binlog_file.file_head("b.1", [])
    with pytest.raises(errors.ServerUnfit, match="encrypted"):
        binlog_file.file_head("b.1", [MARIADB_DESCRIPTION, plain(events.START_ENCRYPTION, bytes(17))])


def test_reading_a_file_back() -> None:
    raw = events.MAGIC + events.without_in_use(MARIADB_DESCRIPTION) + MARIADB_GTID_LIST + MARIADB_GTID_DDL + MARIADB_CREATE
    for size in (1, 7, len(raw)):
        chunks = [raw[at : at + size] for at in range(0, len(raw), size)]
        found = list(binlog_file.read_file(chunks, file="b.1"))
        assert b"".join(event.data for event in found) == raw[4:]
        assert [event.end for event in found[:-1]] == [event.start for event in found[1:]] and found[0].start == 4
    prefix = 4 + len(MARIADB_DESCRIPTION)
    inside = list(binlog_file.read_file([raw], file="b.1", start_position=900, prefix_bytes=prefix))
    assert inside[0].is_repeated_description and inside[1].start == 900
    for cut in (3, 10, len(raw) - 1):
        with pytest.raises(errors.IntegrityError):
            list(binlog_file.read_file([raw[:cut]], file="b.1"))
    with pytest.raises(errors.IntegrityError):
        list(binlog_file.read_file([raw[:-20] + b"\xff" + raw[-19:]], file="b.1"))


def test_rotate_and_heartbeat_names() -> None:
    body = struct.pack("<Q", 4) + b"binlog.000002"
    for crc in (True, False):
        rotate = events.artificial_event(events.ROTATE, body, server_id=1, flags=events.FLAG_ARTIFICIAL, crc=crc)
        assert events.rotate_target(rotate) == ("binlog.000002", 4)
    short = events.artificial_event(events.HEARTBEAT, b"binlog.000002", server_id=1, next_position=77)
    assert events.heartbeat_position(short) == ("binlog.000002", 77)
    long = b"\x01\x0dbinlog.000002\x02\x09\xfe" + (5 << 32).to_bytes(8, "little") + b"\0"
    assert events.heartbeat_position(plain(events.HEARTBEAT_V2, long)) == ("binlog.000002", 5 << 32)


def test_query_text() -> None:
    assert events.query_text(MARIADB_CREATE) == b"CREATE DATABASE d"
    assert events.query_text(MYSQL_BEGIN) == b"BEGIN"
    assert events.query_text(query(b"COMMIT", compressed=True)) == b"COMMIT"
    assert events.query_text(query(b"COMMIT", crc=False)) == b"COMMIT"
    assert events.query_database(query(b"COMMIT")) == "d"
    with pytest.raises(errors.IntegrityError):
        events.query_text(plain(events.QUERY, b"x"))


MYSQL = MYSQL_GTID
BEGIN, COMMIT = query(b"BEGIN"), query(b"COMMIT")


@pytest.mark.parametrize(("stream", "kinds"), [
    ((MARIADB_GTID_DDL, MARIADB_CREATE), [Kind.STATEMENT]),
    ((MARIADB_GTID_ROWS, ROW, XID), [Kind.ROWS]),
    ((MARIADB_GTID_ROWS, ROW, query(b"COMMIT", compressed=True)), [Kind.ROWS]),
    ((MARIADB_GTID_ROWS, ROW, query(b"SAVEPOINT `commit`"), query(b"ROLLBACK TO `s`"), ROW, query(b"ROLLBACK")), [Kind.ROWS]),
    ((MARIADB_GTID_ROWS, ROW, query(b"XA END X'78'"), plain(events.XA_PREPARE, b"x")), [Kind.XA_PREPARE]),
    ((MARIADB_GTID_ROWS, query(b"XA COMMIT X'78',X'',1")), [Kind.ROWS]),
    ((MARIADB_GTID_DDL, plain(5, bytes(9)), query(b"INSERT INTO m VALUES (1)")), [Kind.STATEMENT]),
    ((MYSQL, MYSQL_BEGIN, ROW, XID), [Kind.ROWS]),
    ((MYSQL, BEGIN, ROW, query(b"CREATE TABLE x (a int) START TRANSACTION"), ROW, COMMIT), [Kind.ROWS]),
    ((MYSQL, query(b"CREATE TABLE x (a int)"), MYSQL, query(b"DROP USER beginner")), [Kind.STATEMENT, Kind.STATEMENT]),
    ((MYSQL, plain(events.TRANSACTION_PAYLOAD, b"zzz")), [Kind.ROWS]),
    ((MYSQL, query(b"XA START X'78'"), ROW, query(b"XA END X'78'"), plain(events.XA_PREPARE, b"x")), [Kind.XA_PREPARE]),
    ((MYSQL, query(b"XA COMMIT X'78'")), [Kind.STATEMENT]),
    ((MYSQL_ANONYMOUS, BEGIN, ROW, XID), [Kind.ROWS]),
    ((BEGIN, ROW, XID, query(b"CREATE TABLE x (a int)")), [Kind.ROWS, Kind.STATEMENT]),
    ((MARIADB_GTID_LIST, MARIADB_GTID_ROWS, ROW), []),
], ids=[
    "mariadb statement", "mariadb rows", "compressed commit", "savepoints", "mariadb xa prepare", "mariadb xa commit",
    "with variables", "mysql rows", "create select", "mysql statements", "payload", "mysql xa prepare", "mysql xa commit",
    "anonymous", "before 5.7.6", "unfinished",
])
def test_transactions_end_where_they_should(stream: tuple[bytes, ...], kinds: list[Kind]) -> None:
    assert [done.kind for done in walk(*stream)] == kinds


def test_transactions_carry_gtid_and_commit_time() -> None:
    (mariadb,) = walk(MARIADB_GTID_ROWS, ROW, XID)
    assert (mariadb.gtid, mariadb.start, mariadb.commit_at_us) == ("1-7-3", 4, 1700000000_000000)
    (mysql,) = walk(MYSQL_GTID_WITH_ORIGINAL_TIME, MYSQL_BEGIN, ROW, XID)
    assert (mysql.gtid, mysql.commit_at_us) == (f"{UUID}:3", 1600000000123456)
    (anonymous,) = walk(MYSQL_ANONYMOUS, MYSQL_BEGIN, ROW, XID)
    assert anonymous.gtid == ""


def test_a_new_file_drops_an_unfinished_transaction() -> None:
    found = walk(MARIADB_GTID_ROWS, ROW, events.without_in_use(MARIADB_DESCRIPTION), MARIADB_GTID_DDL, MARIADB_CREATE)
    assert [done.gtid for done in found] == ["1-7-1"]


def test_incidents_and_encryption_are_refused() -> None:
    with pytest.raises(errors.ChainBroken, match="incident"):
        walk(plain(events.INCIDENT, b"\1\0"))
    with pytest.raises(errors.ServerUnfit, match="encrypted"):
        walk(plain(events.START_ENCRYPTION, bytes(17)))


def test_an_event_that_declares_more_than_there_is() -> None:
    """Three gigabytes, says its header: never a shorter event, wherever the bytes come from."""
    declared = bytearray(events.seal_event(events.HEADER.pack(0, events.XID, 1, 0, 0, 0) + bytes(8)))
    declared[9:13] = (3 << 30).to_bytes(4, "little")
    with pytest.raises(errors.IntegrityError, match="ends inside an event"):
        list(binlog_file.read_file([events.MAGIC + bytes(declared)], file="binlog.000001"))
    with pytest.raises(errors.IntegrityError, match=f"says it has {3 << 30} bytes, it has {len(declared)}"):
        events.header(bytes(declared))


def test_an_event_that_the_source_cannot_send() -> None:
    """Servers send no event of more than 1 GiB, to replicas neither (`max_allowed_packet`): the chain ends there, and says so."""
    refused = errors.DatabaseError(
        "log event entry exceeded max_allowed_packet; Increase max_allowed_packet on master; the first event 'binlog.000002'"
        " at 329, the last event read from 'binlog.000002' at 400, the last byte read from 'binlog.000002' at 419.", number=1236
    )
    found = follow.refusal(refused, "db:3306", Coordinates("binlog.000002", 400))
    assert isinstance(found, errors.ChainBroken)
    assert "from binlog.000002:400" in found.message and "more than 1 GiB" in found.hint and "full backup" in found.hint
