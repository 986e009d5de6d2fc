"""Packets to a replica: what the other end reads is what was sent, at the sizes where packets split."""

from __future__ import annotations

import socket
import threading

import pytest

from kpbackup.mysql.replica_session import Account, Persona, ReplicaSession

LARGEST = 0xFFFFFF


def read_packet(connected: socket.socket) -> bytes:
    def exactly(count: int) -> bytes:
        found = bytearray()
        while len(found) < count:
            piece = connected.recv(count - len(found))
            assert piece
            found += piece
        return bytes(found)

    whole, expected = b"", 0
    while True:
        head = exactly(4)
        length = int.from_bytes(head[:3], "little")
        assert head[3] == expected
        whole += exactly(length)
        expected = (expected + 1) & 0xFF
        if length < LARGEST:
            return whole


@pytest.mark.parametrize("size", [1, LARGEST - 2, LARGEST - 1, LARGEST, 2 * LARGEST - 1, 2 * LARGEST])
def test_events_of_every_size(size: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    persona = Persona("mariadb", "10.11.19-MariaDB", 5, "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "OFF")
    with ours, theirs:
        theirs.settimeout(120)
        session = ReplicaSession(ours, persona, Account())
        event = bytes(range(1, 251)) * (size // 250) + b"x" * (size % 250)
        sender = threading.Thread(target=session.send_events, args=([event],))
        sender.start()
        assert read_packet(theirs) == b"\0" + event
        sender.join()
