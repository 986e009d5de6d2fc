"""The replication client: raw binlog events of a source, from a file and position on.

Needs REPLICATION SLAVE and nothing else. It does not register as a replica, it asks by file and position
(a GTID dump leaves out what the client has, so it is not the file), and it never waits without a timeout:
the source sends heartbeats, and a silence longer than `read_timeout_s` is a lost connection.

Every event's CRC32 and position are checked before it is handed on. What the source makes up for the
connection (artificial ROTATE, repeated format description) is left out, so that the events of a file, behind
its four magic bytes, are the file, but for the IN_USE flag of one that is still being written.

Files go by the archive's names (`model/coordinates.py`), in the arguments and in the events.
Nothing is stored: after a crash the caller asks again from what it has archived.
Limits: a start beyond 4 GiB in one file cannot be asked for by the protocol and is refused.

Protocol source: "MySQL Client/Server Protocol", COM_BINLOG_DUMP; MariaDB knowledge base, 'Replication protocol'.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import struct
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from kpbackup import errors
from kpbackup.model.coordinates import Coordinates, archive_name, own_name, takeovers
from kpbackup.model.manifest import FileIdentity
from kpbackup.mysql import binlog_file, event_block, events, server, wire
from kpbackup.mysql.binlog_file import FileHead
from kpbackup.mysql.event_block import EventBlock
from kpbackup.mysql.events import Heartbeat, StreamEvent
from kpbackup.mysql.facts import REPLICA_STATUS_SINCE, ServerFacts

HEARTBEAT_S = 5.0
READ_TIMEOUT_S = 60.0  # as slave_net_timeout
END_SESSION_S = 2.0

_COM_BINLOG_DUMP = b"\x12"
_DUMP_BODY = struct.Struct("<IHI")  # position, flags, server id
_NON_BLOCKING = 0x01  # the source sends EOF at the end of its binlog
_ANNOTATE_ROWS = 0x02  # MariaDB: without it events of type 160 are left out and the copy is not the file
_LAST_POSITION = 0xFFFFFFFF
_SUFFIX = re.compile(r"(.*)\.(\d+)")

_ER_MASTER_FATAL_READING_BINLOG = 1236
_ENDED_BY_SERVER = {1053, 1077, 1079, 1080, 1317, 1927}  # shutdown, or KILL of the connection


def follow(
    endpoint: server.Endpoint, *, flavour: str, start: Coordinates, until: Coordinates | None,
    server_id: int | None = None, heartbeat_s: float = HEARTBEAT_S, read_timeout_s: float = READ_TIMEOUT_S,
    opened: Callable[[int], None] = lambda session: None,
) -> Generator[StreamEvent | Heartbeat, None, None]:
    """The events from `start` on, in order: up to `until` (the end of the binlog read before), or without end.

    A start position of 0 or 4 is the file's beginning. Heartbeats come when there is nothing new for `heartbeat_s`.
    `server_id` must be no replica's (a source drops the older of two with one id); None takes a random high one.
    `opened` is told the number of the session on the source: closed before its end it is there until `end_session`.

    Raises:
        ChainBroken: the file is purged or unknown, or the source's binlog ends before `start` or `until`.
        PrivilegeMissing: the account lacks REPLICATION SLAVE.
        IntegrityError: an event is damaged, or `start` is not between two events.
        ServerUnreachable: connection lost or silent for `read_timeout_s`.
        ServerUnfit: the binlog is encrypted, or another client uses the same server id.
    """
    blocks = follow_blocks(
        endpoint, flavour=flavour, start=start, until=until, server_id=server_id, heartbeat_s=heartbeat_s,
        read_timeout_s=read_timeout_s, opened=opened,
    )
    with closing(blocks):
        for item in blocks:
            if isinstance(item, EventBlock):
                yield from item.singly()
            else:
                yield item


def follow_blocks(
    endpoint: server.Endpoint, *, flavour: str, start: Coordinates, until: Coordinates | None,
    server_id: int | None = None, heartbeat_s: float = HEARTBEAT_S, read_timeout_s: float = READ_TIMEOUT_S,
    opened: Callable[[int], None] = lambda session: None,
) -> Generator[EventBlock | StreamEvent | Heartbeat, None, None]:
    """As `follow`, but events that came together are one block."""
    if heartbeat_s * 2 > read_timeout_s:
        raise errors.InternalError("read_timeout_s must be at least twice heartbeat_s")
    if until is not None and _is_reached(start, until):
        return
    if start.position > _LAST_POSITION:
        raise errors.ChainBroken(
            f"cannot follow {endpoint.name} from {start}: the protocol knows no position beyond 4 GiB",
            hint="take a new full backup",
        )
    with server.connect(endpoint, read_timeout_s=read_timeout_s) as connection:
        _prepare_session(connection, flavour, heartbeat_s)
        opened(int(connection.value("SELECT CONNECTION_ID()")))
        wired = wire.WireSocket(connection, timeout_s=read_timeout_s)
        stream = Stream(endpoint.name, start)
        flags = (_NON_BLOCKING if until is not None else 0) | (_ANNOTATE_ROWS if flavour == "mariadb" else 0)
        body = _DUMP_BODY.pack(max(start.position, events.FIRST_POSITION), flags, server_id or _random_id())
        wired.send(_COM_BINLOG_DUMP, body, own_name(start.file).encode())
        for item in items(wired, stream, until):
            yield item
            if until is not None and stream.file == until.file and stream.position >= until.position:
                return
        if until is not None:
            raise errors.ChainBroken(
                f"cannot follow {endpoint.name} up to {until}: its binlog ends at {stream.file}:{stream.position}",
                hint="was the source reset or replaced meanwhile? run again; a new full backup may be needed",
            )


def read_head(endpoint: server.Endpoint, *, flavour: str, file: str, read_timeout_s: float = READ_TIMEOUT_S) -> FileHead:
    """The head of a binlog file on the source: its format description and identity. Raises as `follow`."""
    return binlog_file.file_head(file, first_events(endpoint, flavour=flavour, file=file, read_timeout_s=read_timeout_s))


def first_events(endpoint: server.Endpoint, *, flavour: str, file: str, read_timeout_s: float = READ_TIMEOUT_S) -> list[bytes]:
    """Format description and list of GTIDs of a binlog file, as far as it has them. Raises as `follow`."""
    first: list[bytes] = []
    # a far end that is never reached: the generator is closed after the first events, and EOF ends a shorter file
    end = Coordinates(file, 1 << 62)
    with closing(_generator(endpoint, flavour, file, end, read_timeout_s)) as stream:
        try:
            for item in stream:
                if isinstance(item, StreamEvent) and item.file == file:
                    first.append(item.data)
                if len(first) == 2 or item.file != file:
                    break
        except errors.ChainBroken:
            if not first:
                raise
    return first


def file_identity(endpoint: server.Endpoint, *, flavour: str, file: str) -> FileIdentity:
    """What identifies the file of this name on the source now; another value means another file. Raises as `follow`."""
    return read_head(endpoint, flavour=flavour, file=file).identity


def has_border(endpoint: server.Endpoint, *, flavour: str, at: Coordinates, size: int) -> bool:
    """Whether a binlog file of `size` bytes has a border between two events at `at`. Raises as `follow`, but for ChainBroken."""
    if at.position >= size or at.position <= events.FIRST_POSITION:
        return True
    end = Coordinates(at.file, size)
    with closing(follow(endpoint, flavour=flavour, start=at, until=end)) as stream:
        try:
            next((item for item in stream if isinstance(item, StreamEvent)), None)  # what lies inside may look like a heartbeat
        except (errors.ChainBroken, errors.IntegrityError):
            return False
    return True


def _generator(
    endpoint: server.Endpoint, flavour: str, file: str, end: Coordinates, read_timeout_s: float
) -> Generator[StreamEvent | Heartbeat, None, None]:
    return follow(
        endpoint, flavour=flavour, start=Coordinates(file, 0), until=end,
        heartbeat_s=min(HEARTBEAT_S, read_timeout_s / 2), read_timeout_s=read_timeout_s,
    )


def end_session(connection: server.Connection, session: int) -> None:
    """Ends a stream that was left before its end, and waits a moment until it is gone: the source itself sees only by its next
    heartbeats that nobody listens, and counts the session until then."""
    def is_there() -> bool:
        return any(int(row[0]) == session and row[4] == "Binlog Dump" for row in connection.rows("SHOW PROCESSLIST"))

    if not is_there():
        return
    with contextlib.suppress(errors.DatabaseError):  # it ended just now
        connection.execute(f"KILL {session:d}")
    deadline = time.monotonic() + END_SESSION_S
    while is_there() and time.monotonic() < deadline:
        time.sleep(0.02)


def free_server_id(connection: server.Connection, facts: ServerFacts) -> int:
    """A random id for `follow`: not the source's own, and no registered replica's, as far as the account may see them."""
    try:
        is_modern = not facts.mariadb and facts.version >= REPLICA_STATUS_SINCE
        taken = {int(row[0]) for row in connection.rows("SHOW REPLICAS" if is_modern else "SHOW SLAVE HOSTS")}
    except (errors.PrivilegeMissing, errors.DatabaseError):
        taken = set()  # two billion ids to choose from: a clash is told by the source, and the next try takes another
    while (chosen := _random_id()) in taken | {facts.server_id}:
        pass
    return chosen


class Stream:
    """Where the stream stands, and the check of each event against it."""

    def __init__(self, name: str, start: Coordinates) -> None:
        self.name = name
        self.file = start.file
        self._takeovers = takeovers(start.file)
        self.position = max(start.position, events.FIRST_POSITION)
        self._crc = True

    def block(self, wired: wire.WireSocket, until: Coordinates | None) -> EventBlock:
        """The ordinary events among what has come, up to `until`; none when the next packet is anything else."""
        view, start, end = wired.received()
        stop = until.position if until is not None and until.file == self.file else event_block.NO_END
        found = event_block.take(view, start, end, file=self.file, at=self.position, until=stop, crc=self._crc)
        wired.skip(found.end - found.start + len(found.events) * (wire.HEADER_BYTES + 1))
        self.position = found.end
        return found

    def receive(self, data: bytes) -> StreamEvent | Heartbeat | None:
        """One event, checked; None when it is not the file's."""
        _, kind, _, _, next_position, flags = events.header(data)
        if kind in (events.HEARTBEAT, events.HEARTBEAT_V2):
            return Heartbeat(self.file, self.position)
        if kind == events.ROTATE and flags & events.FLAG_ARTIFICIAL:
            own, self.position = events.rotate_target(data)
            self.file = archive_name(own, self._takeovers)
            return None
        if kind == events.FORMAT_DESCRIPTION:
            self._crc = events.checksum_algorithm(data) == events.CHECKSUM_CRC32
        elif self._crc and not events.has_valid_crc(data):
            events.check_crc(data, f"{self.file}:{self.position}")
        if flags & events.FLAG_ARTIFICIAL or (kind == events.FORMAT_DESCRIPTION and next_position == 0):
            return None
        start, end = self.position, self.position + len(data)
        # MariaDB may leave the position of events inside a transaction at 0
        if next_position not in (0, end & 0xFFFFFFFF):
            raise errors.IntegrityError(
                f"binlog event at {self.file}:{start} says it ends at {next_position}, it ends at {end}",
                hint="the position does not lie between two events, or the source left something out",
            )
        self.position = end
        return StreamEvent(self.file, start, end, kind, data)


def items(
    wired: wire.WireSocket, stream: Stream, until: Coordinates | None
) -> Iterator[EventBlock | StreamEvent | Heartbeat]:
    """The file's events and the heartbeats among what the source sends, up to EOF."""
    while True:
        block = stream.block(wired, until)
        if block.events:
            yield block
            continue
        payload = _packet(wired, stream)
        if payload is None:
            return
        if payload[:1] != b"\x00":
            raise errors.IntegrityError(f"{stream.name} sent a packet that is no binlog event ({payload[:1].hex()})")
        item = stream.receive(payload[1:])
        if item is not None:
            yield item


def _packet(wired: wire.WireSocket, stream: Stream) -> bytes | None:
    """The next packet, None for EOF."""
    try:
        payload = wired.packet()
    except errors.PrivilegeMissing as exc:
        raise errors.PrivilegeMissing(
            f"cannot read the binlog of {stream.name}: {exc.message}", hint="GRANT REPLICATION SLAVE ON *.* to this account"
        ) from exc
    except errors.DatabaseError as exc:
        raise refusal(exc, stream.name, Coordinates(stream.file, stream.position)) from exc
    return None if payload[:1] == b"\xfe" and len(payload) < wire.EOF_LIMIT else payload


def refusal(exc: errors.DatabaseError, name: str, at: Coordinates) -> errors.KpbackupError:
    """What it means for the archive that the source `name` refuses to send what lies behind `at`."""
    doing = f"cannot follow {name} from {at}: {exc.message}"
    if exc.number in _ENDED_BY_SERVER:
        return errors.ServerUnreachable(doing, hint="the source ended the connection; is it being restarted?")
    if "same server_uuid/server_id" in exc.message:  # MariaDB has a number of its own for it
        return errors.ServerUnfit(doing, hint="another client uses the same server id; give each its own")
    if exc.number != _ER_MASTER_FATAL_READING_BINLOG:
        return errors.DatabaseError(doing, number=exc.number)
    if "purge" in exc.message or "Could not find first log" in exc.message or "could not find next log" in exc.message:
        return errors.ChainBroken(doing, hint="the source purged what was not archived yet: take a new full backup")
    if "impossible position" in exc.message or "bogus data" in exc.message or "truncated" in exc.message:
        return errors.ChainBroken(doing, hint="the source does not have this position: was it reset? take a new full backup")
    if "exceeded max_allowed_packet" in exc.message:
        return errors.ChainBroken(
            doing,
            hint="the source cannot send an event of more than 1 GiB to anybody, replicas neither: take a new full backup, and"
            " change such rows in parts (binlog_row_image=MINIMAL halves an UPDATE)",
        )
    return errors.ChainBroken(doing, hint="take a new full backup")


def _prepare_session(connection: server.Connection, flavour: str, heartbeat_s: float) -> None:
    """What a replica says before it asks: that it understands CRC32, how long a silence may be, who it is."""
    period = int(heartbeat_s * 1_000_000_000)
    # the literal, not the server's own setting: files written under another setting must come with their checksums too
    connection.execute(f"SET @master_binlog_checksum='CRC32', @master_heartbeat_period={period}")
    if flavour == "mariadb":
        connection.execute("SET @mariadb_slave_capability=4")
        return
    own = str(uuid.uuid4())  # two clients with one uuid drop each other
    connection.execute(
        f"SET @source_binlog_checksum='CRC32', @source_heartbeat_period={period}, @replica_uuid='{own}', @slave_uuid='{own}'"
    )


def _random_id() -> int:
    return 0x80000000 + secrets.randbelow(0x7FFFFFFE)


def _is_reached(start: Coordinates, until: Coordinates) -> bool:
    """Whether there is nothing to follow. Raises ChainBroken when the archive is ahead of the source."""
    if start.file == until.file and start.position == until.position:
        return True
    ours, theirs = _SUFFIX.fullmatch(start.file), _SUFFIX.fullmatch(until.file)
    is_later_file = bool(ours and theirs and ours[1] == theirs[1] and int(ours[2]) > int(theirs[2]))
    if is_later_file or (start.file == until.file and start.position > max(until.position, events.FIRST_POSITION)):
        raise errors.ChainBroken(
            f"the archive reaches {start}, the source's binlog ends at {until}: the source was reset or restored",
            hint="take a new full backup",
        )
    return False
