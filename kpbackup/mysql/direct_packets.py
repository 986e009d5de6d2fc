"""Statements on their way to a server: several in a packet, and packets sent before those ahead of them are answered.

When a statement fails, the server leaves out the rest of its packet and goes on with the next one. So each packet asks a
session variable first whether the one before it was executed whole, and ends in an error of its own where it was not: nothing
is ever executed, let alone committed, behind a failure. A transaction may go over several packets.

MariaDB gets a packet as one compound statement, which it answers once. MySQL has none and answers each statement.

Memory is bounded by PIPELINE_BYTES and one packet. Nothing is stored: what was sent and is not committed ends with the session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from kpbackup import errors
from kpbackup.mysql import server, wire
from kpbackup.mysql.direct_steps import End

PIPELINE_PACKETS, PIPELINE_BYTES = 64, 4 << 20
PACKET_BYTES = 1 << 20
OVERHEAD_BYTES = 4096  # of a packet's own statements, and to spare

OnEnd = Callable[[End, int], None]
OnFailure = Callable[[errors.KpbackupError], errors.KpbackupError]


@dataclass(frozen=True)
class _Mark:
    """With that many answers of its packet, everything up to `end` is committed."""

    answers: int
    end: End
    transactions: int


@dataclass(frozen=True)
class _Sent:
    """A packet whose answers are not read yet.

    Counted, because the server's flag for more of them cannot be trusted: it is missing in the answer to BINLOG.
    """

    answers: int
    size: int
    marks: tuple[_Mark, ...]


class Packets:
    """`on_end` is told each end that was marked, once it is committed; `on_failure` makes what is raised of a refusal."""

    def __init__(
        self, connection: server.Connection, *, compound: bool, timeout_s: float, on_end: OnEnd, on_failure: OnFailure
    ) -> None:
        largest = int(connection.value("SELECT @@max_allowed_packet"))
        connection.execute("SET @kpbackup_n=0")
        self.is_bare = False  # packets hold what was added and nothing else, and are waited for
        self._compound = compound
        self._limit = min(PACKET_BYTES, largest - OVERHEAD_BYTES)
        self._wire = wire.WireSocket(connection, timeout_s=timeout_s)
        self._wire.send(b"\x1b\0\0")  # COM_SET_OPTION: several statements in one packet
        self._wire.packet()
        self._on_end, self._on_failure = on_end, on_failure
        self._parts: list[bytes] = []
        self._bytes = 0
        self._marks: list[_Mark] = []
        self._sent: deque[_Sent] = deque()
        self._sent_bytes = 0
        self._number = 0

    def add(self, *statements: bytes) -> None:
        """Into the packet that is being made; one that would be too large is sent before."""
        for statement in statements:
            if self._parts and self._bytes + len(statement) > self._limit:
                self.send()
            self._parts.append(statement)
            self._bytes += len(statement) + 1

    def mark(self, end: End, transactions: int) -> None:
        """What was added last commits these transactions, up to `end`."""
        self._marks.append(_Mark(len(self._parts), end, transactions))

    def send(self) -> None:
        """Sends what was added; waits only while too much is under way."""
        if not self._parts:
            return
        packet, sent = self._bare() if self.is_bare else self._guarded()
        self._parts, self._bytes, self._marks = [], 0, []
        self._wire.send(wire.COM_QUERY, packet)
        self._sent.append(sent)
        self._sent_bytes += sent.size
        while self._sent and (self.is_bare or len(self._sent) > PIPELINE_PACKETS or self._sent_bytes > PIPELINE_BYTES):
            self._answer()

    def _bare(self) -> tuple[bytes, _Sent]:
        packet = b";".join(self._parts)
        return packet, _Sent(len(self._parts), len(packet), tuple(self._marks))

    def _guarded(self) -> tuple[bytes, _Sent]:
        before = f"SET @kpbackup_n=IF(@kpbackup_n={self._number},-1,EXP(1000+@kpbackup_n))".encode()
        self._number += 1
        statements = [before, *self._parts, f"SET @kpbackup_n={self._number}".encode()]
        packet = b";".join(statements)
        if self._compound:
            packet = b"BEGIN NOT ATOMIC " + packet + b";END"
            return packet, _Sent(1, len(packet), tuple(_Mark(1, one.end, one.transactions) for one in self._marks))
        marks = tuple(_Mark(one.answers + 1, one.end, one.transactions) for one in self._marks)
        return packet, _Sent(len(statements), len(packet), marks)

    def drain(self) -> None:
        """Sends what was added, and waits for everything."""
        self.send()
        while self._sent:
            self._answer()

    def do(self, *statements: bytes) -> None:
        """Each by itself, waited for; nothing may be under way."""
        for statement in statements:
            self._wire.send(wire.COM_QUERY, statement)
            self._sent.append(_Sent(1, 0, ()))
            self._answer()

    def _answer(self) -> None:
        sent = self._sent.popleft()
        self._sent_bytes -= sent.size
        marks = deque(sent.marks)
        try:
            for number in range(1, sent.answers + 1):
                self._wire.read_ok()
                while marks and marks[0].answers <= number:
                    done = marks.popleft()
                    self._on_end(done.end, done.transactions)
        except (errors.DatabaseError, errors.PrivilegeMissing) as exc:
            raise self._on_failure(exc) from exc
