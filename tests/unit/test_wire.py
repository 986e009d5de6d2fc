"""Packets, taken apart and put together: no server, but real sockets and hand-made bytes of the protocol."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpbackup import errors
from kpbackup.mysql import server, wire

EOF = b"\xfe\x00\x00\x02\x00"
ROW_START = b"\x00\x00"


def packets(*payloads: bytes) -> bytes:
    """Payloads below 16 MiB as packets."""
    return b"".join(wire.packet_header(len(payload), number) + payload for number, payload in enumerate(payloads, 1))


def large_packets(payload: bytes) -> bytes:
    """One payload of any size, split as the protocol demands."""
    pieces = [payload[start : start + 0xFFFFFF] for start in range(0, len(payload) + 1, 0xFFFFFF)]
    return packets(*pieces)


@contextmanager
def wire_socket(
    sent: bytes, *, buffer_bytes: int = 1000, closes: bool = True, timeout_s: float = 60.0,
    largest_bytes: int = wire.LARGEST_BYTES,
) -> Iterator[wire.WireSocket]:
    """A WireSocket whose server says `sent` and, unless told otherwise, hangs up; its thread may get its turn late."""
    ours, theirs = socket.socketpair()

    def talk() -> None:
        try:
            theirs.sendall(sent)
            if closes:
                theirs.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the test has seen enough

    thread = threading.Thread(target=talk)
    with ours, theirs:
        ours.settimeout(120)
        connection = server.Connection(server.Endpoint(host="test"), SimpleNamespace(client_flag=0, _sock=ours))
        thread.start()
        yield wire.WireSocket(connection, buffer_bytes=buffer_bytes, timeout_s=timeout_s, largest_bytes=largest_bytes)
        ours.shutdown(socket.SHUT_RDWR)
        thread.join()


def collect(link: wire.WireSocket) -> tuple[list[bytes], wire.RowTotals]:
    calls: list[bytes] = []
    totals = link.stream_rows(lambda view: calls.append(bytes(view)))
    return calls, totals


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"\x00", 0), (b"\xfa", 250), (b"\xfc\xfb\x00", 251), (b"\xfd\x00\x00\x01", 65536), (b"\xfe" + bytes(7) + b"\x80", 1 << 63)],
)
def test_length_encoded_integers(data: bytes, value: int) -> None:
    assert wire.read_lenenc_int(b"?" + data + b"!", 1) == (value, 1 + len(data))


@pytest.mark.parametrize("data", [b"", b"\xfb", b"\xff", b"\xfc\x01", b"\xfe\x01\x02"])
def test_no_length_encoded_integer(data: bytes) -> None:
    with pytest.raises(ValueError, match="length-encoded"):
        wire.read_lenenc_int(data, 0)


def test_length_encoded_string_must_end_within_its_packet() -> None:
    assert wire.read_lenenc_bytes(b"\x03abcd", 0) == (b"abc", 4)
    with pytest.raises(ValueError, match="beyond the end"):
        wire.read_lenenc_bytes(b"\x05abcd", 0)


def test_column_definition() -> None:
    names = b"".join(bytes([len(text)]) + text for text in (b"def", b"shop", b"r", b"orders", "größe".encode(), b"x"))
    payload = names + b"\x0c" + struct.pack("<HIBHB", 63, 80, 253, 0x0081, 31) + b"\x00\x00"
    found = wire.parse_column_definition(payload)
    assert found == wire.ColumnDefinition(name="größe", charset=63, type=253, flags=0x81, length=80, decimals=31)
    with pytest.raises(ValueError, match="cut"):
        wire.parse_column_definition(payload[:-6])


def test_ok_packet() -> None:
    payload = b"\x00" + b"\xfc\x00\x04" + b"\x07" + struct.pack("<HH", 2, 5) + b"info"
    assert wire.parse_ok(payload) == wire.OkPacket(affected_rows=1024, last_insert_id=7, status=2, warnings=5)
    with pytest.raises(ValueError, match="cut"):
        wire.parse_ok(payload[:7])
    with pytest.raises(ValueError, match="expected an OK packet"):
        wire.parse_ok(EOF)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (1142, errors.PrivilegeMissing), (1412, errors.DatabaseError), (1317, errors.DatabaseError),
        (2013, errors.ServerUnreachable),
    ],
)
def test_error_packets_become_our_errors(number: int, kind: type[errors.KpbackupError]) -> None:
    found = wire.parse_error(b"\xff" + struct.pack("<H", number) + b"#HY000" + b"what the server says", "reading rows")
    assert type(found) is kind
    assert "what the server says" in str(found) and "HY000" not in str(found) and "reading rows" in str(found)
    if isinstance(found, errors.DatabaseError):
        assert found.number == number


@pytest.mark.parametrize("size", [0, 1, 0xFFFFFE, 0xFFFFFF, 0x1000000, 2 * 0xFFFFFF, 2 * 0xFFFFFF + 7])
def test_payloads_are_split_as_the_protocol_demands(size: int) -> None:
    parts: list[bytes | bytearray] = [bytes([7]) * (size // 3), bytearray(b"\x08") * (size - size // 3)]
    expected = large_packets(b"".join(parts))
    sent = bytearray()
    for piece in wire.frame_payload(parts):
        sent += piece
    assert unnumbered(sent) == unnumbered(expected)
    assert [sent[place + 3] for place in packet_places(sent)] == list(range(len(list(packet_places(sent)))))


def packet_places(stream: bytes | bytearray) -> Iterator[int]:
    position = 0
    while position < len(stream):
        yield position
        position += 4 + int.from_bytes(stream[position : position + 3], "little")


def unnumbered(stream: bytes | bytearray) -> bytes:
    """The packets with sequence number 0."""
    found = bytearray(stream)
    for place in packet_places(stream):
        found[place + 3] = 0
    return bytes(found)


@given(
    rows=st.lists(st.binary(max_size=400), max_size=30), buffer_bytes=st.integers(min_value=1, max_value=700),
    leftover=st.binary(max_size=20),
)
def test_every_buffer_size_gives_the_same_rows(rows: list[bytes], buffer_bytes: int, leftover: bytes) -> None:
    stream = packets(*(ROW_START + row for row in rows))
    with wire_socket(stream + packets(EOF, leftover), buffer_bytes=buffer_bytes) as link:
        calls, totals = collect(link)
        assert b"".join(calls) == unnumbered(stream)
        assert totals == wire.RowTotals(rows=len(rows), row_bytes=len(stream))
        if leftover[:1] != b"\xff":
            assert link.packet() == leftover  # nothing behind the end of the rows was taken


def test_rows_are_handed_over_in_whole_packets() -> None:
    rows = [ROW_START + bytes([n]) * (n * 37 % 900) for n in range(256)]
    with wire_socket(packets(*rows, EOF), buffer_bytes=512) as link:
        calls, _ = collect(link)
    for call in calls:
        position, _ = wire.walk_rows(bytearray(call), 0, len(call))
        assert position == len(call)


@pytest.mark.parametrize("size", [0xFFFFFF - 1, 0xFFFFFF, 0xFFFFFF + 1, 2 * 0xFFFFFF])
def test_a_split_row_counts_once(size: int) -> None:
    tail = b"\xff\xfe" * (size // 2)  # continuation packets may begin with anything, ERR and EOF marks too
    row = ROW_START + tail[: size - 2]
    stream = packets(ROW_START) + large_packets(row) + packets(ROW_START + b"x")
    with wire_socket(stream + packets(EOF)) as link:
        calls, totals = collect(link)
    assert totals == wire.RowTotals(rows=3, row_bytes=len(stream))
    assert b"".join(calls) == unnumbered(stream)


@pytest.mark.parametrize("size", [2 * 0xFFFFFF, 2 * 0xFFFFFF + 1])
def test_a_packet_larger_than_any_server_sends_is_refused(size: int) -> None:
    """Up to the limit it comes whole, beyond it not at all: a part of an event would be a wrong event."""
    event = b"\x00" + bytes(size - 1)
    with wire_socket(large_packets(event), largest_bytes=2 * 0xFFFFFF, closes=False) as link:
        if size == 2 * 0xFFFFFF:
            assert link.packet() == event
        else:
            with pytest.raises(errors.ServerUnfit, match=f"more than {2 * 0xFFFFFF} bytes"):
                link.packet()


def test_a_continuation_that_looks_like_the_end_is_none() -> None:
    row = ROW_START + bytes(0xFFFFFF - 2) + EOF
    with wire_socket(large_packets(row) + packets(EOF)) as link:
        _, totals = collect(link)
    assert totals.rows == 1


def test_an_error_in_the_middle_of_rows() -> None:
    error = b"\xff" + struct.pack("<H", 1412) + b"#HY000Table definition has changed"
    with wire_socket(packets(ROW_START, error)) as link, pytest.raises(errors.DatabaseError, match="definition") as caught:
        collect(link)
    assert caught.value.number == 1412


@pytest.mark.parametrize("cut", [0, 1, 4, 5, 9, 12])
def test_a_connection_that_ends_early(cut: int) -> None:
    with wire_socket(packets(ROW_START, ROW_START)[:cut]) as link, pytest.raises(errors.ServerUnreachable, match="closed"):
        collect(link)


def test_a_server_that_says_nothing_more() -> None:
    with (
        wire_socket(packets(ROW_START), closes=False, timeout_s=0.2) as link,
        pytest.raises(errors.ServerUnreachable, match="no answer for"),
    ):
        collect(link)


def test_a_packet_that_is_no_row() -> None:
    with wire_socket(packets(b"\x07what")) as link, pytest.raises(errors.ServerUnfit, match="starting 07"):
        collect(link)


def test_views_are_dead_after_the_sink_returned() -> None:
    kept: list[memoryview] = []
    with wire_socket(packets(ROW_START, EOF)) as link:
        link.stream_rows(kept.append)
    with pytest.raises(ValueError, match="released"):
        kept[0].tobytes()


def test_replies_are_read_in_the_order_of_the_commands() -> None:
    replies = packets(b"\x00\x01\x00\x02\x00\x00\x00") + packets(b"\x00\x02\x00\x02\x00\x00\x00")
    with wire_socket(replies) as link:
        link.send(wire.COM_QUERY, b"INSERT 1")
        link.send(wire.COM_QUERY, b"INSERT 2")
        assert [link.read_ok().affected_rows for _ in range(2)] == [1, 2]


def test_a_protocol_we_do_not_speak_is_refused() -> None:
    raw = SimpleNamespace(client_flag=1 << 24, _sock=None)
    with pytest.raises(errors.InternalError, match="protocol variant"):
        wire.WireSocket(server.Connection(server.Endpoint(host="test"), raw))
