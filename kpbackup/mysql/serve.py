"""A replication source made of stored events: the target's own appliers do the replay.

Idea: a restored server pulls its missing binlog as a replica would, by file and position. Where the events end
the stream ends, so the cut is exact: nothing after it was ever sent. Then heartbeats keep the connection.

It listens on one address and port, and one account with a random one-time password may log in. A
replica that comes again asks for the position it has reached; the older connection is closed and the caller is
asked for a stream from there. Nothing is stored; when this process dies the target's I/O thread finds nobody
and the caller's next run resets it.

MariaDB's ANNOTATE_ROWS events, the statements' texts as comments, are left out: nothing is executed for them, and they are
half of what many small transactions write. The ROTATE or STOP that ends the last file is held back: it would move the replica
to a file that never comes, and its position with it. Limits: positions beyond 4 GiB wrap in heartbeats, which are not sent there.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from kpbackup import errors
from kpbackup.model.coordinates import archive_name, own_name, takeovers
from kpbackup.mysql import events, row_events
from kpbackup.mysql.events import StreamEvent
from kpbackup.mysql.replica_session import Account, Persona, ReplicaSession
from kpbackup.mysql.transactions import TransactionWalker

BATCH_BYTES = 1 << 20
_TAKEN_OVER = "~"
_LAST_SHORT_POSITION = 0xFFFFFFFF

ReadFrom = Callable[[str, int], Iterator[StreamEvent]]
"""`read_from(file, position)`: the events from there on, whole transactions, ending at the cut.

Each file starts with its format description: its own, or the repeated one when the stream starts inside the file.
Events of the first file before `position` may come and are left out.
"""


@dataclass(frozen=True)
class Progress:
    """What was sent so far. `file` and `position` are the end of the last whole transaction, '' and 0 before one.

    `is_complete`: every event was sent. `is_streaming`: a replica is connected and asked for the stream.
    """

    file: str = ""
    position: int = 0
    transactions: int = 0
    sent_bytes: int = 0
    is_complete: bool = False
    is_streaming: bool = False


def announced(file: str) -> str:
    """What the replica is told that a file is called. MariaDB's parallel appliers take a place for older when its file's name
    without the number sorts before: so after a takeover it must sort behind all names that servers give, whose own ROTATE
    events come too."""
    number = takeovers(file)
    return f"{_TAKEN_OVER}{number:06d}/{own_name(file)}" if number else file


def file_announced(name: str) -> str:
    """The archive's name of the file that the replica knows as `name`."""
    number, slash, own = name.removeprefix(_TAKEN_OVER).partition("/")
    return archive_name(own, int(number)) if slash else name


class ReplicationSource:
    """Listens from `__enter__` to `__exit__`. `progress()` and `failure()` may be asked from any thread."""

    def __init__(
        self, *, host: str, family: socket.AddressFamily, persona: Persona, read_from: ReadFrom, port: int = 0,
        tls: ssl.SSLContext | None = None, weigh: Callable[[str, int], int] = lambda file, end: 1,
    ) -> None:
        """`host` and `port` are listened on ('' every address, 0 any free port); `tls` makes it TLS and nothing else. `weigh`
        says how many of the source's transactions the one that ends at (file, position) stands for."""
        self.account = Account()
        self._tls = tls
        self._weigh = weigh
        self._port = port
        self._persona = persona
        self._read_from = read_from
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._address = host
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._sessions: list[ReplicaSession] = []
        self._threads: list[threading.Thread] = []
        self._failure: errors.KpbackupError | None = None
        self._tally = _Tally()

    def __enter__(self) -> ReplicationSource:
        """Raises ServerUnreachable when the address cannot be listened on."""
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((self._address, self._port))
            self._listener.listen(4)
        except OSError as exc:
            self._listener.close()
            where = f"{self._address or '*'}:{self._port or 'any port'}"
            raise errors.ServerUnreachable(
                f"cannot listen on {where} for the target's replica: {exc.strerror or exc}",
                hint="set recovery.replay.port to a free port of this machine, or leave it out",
            ) from exc
        self._start(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        with self._lock:
            sessions = list(self._sessions)
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        except OSError:
            pass  # not every system allows this on a listening socket; close() wakes it there
        self._listener.close()
        for session in sessions:
            session.close()
        for thread in self._threads:
            thread.join()

    @property
    def host(self) -> str:
        return str(self._listener.getsockname()[0])

    @property
    def is_tls(self) -> bool:
        return self._tls is not None

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def progress(self) -> Progress:
        with self._lock:
            return self._tally.progress

    def failure(self) -> errors.KpbackupError | None:
        """What `read_from` raised; the stream cannot go on."""
        with self._lock:
            return self._failure

    def disconnect(self) -> None:
        """Drops the replica's connection, as a broken network would; it will come again."""
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.close()

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name="kpbackup-replication-source", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return  # closed by __exit__
            session = ReplicaSession(connected, self._persona, self.account, tls=self._tls)
            with self._lock:
                self._sessions.append(session)
            self._start(lambda session=session: self._serve(session))  # type: ignore[misc]

    def _serve(self, session: ReplicaSession) -> None:
        """One connection to its end. Whatever stops it other than the replica's going is a failure of the replay."""
        is_explained = False
        try:
            if session.login() and (request := session.until_dump()) is not None:
                self._take_over(session)
                session.begin_stream()
                self._stream(session, file_announced(request.file), request.position)
            is_explained = True
        except (OSError, EOFError):
            is_explained = True  # the replica went away; it comes again if it wants more
        except errors.KpbackupError as exc:
            is_explained = True
            self._fail(exc)
            self._tell(session, exc)
        finally:
            if not is_explained:
                self._fail(errors.InternalError("the thread that serves the target's replica died"))
            with self._lock:
                self._sessions.remove(session)
                self._tally.set_streaming(False)
            session.close()

    def _take_over(self, session: ReplicaSession) -> None:
        """A replica has one stream: the connection it had before is dead even where nobody noticed."""
        with self._lock:
            older = [other for other in self._sessions if other is not session]
        for other in older:
            other.close()

    def _fail(self, exc: errors.KpbackupError) -> None:
        with self._lock:
            self._failure = self._failure or exc

    def _tell(self, session: ReplicaSession, exc: errors.KpbackupError) -> None:
        try:
            session.refuse(1236, "HY000", f"kpbackup: {exc.message}")
        except OSError:
            pass  # it is recorded; the replica need not hear it

    def _stream(self, session: ReplicaSession, file: str, position: int) -> None:
        sender = _Sender(session, self._persona.server_id, file, max(position, events.FIRST_POSITION))
        with self._lock:
            self._tally.set_streaming(True)
        stream = self._read_from(file, position)
        walker = TransactionWalker()
        held: StreamEvent | None = None
        for event in stream:
            if self._closing.is_set():
                return
            if held is not None:
                sender.send(held)
                held = None
            if not event.is_repeated_description and event.file == file and event.end <= position:
                if event.type == events.FORMAT_DESCRIPTION:
                    sender.start_file(event.file, position, events.as_repeated(event.data))
                continue
            if event.type in (events.ROTATE, events.STOP):
                held = event
                continue
            sender.send(event)
            if walker.feed(event) is not None:
                with self._lock:
                    self._tally.count(event, self._weigh(event.file, event.end))
        sender.flush()
        with self._lock:
            self._tally.complete()
        while not self._closing.wait(session.heartbeat_s):
            sender.heartbeat()


class _Tally:
    """Progress over all connections: a transaction sent twice counts once."""

    def __init__(self) -> None:
        self.progress = Progress()
        self._files: dict[str, int] = {}

    def count(self, last: StreamEvent, transactions: int) -> None:
        order = self._files.setdefault(last.file, len(self._files))
        now = self.progress
        if (order, last.end) > (self._files.get(now.file, -1), now.position):
            more = last.end - (now.position if now.file == last.file else 0)
            self.progress = replace(
                now, file=last.file, position=last.end, transactions=now.transactions + transactions,
                sent_bytes=now.sent_bytes + more,
            )

    def complete(self) -> None:
        self.progress = replace(self.progress, is_complete=True)

    def set_streaming(self, value: bool) -> None:
        self.progress = replace(self.progress, is_streaming=value)


class _Sender:
    """Turns stored events into what a source sends: each file announced, batches of about 1 MiB."""

    def __init__(self, session: ReplicaSession, server_id: int, file: str, position: int) -> None:
        self._session = session
        self._server_id = server_id
        self._file = file
        self._position = position
        self._is_announced = False
        self._crc = True  # until a format description says otherwise
        self._batch: list[bytes] = []
        self._batch_bytes = 0

    def send(self, event: StreamEvent) -> None:
        if event.type == events.FORMAT_DESCRIPTION:
            if event.is_repeated_description:
                if not self._is_announced or event.file != self._file:
                    self.start_file(event.file, self._position, events.as_repeated(event.data))
            elif event.is_resumption:
                self.start_file(event.file, event.end, events.as_repeated(event.data))
            else:
                self.start_file(event.file, event.start, events.without_in_use(event.data))
                self._position = event.end
            return
        if event.file != self._file or not self._is_announced:
            raise errors.IntegrityError(f"stored binlog: {event.file} does not start with a format description")
        if event.start != self._position:
            raise errors.IntegrityError(f"stored binlog jumps from {self._file}:{self._position} to {event.start}")
        if event.type != row_events.ANNOTATE_ROWS:  # a comment: the text of the statement, often longer than its rows
            self._add(event.data)
        self._position = event.end

    def start_file(self, file: str, position: int, description: bytes) -> None:
        body = struct.pack("<Q", position) + announced(file).encode("utf-8", "surrogateescape")
        self._add(
            events.artificial_event(
                events.ROTATE, body, server_id=self._server_id, flags=events.FLAG_ARTIFICIAL, crc=self._crc
            )
        )
        self._add(description)
        self._crc = events.checksum_algorithm(description) == events.CHECKSUM_CRC32
        self._file, self._position, self._is_announced = file, position, True

    def flush(self) -> None:
        if self._batch:
            self._session.send_events(self._batch)
            self._batch, self._batch_bytes = [], 0

    def heartbeat(self) -> None:
        if self._position > _LAST_SHORT_POSITION:
            return
        name = announced(self._file).encode("utf-8", "surrogateescape")
        beat = events.artificial_event(
            events.HEARTBEAT, name, server_id=self._server_id, next_position=self._position, crc=self._crc
        )
        self._session.send_events([beat])

    def _add(self, data: bytes) -> None:
        self._batch.append(data)
        self._batch_bytes += len(data)
        if self._batch_bytes >= BATCH_BYTES:
            self.flush()
